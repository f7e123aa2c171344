"""Tests image augmentation in TensorFlow's own ops (stock): the augmented images (views) must equal those of NumPy.

They may differ from the NumPy reference by rounding errors of float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.reference.draw_view_params import draw_view_params
from lowlevel_simclr.reference.make_views import make_views
from lowlevel_simclr.stock.draw_view_params import draw_view_params as stock_draw
from lowlevel_simclr.stock.make_views import make_views as stock_views
from tests.support.other_process import output_of
from tests.support.view_errors import assert_stock_is_close
from tests.support.view_inputs import CASES, MEAN, STD, all_orders, any_views, boxes_in, images_of, params_of, tensors
from tests.support.view_modes import build_modes


def scaled_views(images: tf.Tensor, params: ViewParams) -> tf.Tensor:
    return stock_views(images, params, 30, mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def in_mode() -> Callable[[str], Callable[..., tf.Tensor]]:
    """Return a function: given the name of a mode, it returns `scaled_views` for images (N, 41, 36, 3) in this mode.

    The modes are eager, a graph that does not know N, and XLA with known N.
    """
    return build_modes(scaled_views, 41, 36, 30).__getitem__


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_stock_makes_the_same_views(in_mode, mode):
    images = images_of(24, 41, 36)
    for seed in range(3):
        params = all_orders(41, 36, seed)
        expected = make_views(images, params, 30, mean=MEAN, std=STD)
        assert_stock_is_close(in_mode(mode)(images, tensors(params)), expected, params, std=min(STD))


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_a_view_that_cannot_be_made_is_nan_in_stock_graphs(in_mode, mode):
    params = all_orders(41, 36)
    wrong = [[0, 0, 0, 3], [0, 0, 3, 0], [37, 5, 5, 4], [5, 36, 1, 1], [-1, 0, 9, 9], [0, -1, 9, 9]]
    params.box[10:16] = wrong
    made = in_mode(mode)(images_of(24, 41, 36), tensors(params)).numpy()
    expected = np.isin(np.arange(48), np.arange(10, 16))
    np.testing.assert_array_equal(np.isnan(made).all(axis=(1, 2, 3)), expected)
    np.testing.assert_array_equal(np.isnan(made).any(axis=(1, 2, 3)), expected)


def test_parameters_of_another_batch_are_refused_in_graphs(in_mode):
    params = tensors(all_orders(41, 36))
    for count in (1, 23, 48):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            in_mode("graph")(images_of(count, 41, 36), params)


@settings(CASES, max_examples=25)
@given(any_views())
def test_stock_makes_the_same_views_of_anything(drawn):
    images, params, size = drawn
    assert_stock_is_close(stock_views(images, params, size), make_views(images, params, size), params)


def test_stock_is_as_right_far_from_the_border_of_a_large_image():
    images = images_of(2, 700, 900)
    params = params_of(4, box=[[650, 840, 50, 60], [0, 0, 700, 900], [333, 444, 300, 10], [699, 899, 1, 1]])
    assert_stock_is_close(stock_views(images, params, 32), make_views(images, params, 32), params)


def test_stock_views_stay_within_0_and_1():
    images = images_of(24, 32, 32)
    params = all_orders(32, 32)._replace(clip=np.ones(48, bool))
    for blur in (False, True):
        views = stock_views(images, params, 32, blur=blur).numpy()
        assert 0 <= views.min() <= views.max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_stock_takes_any_number_of_channels(channels):
    images = images_of(2, 12, 15, channels)
    params = params_of(
        4, box=boxes_in(np.random.default_rng(0), 4, 12, 15), brightness=1.5, contrast=0.5, order=[1, 2, 3, 0]
    )
    assert_stock_is_close(stock_views(images, params, 20), make_views(images, params, 20), params)


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32", "float64"])
def test_stock_takes_images_of_other_types(dtype):
    images = images_of(2, 12, 12).astype(np.uint16) * 257
    if dtype != "uint16":
        images = (images / 65535).astype(dtype)
    params = params_of(4, box=boxes_in(np.random.default_rng(0), 4, 12, 12))
    expected = make_views(images, params, 16)
    assert_stock_is_close(stock_views(images, params, 16), expected, params)
    allowed = 2.0**-10 if dtype == "float16" else 1e-6  # float16 rounds a pixel (at most 1) twice
    eight_bit = make_views(images_of(2, 12, 12), params, 16)
    np.testing.assert_allclose(expected, eight_bit, rtol=0, atol=allowed)


@pytest.mark.parametrize(("dtype", "digits"), [("bfloat16", 8), ("float16", 11)])
def test_stock_rounds_to_half_types_once_at_the_end(dtype, digits):
    images, params = images_of(24, 32, 32), all_orders(32, 32)
    full = stock_views(images, params, 32, mean=0.5, std=0.5)
    half = stock_views(images, params, 32, tf.as_dtype(dtype), mean=0.5, std=0.5)
    assert half.dtype == dtype
    error = np.abs(tf.cast(half, tf.float32) - full)
    assert np.all(error <= np.abs(full) * 2.0**-digits + 2.0**-25)


def test_stock_makes_the_same_views_inside_tf_data():
    images, recipe = images_of(12, 20, 24), ViewRecipe()

    def views(index: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        return stock_views(batch, stock_draw(1, 2, index, recipe, 20, 24), 16, blur=False)

    batches = tf.data.Dataset.from_tensor_slices((np.arange(12), images)).batch(5).map(views)
    for first, made in zip((0, 5, 10), batches, strict=True):
        index = np.arange(first, min(first + 5, 12))
        params = draw_view_params(1, 2, index, recipe, 20, 24)
        assert_stock_is_close(made, make_views(images[index], params, 16), params)


def test_grey_levels_changed_in_colour_are_nan_in_stock_graphs():
    views = tf.function(lambda images, params: stock_views(images, params, 8))
    params = params_of(4, box=[0, 0, 8, 8], saturation=[1, 0.5, 1, 1], hue=[0, 0, 0.1, 0], grey=[0, 0, 0, 1])
    made = views(images_of(2, 8, 8, 1), ViewParams(*map(tf.constant, params))).numpy()
    np.testing.assert_array_equal(np.isnan(made).all(axis=(1, 2, 3)), [False, True, True, True])


ONE_IMAGE = """
import numpy as np, tensorflow as tf
from lowlevel_simclr import reference, stock
from lowlevel_simclr.config.settings import ViewRecipe
params = reference.draw_view_params(0, 0, np.arange(1), ViewRecipe(), 4, 8)
for _ in range(100):
    made = stock.make_views(np.zeros((1, 4, 8, 3), np.uint8), params, 18)
print(made.shape)
"""


def test_views_of_one_image_do_not_corrupt_the_memory() -> None:
    """Test a batch of one image.

    In TensorFlow 2.21 with oneDNN, a matrix product that broadcasts a batch of 1 corrupts the memory.
    """
    assert output_of(ONE_IMAGE, TF_ENABLE_ONEDNN_OPTS="1") == "(2, 18, 18, 3)"
