"""Tests resizing of images by matrix products, in graphs that do not know the size of the images.

The result must equal that of `tf.image.resize`.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data.resize_any_size import resize_any_size
from lowlevel_simclr.data.transform import InferenceTransform, resize_antialiased

SIZES = [(12, 10, 8), (12, 10, 24), (7, 31, 7), (5, 5, 1), (1, 3, 4), (96, 64, 20), (300, 200, 32)]


def bound(height: int, width: int, size: int) -> float:
    """Return the largest difference that rounding errors can make, for pixels in [0, 1].

    Let u = 2^-24 be the relative error of one rounding, and `length` the number of input pixels along an axis.

    - The weight of an input pixel depends on its distance from the centre of the output pixel, divided by the half
      width of the triangle filter. The centre has a relative error of at most 2u. In units of the half width, this is
      2u x min(size, length). The subtraction and the division add 2u. So e, the error of a weight, is the sum of both.
    - The errors of the weights make an error of at most 3e in the output, because the pixels with wrong weights cover
      at most three half widths, and all weights together sum to one half width. The matrix product adds 2u.
    - The result adds these errors for both axes, and doubles the sum, because both computations have them.
    """
    u = 2.0**-24
    return sum(2 * (3 * (2 * min(length, size) + 2) + 2) * u for length in (height, width))


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_products_and_tensorflows_op_agree(height: int, width: int, size: int) -> None:
    images = np.random.default_rng(height).random((2, height, width, 3), np.float32)
    expected = tf.image.resize(images, (size, size), "bilinear", antialias=True)
    atol = bound(height, width, size)
    np.testing.assert_allclose(resize_any_size(images, size, tf), expected, rtol=0, atol=atol)
    seen = tf.keras.Input((None, None, 3))
    model = tf.keras.Model(seen, resize_antialiased(seen, size))
    np.testing.assert_allclose(model(images), expected, rtol=0, atol=atol)


def test_images_of_the_wanted_size_and_no_images_stay_as_they_are() -> None:
    images = np.random.default_rng(0).random((2, 9, 9, 1), np.float32)
    np.testing.assert_array_equal(resize_any_size(images, 9, tf), images)
    assert resize_any_size(images[:0], 4, tf).shape == (0, 4, 4, 1)


def test_the_model_of_the_test_transform_has_no_resize_that_converters_do_not_know() -> None:
    seen = tf.keras.Input((None, None, 3))
    model = tf.keras.Model(seen, InferenceTransform(8)(seen))
    graph = tf.function(model).get_concrete_function(tf.TensorSpec([None, None, None, 3], tf.float32)).graph
    kinds = {node.op for node in graph.as_graph_def().node}
    kinds |= {node.op for function in graph.as_graph_def().library.function for node in function.node_def}
    assert "ScaleAndTranslate" not in kinds and "Cumsum" in kinds
