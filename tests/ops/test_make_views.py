"""Tests the C++ op that makes views (augmented images): its pixels, its use with and without XLA, errors, threads.

The pixels are compared with the NumPy reference by the rule of `verification.bound`: the error may be at most twice the
error of the same computation with TensorFlow's own ops (stock), plus a few rounding errors. These are multiplied by the
factor by which the colour operations of a view amplify small differences. kernels/sanitize.sh tests the same C++ code
without TensorFlow, with random shapes and under sanitizers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from lowlevel_simclr import ops, reference
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _route
from lowlevel_simclr.stock.make_views import make_views as stock_views
from lowlevel_simclr.verification.mode import build_for_mode
from tests.support.closeness import assert_close
from tests.support.digests import digest_views
from tests.support.host import on_the_host
from tests.support.op_modes import list_modes, needs_xla
from tests.support.pillow_crop import pillow
from tests.support.view_errors import ULP, amplification, assert_stock_is_close
from tests.support.view_inputs import (
    CASES,
    MEAN,
    STD,
    all_orders,
    any_views,
    boxes_in,
    cropped,
    images_of,
    params_of,
    tensors,
)
from tests.support.view_modes import build_modes

HEIGHT, WIDTH, SIZE = 41, 36, 30
COUNT = 24


def made(images: Any, params: ViewParams, dtype: str = "float32") -> tf.Tensor:
    return ops.make_views(images, params, SIZE, tf.as_dtype(dtype), MEAN, STD)


def assert_native_is_close(actual: Any, images: Any, params: ViewParams, size: int, **scaling: Any) -> None:
    expected = reference.make_views(images, params, size, **scaling)
    plain = stock_views(images, params, size, **scaling).numpy()
    assert actual.shape == expected.shape
    scale = amplification(params)[:, None, None, None] / np.asarray(scaling.get("std", 1.0))
    assert_close(actual.numpy(), expected, plain, dtype="float32", scale=scale)


@pytest.fixture(scope="module")
def in_mode() -> Callable[[str], Callable[..., tf.Tensor]]:
    """Return a function: given the name of a mode, it returns `made` for images (24, 41, 36, 3) in this mode.

    The modes are eager, a graph that does not know the number of images, and XLA.
    """
    modes = build_modes(made, HEIGHT, WIDTH, SIZE)
    return {**modes, "graph": on_the_host(modes["graph"])}.__getitem__


# The pixels of the views


@pytest.mark.parametrize("mode", list_modes())
def test_views_are_those_of_the_reference(in_mode, mode):
    images = images_of(COUNT, HEIGHT, WIDTH)
    for seed in range(3):
        params = all_orders(HEIGHT, WIDTH, seed)
        views = in_mode(mode)(images, tensors(params))
        assert_native_is_close(views, images, params, SIZE, mean=MEAN, std=STD)


@settings(CASES, max_examples=60)
@given(any_views())
def test_views_of_anything_are_those_of_the_reference(drawn):
    images, params, size = drawn
    # These views are small. They have too few pixels to measure the error of the stock ops. So the fixed bound is used
    # with which the stock ops themselves are tested.
    assert_stock_is_close(ops.make_views(images, params, size), reference.make_views(images, params, size), params)


@CASES
@given(cropped())
def test_crops_are_those_of_pillow(case):
    image, box, size = case
    views = ops.make_views(image[None], params_of(2, box=box), size).numpy()
    expected = np.stack([pillow(image[..., c].astype(np.float32), box, size) for c in range(3)], axis=-1)
    assert np.max(np.abs(255 * views[0] - expected)) <= 1e-4
    eight_bit = np.stack([pillow(image[..., c], box, size) for c in range(3)], axis=-1)
    assert np.max(np.abs(255 * views[0] - eight_bit)) <= 1 + 1e-4


def test_views_of_large_images_are_those_of_the_reference():
    images = images_of(2, 700, 900)
    params = params_of(
        4,
        box=[[650, 840, 50, 60], [0, 0, 700, 900], [333, 444, 300, 10], [699, 899, 1, 1]],
        contrast=1.5,
        blur_sigma=[0, 2, 1, 0.1],
    )
    assert_native_is_close(ops.make_views(images, params, 64), images, params, 64)


def test_views_stay_within_0_and_1():
    images, params = images_of(24, 32, 32), all_orders(32, 32)._replace(clip=np.ones(48, bool))
    for seed in range(4):
        params = all_orders(32, 32, seed)._replace(clip=np.ones(48, bool))
        for blur in (False, True):
            views = ops.make_views(images, params, 32, blur=blur).numpy()
            # The weights of a blur do not sum to exactly 1: they have a few rounding errors.
            assert 0 <= views.min() <= views.max() <= 1 + 4 * ULP * blur


def test_a_neutral_first_operation_clips_too():
    images = images_of(1, 8, 8).astype(np.float32) / 100  # pixels up to 2.55
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        params = params_of(2, box=[0, 0, 8, 8], order=order, contrast=0.5)
        expected = reference.make_views(images, params, 8)
        np.testing.assert_allclose(ops.make_views(images, params, 8), expected, rtol=0, atol=8 * ULP)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels(channels):
    images = images_of(2, 12, 15, channels)
    params = params_of(
        4, box=boxes_in(np.random.default_rng(0), 4, 12, 15), brightness=1.5, contrast=0.5, order=[1, 2, 3, 0]
    )
    assert_native_is_close(ops.make_views(images, params, 20), images, params, 20)


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float32", "float64"])
def test_images_of_other_types(dtype):
    images = images_of(2, 12, 12).astype(np.uint16) * 257
    if dtype != "uint16":
        images = (images / 65535).astype(dtype)
    params = params_of(4, box=boxes_in(np.random.default_rng(0), 4, 12, 12))
    assert_native_is_close(ops.make_views(images, params, 16), images, params, 16)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_the_float_views_rounded_once(dtype):
    images, params = images_of(COUNT, HEIGHT, WIDTH), all_orders(HEIGHT, WIDTH)
    full, half = made(images, params), made(images, params, dtype)
    assert half.dtype == dtype
    np.testing.assert_array_equal(half.numpy(), tf.cast(full, dtype).numpy())


def test_blurring_is_left_out_on_demand():
    images, params = images_of(2, 32, 32), params_of(4, box=[0, 0, 32, 32], blur_sigma=1.5)
    sharp = ops.make_views(images, params._replace(blur_sigma=np.zeros(4, np.float32)), 32).numpy()
    np.testing.assert_array_equal(ops.make_views(images, params, 32, blur=False), sharp)
    assert np.max(np.abs(ops.make_views(images, params, 32) - sharp)) > 0.1


def test_an_empty_batch_has_no_views():
    params = params_of(0, box=np.zeros((0, 4)))
    assert ops.make_views(np.zeros((0, 8, 8, 3), np.uint8), params, 5).shape == (0, 5, 5, 3)


# Use with and without XLA, and in tf.data


@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=needs_xla)])
@on_the_host
def test_every_route_gives_the_same_bits(in_mode, mode):
    images, params = images_of(COUNT, HEIGHT, WIDTH), tensors(all_orders(HEIGHT, WIDTH))
    np.testing.assert_array_equal(in_mode(mode)(images, params).numpy(), made(images, params).numpy())


def test_a_view_does_not_depend_on_its_batch():
    images, params = images_of(COUNT, HEIGHT, WIDTH), all_orders(HEIGHT, WIDTH)
    whole = made(images, params).numpy()
    for image in (0, 7, 23):
        own = ViewParams(*(np.asarray(field)[[image, image + COUNT]] for field in params))
        np.testing.assert_array_equal(made(images[image : image + 1], own), whole[[image, image + COUNT]])


@on_the_host
def test_views_inside_tf_data_are_the_same_bits():
    images, recipe = images_of(12, 20, 24), ViewRecipe()

    def views(index: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        return ops.make_views(batch, ops.draw_view_params(1, 2, index, recipe, 20, 24), 16)

    batches = tf.data.Dataset.from_tensor_slices((np.arange(12), images)).batch(5)
    mapped = batches.map(views, num_parallel_calls=2)
    assert mapped.element_spec.shape == (None, 16, 16, 3)
    for (index, batch), found in zip(batches, mapped, strict=True):
        np.testing.assert_array_equal(found, views(index, batch))


@pytest.mark.skipif(_route.find_route_error() is None, reason="this TensorFlow's XLA can call the native library")
def test_jit_without_a_route_is_an_error_that_names_versions():
    params = tensors(params_of(2, box=[0, 0, 8, 8]))
    with pytest.raises(Exception, match=f"TensorFlow {tf.__version__}.*2.18 or later"):
        tf.function(lambda images: ops.make_views(images, params, 8), jit_compile=True)(images_of(1, 8, 8))


@pytest.mark.parametrize("mode", list_modes())
def test_there_is_no_gradient(mode):
    views = build_for_mode(lambda images: ops.make_views(images, params_of(2, box=[0, 0, 8, 8]), 8), mode)
    images = tf.constant(images_of(1, 8, 8) / np.float32(255))
    with tf.GradientTape() as tape, pytest.raises(LookupError, match="no gradient.*--ops stock"):
        tape.watch(images)
        tape.gradient(views(images), images)


# Inputs that are refused

WRONG_BOXES = [(0, 0, 0, 4), (0, 0, 4, 0), (-1, 0, 4, 4), (0, -1, 4, 4), (3, 0, 6, 4), (0, 7, 4, 4), (0, 0, 4, -2)]
WRONG_BOXES += [(2**31 - 1, 0, 2**31 - 1, 4)]


@pytest.mark.parametrize("mode", list_modes())
@on_the_host
def test_a_box_that_is_empty_or_outside_is_refused_by_row(mode):
    views = build_for_mode(lambda images, params: ops.make_views(images, params, 8), mode)
    for box in WRONG_BOXES if mode == "eager" else WRONG_BOXES[:3]:
        params = tensors(params_of(4, box=[[0, 0, 8, 10], [0, 0, 8, 10], box, [0, 0, 1, 1]]))
        text = r"Row 2 has the box \(y, x, height, width\) = " + str(box).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(tf.errors.InvalidArgumentError, match=text):
            views(tf.constant(images_of(2, 8, 10)), params)


@pytest.mark.parametrize("colour", [{"saturation": 0.5}, {"hue": 0.1}, {"grey": True}], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
@on_the_host
def test_colours_of_other_than_three_channels_are_refused(colour, channels):
    given_colour = {name: [params_of(1, box=[0] * 4)._asdict()[name][0], value] for name, value in colour.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"Row 1 is grey.*{channels} channels, not 3"):
        ops.make_views(images_of(1, 8, 8, channels), params_of(2, box=[0, 0, 8, 8], **given_colour), 8)


def test_other_mistakes_are_refused():
    images, params = images_of(1, 8, 8), params_of(2, box=[0, 0, 8, 8])
    with pytest.raises(ValueError, match="must be .N, H, W, C."):
        ops.make_views(images[0], params, 8)
    with pytest.raises(ValueError, match="images are int32"):
        ops.make_views(images.astype(np.int32), params, 8)
    with pytest.raises(ValueError, match="size is 0"):
        ops.make_views(images, params, 0)
    with pytest.raises(ValueError, match="up to 4 channels"):
        ops.make_views(images_of(1, 8, 8, 5), params, 8)
    with pytest.raises(ValueError, match=r"size is 32768. The side of a view must be in \[1, 2\^15\)"):
        ops.make_views(images, params, 32768)
    with pytest.raises(ValueError, match="dtype is float64"):
        ops.make_views(images, params, 8, tf.float64)
    with pytest.raises(ValueError, match="Give both or neither"):
        ops.make_views(images, params, 8, mean=0.5)
    for mean, std in ((0.5, 0.0), ((0.5, 0.5), (0.5, 0.5))):
        with pytest.raises(ValueError, match="one for each of the 3 channels"):
            ops.make_views(images, params, 8, mean=mean, std=std)


@pytest.mark.parametrize("field", ViewParams._fields)
@on_the_host
def test_a_field_of_other_rows_is_refused_by_name(field):
    params = params_of(2, box=[0, 0, 8, 8])
    wrong = params._replace(**{field: np.concatenate([getattr(params, field)] * 2)})
    with pytest.raises(ValueError, match=rf"{field} has shape \(4.* for 1 images"):
        ops.make_views(images_of(1, 8, 8), wrong, 8)
    if _route.find_route_error() is None:
        views = tf.function(lambda images: ops.make_views(images, tensors(wrong), 8), jit_compile=True)
        with pytest.raises(ValueError, match=rf"{field} has shape \(4.* for 1 images"):
            views(tf.constant(images_of(1, 8, 8)))


# Threads


def test_several_threads_at_once_get_the_same_bits():
    expected, wrong = digest_views(), []

    def work() -> None:
        wrong.extend(found for found in (digest_views() for _ in range(3)) if found != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
