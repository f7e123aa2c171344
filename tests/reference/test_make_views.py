"""Tests the pixels of augmented images (views) that the NumPy reference makes, against those of other libraries.

The crop is compared with Pillow and tf.image, the colours with colorsys and tf.image, and the blur with SciPy (with
TensorFlow 2.15 also with tensorflow-addons). Further tests check properties, for example that a second flip undoes the
first one.
"""

from __future__ import annotations

import colorsys
import itertools
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams
from lowlevel_simclr.reference.draw_view_params import draw_view_params
from lowlevel_simclr.reference.make_views import (
    blur_by_gaussian,
    compute_resize_weights,
    count_blur_taps,
    crop_and_resize,
    make_views,
)
from lowlevel_simclr.stock.make_views import make_views as stock_views
from tests.support.pillow_crop import pillow
from tests.support.view_errors import ULP, amplification
from tests.support.view_inputs import CASES, cropped, images_of, params_of, whole

ULP64 = 2.0**-52


def one_view(image: np.ndarray, size: int, **given: Any) -> np.ndarray:
    """Return the reference's view of one image (H, W, C)."""
    given.setdefault("box", [0, 0, *image.shape[:2]])
    return make_views(image[None], params_of(2, **given), size)[0]


# The crop, compared with Pillow and tf.image


@CASES
@given(cropped())
def test_crops_are_those_of_pillow(case):
    image, box, size = case
    expected = np.stack([pillow(image[..., c].astype(np.float32), box, size) for c in range(3)], axis=-1) / 255
    # Pillow resizes rows and columns in two passes, and rounds to float32 after each. A number below 256 is then wrong
    # by at most half an ulp (the distance to the next float32). The test divides by 255.
    np.testing.assert_allclose(one_view(image, size, box=box), expected, rtol=0, atol=2 * ULP)


@CASES
@given(cropped())
def test_crops_are_within_one_step_of_eight_bit_pillow(case):
    image, box, size = case
    expected = np.stack([pillow(image[..., c], box, size) for c in range(3)], axis=-1)
    assert np.max(np.abs(255 * one_view(image, size, box=box) - expected)) < 1 + 1e-9


@CASES
@given(cropped())
def test_crops_are_those_of_tensorflow(case):
    image, (y, x, h, w), size = case
    crop = tf.constant(image[y : y + h, x : x + w] / np.float32(255))
    expected = tf.image.resize(crop, (size, size), antialias=True)
    # tf.image computes the positions of pixels in float32. For positions from 32 to 40, half an ulp is 16 times the ulp
    # of 1. The positions of rows and of columns have this error.
    np.testing.assert_allclose(one_view(image, size, box=(y, x, h, w)), expected, rtol=0, atol=40 * ULP)


@pytest.mark.parametrize(("length", "size"), [(1, 5), (5, 1), (7, 7), (3, 11), (11, 3), (500, 32)])
def test_resizing_weights_are_a_partition(length, size):
    weights = compute_resize_weights(length, size)
    assert weights.shape == (size, length)
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=4 * ULP64)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=0, atol=64 * ULP64)
    if length == size:
        np.testing.assert_array_equal(weights, np.eye(size))


# The colours, compared with colorsys and tf.image


def by_colorsys(image: np.ndarray, factor: float, turn: float) -> np.ndarray:
    """Change the saturation and the hue of an image, pixel by pixel, with Python's module colorsys."""
    changed = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[place])
        changed[place] = colorsys.hsv_to_rgb((hue + turn) % 1, min(1, factor * saturation), value)
    return changed


@CASES
@given(
    seed=st.integers(0, 999),
    factor=st.floats(0, 3, width=32),
    turn=st.floats(-1, 1, width=32),
    hue_first=st.booleans(),
)
def test_saturation_and_hue_are_those_of_colorsys(seed, factor, turn, hue_first):
    image = images_of(1, 6, 6, seed=seed)[0]
    order = [3, 2, 0, 1] if hue_first else [2, 3, 0, 1]
    actual = one_view(image, 6, saturation=factor, hue=turn, order=order)
    # Hues are computed in sixths of a full circle. So numbers are as large as 6, and they are rounded a dozen times.
    np.testing.assert_allclose(actual, by_colorsys(image / 255, factor, turn), rtol=0, atol=100 * ULP64)


TF_IMAGE = {
    "contrast": (tf.image.adjust_contrast, (0.0, 0.3, 1.0, 1.9)),
    "saturation": (tf.image.adjust_saturation, (0.0, 0.3, 1.0, 1.9)),
    "hue": (tf.image.adjust_hue, (-0.5, -0.2, 0.0, 0.1, 0.33)),
    "brightness_shift": (
        tf.image.adjust_brightness,
        (-0.4, 0.0, 0.3),
    ),  # `adjust_brightness` adds a number to each pixel, and so does `brightness_shift`
}


@pytest.mark.parametrize("name", TF_IMAGE)
def test_colour_operations_are_those_of_tensorflow(name):
    adjust, values = TF_IMAGE[name]
    for seed, value in enumerate(values):
        image = images_of(1, 9, 7, seed=seed)[0]
        crop = np.float32(one_view(image, 9))  # the crop, resized to a square
        # Only the saturation needs a clip: tf.image limits S of HSV to 1, and clipping the pixels to [0, 1] has the
        # same effect. The other operations are compared without a clip.
        actual = one_view(image, 9, **{name: value}, clip=name == "saturation")
        # tf.image's conversion to HSV rounds a dozen times in float32. Its hues are in sixths of a full circle, so
        # numbers are as large as 6.
        np.testing.assert_allclose(actual, adjust(crop, value), rtol=0, atol=24 * ULP)


def test_grey_is_that_of_tensorflow():
    image = images_of(1, 8, 8)[0]
    grey = one_view(image, 8, grey=True)
    assert np.ptp(grey, axis=-1).max() == 0
    expected = tf.image.rgb_to_grayscale(np.float32(image / 255))
    np.testing.assert_allclose(grey[..., :1], expected, rtol=0, atol=4 * ULP)


def test_brightness_and_contrast_are_what_they_say():
    image = images_of(1, 8, 8)[0]
    x = image / 255
    for factor in (0.0, 0.4, 1.7):
        factor = float(np.float32(factor))
        brightened = one_view(image, 8, brightness=factor)
        np.testing.assert_allclose(brightened, np.clip(factor * x, 0, 1), rtol=0, atol=8 * ULP64)
        shifted = one_view(image, 8, brightness=factor, brightness_shift=-0.25, clip=False)
        np.testing.assert_allclose(shifted, factor * x - 0.25, rtol=0, atol=8 * ULP64)
        mean = np.array([x[..., c].mean() for c in range(3)])
        expected = np.clip((x - mean) * factor + mean, 0, 1)
        np.testing.assert_allclose(one_view(image, 8, contrast=factor), expected, rtol=0, atol=8 * ULP64)


def test_a_view_that_does_not_clip_has_no_bound_on_its_saturation():
    image = images_of(1, 8, 8)[0]
    x = image / 255
    value = x.max(axis=-1, keepdims=True)
    actual = one_view(image, 8, saturation=1.75, clip=False)
    np.testing.assert_allclose(actual, value - 1.75 * (value - x), rtol=0, atol=16 * ULP64)
    assert actual.min() < 0


def test_the_operations_come_in_the_given_order():
    image = images_of(1, 12, 12)[0]
    factors = {"brightness": 1.5, "contrast": 0.625, "saturation": 1.75, "hue": 0.125}
    single = [{name: value} for name, value in factors.items()]
    views = {}
    for order in PERMUTATIONS:
        x = image / 255
        for operation in order:
            x = one_view(x, 12, **single[operation])
        views[tuple(order)] = one_view(image, 12, order=order, **factors)
        np.testing.assert_allclose(views[tuple(order)], x, rtol=0, atol=100 * ULP64)
    for one, other in itertools.combinations(views, 2):
        # Exchanging two successive operations changes nothing only if they are saturation and hue.
        same = "".join(map(str, one)).replace("32", "23") == "".join(map(str, other)).replace("32", "23")
        assert (np.max(np.abs(views[one] - views[other])) < 1e-12) == same


# The blur, compared with SciPy and tensorflow-addons


@pytest.mark.parametrize(("size", "taps"), [(8, 1), (19, 1), (20, 3), (32, 3), (39, 3), (96, 9), (100, 11), (224, 23)])
def test_the_kernel_is_a_tenth_of_the_view_made_odd(size, taps):
    assert count_blur_taps(size) == taps


@pytest.mark.parametrize("size", [20, 32, 57, 96])
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_the_blur_is_that_of_scipy(size, sigma):
    image = images_of(1, size, size)[0]
    sigma, radius = float(np.float32(sigma)), count_blur_taps(size) // 2
    expected = scipy.ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0))
    np.testing.assert_allclose(one_view(image, size, blur_sigma=sigma), expected, rtol=0, atol=32 * ULP64)


def test_the_blur_is_that_of_tensorflow_addons():
    addons = pytest.importorskip("tensorflow_addons", reason="tensorflow-addons ends with TensorFlow 2.15")
    image = images_of(1, 50, 50)[0]
    for sigma in (0.3, 1.1, 2.0):
        x = np.float32(image / 255)
        expected = addons.image.gaussian_filter2d(
            x, (count_blur_taps(50), count_blur_taps(50)), sigma, padding="REFLECT"
        )
        # tensorflow-addons multiplies the two one-dimensional kernels first, and then sums 25 products in float32.
        np.testing.assert_allclose(blur_by_gaussian(image / 255, sigma), expected, rtol=0, atol=16 * ULP)


def test_blurring_is_left_out_on_demand():
    image = images_of(1, 32, 32)[0]
    params = params_of(2, box=[0, 0, 32, 32], blur_sigma=1.5)
    sharp = params_of(2, box=[0, 0, 32, 32])
    for views in (make_views, stock_views):
        unblurred = np.asarray(views(image[None], sharp, 32))
        np.testing.assert_array_equal(views(image[None], params, 32, blur=False), unblurred)
        assert np.max(np.abs(np.asarray(views(image[None], params, 32)) - unblurred)) > 0.1


# Properties of views


@pytest.mark.parametrize("clip", [True, False])
def test_neutral_parameters_are_the_identity(clip):
    images = images_of(2, 20, 20)
    views = make_views(images, params_of(4, box=whole(images), clip=clip), 20)
    # The contrast subtracts the mean and adds it again. The subtraction and the addition may both round.
    np.testing.assert_allclose(views, np.concatenate([images, images]) / 255, rtol=0, atol=2 * ULP64)


def test_rows_are_all_first_views_and_then_all_second_ones():
    images = images_of(3, 8, 8)
    brightness = np.linspace(0.1, 0.6, 6)
    views = make_views(images, params_of(6, box=whole(images), brightness=brightness), 8)
    for row in range(6):
        expected = images[row % 3] / 255 * np.float32(brightness[row])
        np.testing.assert_allclose(views[row], expected, rtol=0, atol=4 * ULP64)


@CASES
@given(cropped())
def test_flipping_mirrors_the_view_and_twice_is_the_identity(case):
    image, box, size = case
    view, flipped = one_view(image, size, box=box), one_view(image, size, box=box, flip=True)
    # The mean of a mirrored channel may have another rounding error, because NumPy adds its pixels in another order.
    np.testing.assert_allclose(flipped, view[:, ::-1], rtol=0, atol=4 * ULP64)
    np.testing.assert_allclose(one_view(flipped, size, flip=True), view, rtol=0, atol=8 * ULP64)


@CASES
@given(cropped(), st.integers(0, 255))
def test_a_constant_image_stays_constant(case, level):
    image, box, size = case
    view = one_view(np.full_like(image, level), size, box=box, contrast=1.7, saturation=1.7, hue=0.2, blur_sigma=1.3)
    np.testing.assert_allclose(view, level / 255, rtol=0, atol=32 * ULP64)


@CASES
@given(
    seed=st.integers(0, 999),
    order=st.permutations(range(4)),
    factors=st.tuples(*[st.floats(0, 5, width=32)] * 3),
    hue=st.floats(-0.5, 0.5, width=32),
    shift=st.floats(-1, 1, width=32),
)
def test_views_that_clip_stay_within_0_and_1(seed, order, factors, hue, shift):
    brightness, contrast, saturation = factors
    given_factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    image = images_of(1, 21, 23, seed=seed)[0]
    view = one_view(image, 20, order=order, brightness_shift=shift, blur_sigma=1, **given_factors)
    assert -1e-15 <= view.min() <= view.max() <= 1 + 1e-15


def test_pixels_outside_the_box_do_not_count():
    image = images_of(1, 12, 12)[0]
    other = images_of(1, 12, 12, seed=1)[0]
    other[3:8, 2:11] = image[3:8, 2:11]
    assert np.any(image != other)
    np.testing.assert_array_equal(
        crop_and_resize(image / 255, (3, 2, 5, 9), 16), crop_and_resize(other / 255, (3, 2, 5, 9), 16)
    )


def test_mean_and_std_come_last():
    images = images_of(1, 9, 9)
    params = params_of(2, box=whole(images), brightness=0.5)
    plain = make_views(images, params, 9)
    mean, std = np.array([0.5, 0.25, 0.125]), np.array([0.5, 0.25, 2.0])
    np.testing.assert_allclose(make_views(images, params, 9, mean=mean, std=std), (plain - mean) / std, atol=1e-15)
    np.testing.assert_allclose(make_views(images, params, 9, mean=0.5, std=0.5), 2 * plain - 1, rtol=0, atol=1e-15)


def test_whole_views_are_those_of_pillow_colorsys_and_scipy():
    images = images_of(12, 40, 36)
    recipe = ViewRecipe(blur_probability=0.5, jitter_probability=0.9)
    params = draw_view_params(3, 1, np.arange(12), recipe, 40, 36)
    views = make_views(images, params, 24)
    for row in range(24):
        own = ViewParams(*(field[row] for field in params))
        expected = view_by_other_libraries(images[row % 12], own, 24)
        # Pillow rounds twice to float32. The colour operations of the view amplify these two errors.
        allowed = 2 * ULP * amplification(params)[row]
        np.testing.assert_allclose(views[row], expected, rtol=0, atol=allowed)


def view_by_other_libraries(image: np.ndarray, params: ViewParams, size: int) -> np.ndarray:
    channels = [pillow(image[..., c].astype(np.float32), tuple(params.box), size) / 255 for c in range(3)]
    x = np.stack(channels, axis=-1)
    if params.flip:
        x = np.fliplr(x)
    for operation in params.order:
        if operation == 0:
            x = x * float(params.brightness)
        elif operation == 1:
            gray_level = x.reshape(-1, 3).mean(axis=0)
            x = gray_level + float(params.contrast) * (x - gray_level)
        elif operation == 2:
            x = by_colorsys(x, float(params.saturation), 0)
        else:
            x = by_colorsys(x, 1, float(params.hue))
        x = np.minimum(np.maximum(x, 0), 1)
    if params.grey:
        x = np.dstack([x @ [0.2989, 0.5870, 0.1140]] * 3)
    if params.blur_sigma > 0:
        sigma = (float(params.blur_sigma), float(params.blur_sigma), 0)
        x = scipy.ndimage.gaussian_filter(x, sigma, mode="mirror", radius=(1, 1, 0))
    return x
