"""Tests that each image gets two random augmented copies (views), in C++ (native) and in TensorFlow's own ops (stock).

A view must depend only on the image, its index and the epoch.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.data.views import compile_views, make_two_views
from tests.support.view_errors import ULP
from tests.support.view_inputs import MEAN, STD, images_of

RECIPE = ViewRecipe(blur_probability=0.5)
SETTINGS: dict[str, Any] = {"seed": 3, "recipe": RECIPE, "size": 32, "dtype": tf.float32}


def test_native_and_stock_views_of_a_run_agree():
    images, epoch, index = images_of(16, 32, 32), tf.constant(4), tf.range(16, dtype=tf.int64)
    settings_of_run = {**SETTINGS, "scaling": PixelScaling(MEAN, STD)}
    native, plain = (
        make_two_views(tf.constant(images), epoch, index, implementation=whose, **settings_of_run)
        for whose in (ops, stock)
    )
    # Both views differ from the reference by at most 20 ulp (1 ulp is the distance between neighbouring float32
    # numbers). The changes of colour amplify this by at most 1.8 * 2.6 * 2.6 * 2 = 24.4.
    np.testing.assert_allclose(native, plain, rtol=0, atol=2 * 20 * ULP * 24.4 / min(STD))


@pytest.mark.parametrize("implementation", [ops, stock], ids=["native", "stock"])
def test_rows_i_and_n_plus_i_are_views_of_image_i(implementation: ModuleType) -> None:
    """Test images that have a single colour each. Without changes of colour, both views must have this colour."""
    colours = np.arange(6, dtype=np.uint8) * 40
    images = np.broadcast_to(colours[:, None, None, None], (6, 10, 12, 3))
    recipe = ViewRecipe(jitter_probability=0, grey_probability=0)
    given = {**SETTINGS, "recipe": recipe, "size": 5, "implementation": implementation}
    views = make_two_views(tf.constant(images), tf.constant(0), tf.range(6, dtype=tf.int64), **given)
    assert views.shape == (12, 5, 5, 3)
    np.testing.assert_allclose(255 * views.numpy()[:, 2, 3, 1], [*colours, *colours], atol=1e-4)


def test_the_compiled_views_of_a_run_depend_on_epoch_and_index() -> None:
    images, index = tf.constant(images_of(4, 12, 12)), tf.constant([7, 3, 5, 1], tf.int64)
    given = {**SETTINGS, "size": 8, "implementation": ops, "scaling": PixelScaling(MEAN, STD)}
    views = compile_views(**given)
    first = views(tf.constant(0, tf.int64), index, images).numpy()
    again = views(tf.constant(0, tf.int64), tf.gather(index, [1, 0]), tf.gather(images, [1, 0])).numpy()
    np.testing.assert_array_equal(again, first[[1, 0, 5, 4]])  # the other images of the batch do not matter
    assert np.any(first != views(tf.constant(1, tf.int64), index, images).numpy())
