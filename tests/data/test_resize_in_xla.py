"""Tests resizing of images by matrix products, which XLA can compile: the result must equal `tf.image.resize`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data.resize_in_xla import make_weights, resize_by_products, resize_frames
from lowlevel_simclr.data.transform import InferenceTransform, resize_antialiased

SIZES = [(12, 10, 8), (12, 10, 24), (7, 31, 7), (5, 5, 1), (1, 3, 4), (96, 64, 20)]


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_products_and_tensorflows_op_agree(height: int, width: int, size: int) -> None:
    images = np.random.default_rng(height).random((2, height, width, 3), np.float32)
    expected = tf.image.resize(images, (size, size), "bilinear", antialias=True)
    # Pixels are in [0, 1]. Both computations add products in float32, at most height x width for each output.
    np.testing.assert_allclose(resize_by_products(images, size), expected, atol=32 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(make_weights(height, size).sum(axis=1), 1, atol=1e-6)


def test_the_test_transform_compiles() -> None:
    images = tf.constant(np.random.default_rng(0).random((2, 12, 10, 3), np.float32))
    compiled = tf.function(lambda x: resize_antialiased(x, 8), jit_compile=True)(images)
    np.testing.assert_allclose(compiled, resize_antialiased(images, 8), atol=32 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [5, 20])
def test_each_frame_is_resized_as_if_it_had_no_padding(size: int, jit: bool) -> None:
    random = np.random.default_rng(size)
    images, sizes = random.random((9, 12, 17, 3), np.float32), random.integers(1, (13, 18), (9, 2))
    found = tf.function(lambda *given: resize_frames(*given, size), jit_compile=jit)(images, sizes)
    for place, (height, width) in enumerate(sizes.tolist()):
        expected = resize_by_products(images[place, :height, :width], size)
        np.testing.assert_allclose(found[place], expected, atol=64 * np.finfo(np.float32).eps)


def test_frames_need_a_size() -> None:
    with pytest.raises(ValueError, match="Give the transform a size"):
        InferenceTransform(None)(np.zeros((1, 4, 4, 3), np.uint8), [[2, 3]])
