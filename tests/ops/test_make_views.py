"""The pixels of the views: the reference against independent code, its properties, and stock against the reference.

Independent code is Pillow and tf.image for the crop, colorsys and tf.image for the colours, SciPy, and on TensorFlow
2.15 tensorflow-addons, for the blur.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams
from lowlevel_simclr.reference.draw_view_params import draw_view_params
from lowlevel_simclr.reference.make_views import blur_taps, crop_and_resize, gaussian_blur, make_views, resize_weights
from lowlevel_simclr.stock.draw_view_params import draw_view_params as stock_draw
from lowlevel_simclr.stock.make_views import make_views as stock_views

ULP = 2.0**-23  # of a float32 in [1, 2)
ULP64 = 2.0**-52
CASES = settings(max_examples=40, deadline=None, derandomize=True, database=None)

NEUTRAL = {
    "flip": False,
    "brightness": np.float32(1),
    "contrast": np.float32(1),
    "saturation": np.float32(1),
    "hue": np.float32(0),
    "brightness_shift": np.float32(0),
    "order": np.int32([0, 1, 2, 3]),
    "clip": True,
    "grey": False,
    "blur_sigma": np.float32(0),
}


def params_of(rows: int, **given: Any) -> ViewParams:
    """`rows` views, neutral but for what is given: one value, or one a row. `box` must be given."""
    fields = {}
    for name in ViewParams._fields:
        neutral = NEUTRAL.get(name, np.zeros(4, np.int32))
        values = np.asarray(given.get(name, neutral), np.asarray(neutral).dtype)
        fields[name] = np.array(np.broadcast_to(values, (rows, *np.shape(neutral))))
    return ViewParams(**fields)


def images_of(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise with flat parts, grey pixels, blacks, whites and pure colours: every case of HSV."""
    random = np.random.default_rng([seed, height, width])
    images = random.integers(0, 256, (count, height, width, channels))
    kind = random.integers(0, 6, (count, height, width, 1))
    images = np.where(kind == 0, images[..., :1], images)  # grey
    images = np.where(kind == 1, np.where(images < 128, 0, 255), images)  # the corners of the cube
    images = np.where(kind == 2, np.minimum(images, 3), images)  # nearly black
    return images.astype(np.uint8)


def whole(images: np.ndarray) -> list[int]:
    return [0, 0, *images.shape[1:3]]


def one_view(image: np.ndarray, size: int, **given: Any) -> np.ndarray:
    """The reference's view of one image (H, W, C)."""
    given.setdefault("box", [0, 0, *image.shape[:2]])
    return make_views(image[None], params_of(2, **given), size)[0]


def boxes_in(random: np.random.Generator, rows: int, height: int, width: int) -> np.ndarray:
    """Boxes of every size and place: (rows, 4)."""
    h, w = random.integers(1, height + 1, rows), random.integers(1, width + 1, rows)
    return np.stack([random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w], axis=1)


@st.composite
def cropped(draw: Any) -> tuple[np.ndarray, tuple[int, ...], int]:
    """An image, a box inside it, and a size."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    box = (draw(st.integers(0, height - h)), draw(st.integers(0, width - w)), h, w)
    return images_of(1, height, width, seed=draw(st.integers(0, 99)))[0], box, draw(st.integers(1, 40))


# The reference's crop, against Pillow and tf.image


def pillow(channel: np.ndarray, box: tuple[int, ...], size: int) -> np.ndarray:
    """Pillow's crop and bilinear resize of one channel; crop first, since resize(box=...) looks outside the box."""
    y, x, h, w = box
    resized = Image.fromarray(channel).crop((x, y, x + w, y + h)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


@CASES
@given(cropped())
def test_crops_are_those_of_pillow(case):
    image, box, size = case
    expected = np.stack([pillow(image[..., c].astype(np.float32), box, size) for c in range(3)], axis=-1) / 255
    # Pillow stores a float32 after each of its two passes: half an ulp each of a number below 256.
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
    # Its sampling positions are float32: below 40, half an ulp there is 16 ulps of 1, in each of the two directions.
    np.testing.assert_allclose(one_view(image, size, box=(y, x, h, w)), expected, rtol=0, atol=40 * ULP)


@pytest.mark.parametrize(("length", "size"), [(1, 5), (5, 1), (7, 7), (3, 11), (11, 3), (500, 32)])
def test_resizing_weights_are_a_partition(length, size):
    weights = resize_weights(length, size)
    assert weights.shape == (size, length)
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=4 * ULP64)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=0, atol=64 * ULP64)
    if length == size:
        np.testing.assert_array_equal(weights, np.eye(size))


# The reference's colours, against colorsys and tf.image


def by_colorsys(image: np.ndarray, factor: float, turn: float) -> np.ndarray:
    """Saturation and hue, pixel by pixel."""
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
    # A dozen roundings of numbers up to 6 sixths of a turn.
    np.testing.assert_allclose(actual, by_colorsys(image / 255, factor, turn), rtol=0, atol=100 * ULP64)


TF_IMAGE = {
    "contrast": (tf.image.adjust_contrast, (0.0, 0.3, 1.0, 1.9)),
    "saturation": (tf.image.adjust_saturation, (0.0, 0.3, 1.0, 1.9)),
    "hue": (tf.image.adjust_hue, (-0.5, -0.2, 0.0, 0.1, 0.33)),
    "brightness_shift": (tf.image.adjust_brightness, (-0.4, 0.0, 0.3)),  # additive, as this one is
}


@pytest.mark.parametrize("name", TF_IMAGE)
def test_colour_operations_are_those_of_tensorflow(name):
    adjust, values = TF_IMAGE[name]
    for seed, value in enumerate(values):
        image = images_of(1, 9, 7, seed=seed)[0]
        crop = np.float32(one_view(image, 9))  # square
        # None of them clips the pixels, but S <= 1 holds in tf.image's HSV, as it does where a view clips.
        actual = one_view(image, 9, **{name: value}, clip=name == "saturation")
        # tf.image's HSV: a dozen float32 roundings, six times as far into the circle's sixths.
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
        # Saturation and hue commute as neighbours, and nothing else does.
        same = "".join(map(str, one)).replace("32", "23") == "".join(map(str, other)).replace("32", "23")
        assert (np.max(np.abs(views[one] - views[other])) < 1e-12) == same


# The reference's blur, against SciPy and tensorflow-addons


@pytest.mark.parametrize(("size", "taps"), [(8, 1), (19, 1), (20, 3), (32, 3), (39, 3), (96, 9), (100, 11), (224, 23)])
def test_the_kernel_is_a_tenth_of_the_view_made_odd(size, taps):
    assert blur_taps(size) == taps


@pytest.mark.parametrize("size", [20, 32, 57, 96])
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_the_blur_is_that_of_scipy(size, sigma):
    image = images_of(1, size, size)[0]
    sigma, radius = float(np.float32(sigma)), blur_taps(size) // 2
    expected = scipy.ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0))
    np.testing.assert_allclose(one_view(image, size, blur_sigma=sigma), expected, rtol=0, atol=32 * ULP64)


def test_the_blur_is_that_of_tensorflow_addons():
    addons = pytest.importorskip("tensorflow_addons", reason="tensorflow-addons ends with TensorFlow 2.15")
    image = images_of(1, 50, 50)[0]
    for sigma in (0.3, 1.1, 2.0):
        x = np.float32(image / 255)
        expected = addons.image.gaussian_filter2d(x, (blur_taps(50), blur_taps(50)), sigma, padding="REFLECT")
        # It multiplies the two kernels first and sums 25 products in float32.
        np.testing.assert_allclose(gaussian_blur(image / 255, sigma), expected, rtol=0, atol=16 * ULP)


def test_blurring_is_left_out_on_demand():
    image = images_of(1, 32, 32)[0]
    params = params_of(2, box=[0, 0, 32, 32], blur_sigma=1.5)
    sharp = params_of(2, box=[0, 0, 32, 32])
    for views in (make_views, stock_views):
        unblurred = np.asarray(views(image[None], sharp, 32))
        np.testing.assert_array_equal(views(image[None], params, 32, blur=False), unblurred)
        assert np.max(np.abs(np.asarray(views(image[None], params, 32)) - unblurred)) > 0.1


# Properties of the reference


@pytest.mark.parametrize("clip", [True, False])
def test_neutral_parameters_are_the_identity(clip):
    images = images_of(2, 20, 20)
    views = make_views(images, params_of(4, box=whole(images), clip=clip), 20)
    # The contrast takes a mean away and adds it again.
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
    # The mean of a mirrored channel may round differently.
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
        # Pillow's two float32 roundings, amplified by what the row's factors multiply differences with.
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


# What is refused


@pytest.mark.parametrize("views", [make_views, stock_views], ids=["reference", "stock"])
@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 4), (0, 0, 4, 0), (-1, 0, 4, 4), (0, -1, 4, 4), (3, 0, 6, 4), (0, 7, 4, 4), (0, 0, 4, -2)],
    ids=str,
)
def test_a_box_that_is_empty_or_outside_is_refused_by_row(views, box):
    params = params_of(4, box=[[0, 0, 8, 10], [0, 0, 8, 10], box, [0, 0, 1, 1]])
    text = r"Row 2 has the box \(y, x, height, width\) = " + str(box).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=text):
        views(images_of(2, 8, 10), params, 8)


@pytest.mark.parametrize("views", [make_views, stock_views], ids=["reference", "stock"])
@pytest.mark.parametrize("colour", [{"saturation": 0.5}, {"hue": 0.1}, {"grey": True}], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_colours_of_other_than_three_channels_are_refused(views, colour, channels):
    with pytest.raises(ValueError, match=f"{channels} channels, not 3"):
        views(images_of(1, 8, 8, channels), params_of(2, box=[0, 0, 8, 8], **colour), 8)


@pytest.mark.parametrize("views", [make_views, stock_views], ids=["reference", "stock"])
def test_other_mistakes_are_refused(views):
    images, params = images_of(1, 8, 8), params_of(2, box=[0, 0, 8, 8])
    with pytest.raises(ValueError, match="must be .N, H, W, C."):
        views(images[0], params, 8)
    with pytest.raises(ValueError, match="images are int32"):
        views(images.astype(np.int32), params, 8)
    with pytest.raises(ValueError, match="size is 0"):
        views(images, params, 0)
    with pytest.raises(ValueError, match="2 rows for 2 images"):
        views(images_of(2, 8, 8), params, 8)
    with pytest.raises(ValueError, match="give both or neither"):
        views(images, params, 8, mean=0.5)
    for mean, std in ((0.5, 0.0), ((0.5, 0.5), (0.5, 0.5))):
        with pytest.raises(ValueError, match="one for each of the 3 channels"):
            views(images, params, 8, mean=mean, std=std)


# Stock against the reference
#
# A float32 view is made in ten stages: two products of the crop, four colour operations, grey, two products of the
# blur, scaling. Each makes some six roundings of at most half an ulp of numbers of size 1; not all being alike, two
# ulps a stage. What a stage is given it multiplies by at most its amplification: brightness by f; contrast moves a
# pixel by f and its mean by |1 - f|; saturation the pixel by f and V by |1 - f|; a turn moves the middle channel by up
# to twice what V and m move. Pixels that are not clipped grow, and their ulps with them, by the same factors.
STAGES = 10


def amplification(params: ViewParams) -> np.ndarray:
    """By how much the colour operations multiply small differences at most: (2N,)."""
    factors = [np.maximum(1, params.brightness)]
    factors += [np.maximum(1, factor + np.abs(1 - factor)) for factor in (params.contrast, params.saturation)]
    return np.prod(factors, axis=0) * np.where(params.hue != 0, 2, 1)


def assert_stock_is_close(actual: Any, expected: np.ndarray, params: ViewParams, std: float = 1.0) -> None:
    assert actual.dtype == tf.float32
    assert actual.shape == expected.shape
    allowed = 2 * STAGES * ULP * amplification(params)[:, None, None, None] / std
    error = np.abs(np.asarray(actual, np.float64) - expected)
    assert np.all(error <= allowed), f"{np.max(error / allowed):.3g} times what is allowed"


def all_orders(height: int, width: int, seed: int = 0) -> ViewParams:
    """48 rows: every order twice, boxes of every kind, every switch; clip in most rows."""
    random = np.random.default_rng(seed)
    rows = 48
    boxes = boxes_in(random, rows, height, width)
    boxes[:3] = [[0, 0, height, width], [height - 1, width - 1, 1, 1], [0, 0, 1, width]]
    return params_of(
        rows,
        box=boxes,
        order=np.tile(PERMUTATIONS, (2, 1)),
        flip=random.random(rows) < 0.5,
        hue=random.uniform(-0.5, 0.5, rows),
        brightness_shift=random.uniform(-0.3, 0.3, rows),
        clip=random.random(rows) < 0.8,
        grey=random.random(rows) < 0.2,
        blur_sigma=np.where(random.random(rows) < 0.5, random.uniform(0.1, 2, rows), 0),
        **{name: random.uniform(0, 2, rows) for name in ("brightness", "contrast", "saturation")},
    )


MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)


def scaled_views(images: tf.Tensor, params: ViewParams) -> tf.Tensor:
    return stock_views(images, params, 30, mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def in_mode() -> Callable[[str], Callable[..., tf.Tensor]]:
    """`scaled_views` of (N, 41, 36, 3) images: eagerly, in a graph that does not know N, or under XLA, which does."""

    def traced(images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        views = scaled_views(images, params)
        assert views.shape == (None if images.shape[0] is None else 2 * images.shape[0], 30, 30, 3)
        return views

    unknown = ViewParams(*(tf.TensorSpec([None, *field.shape[1:]], field.dtype) for field in all_orders(9, 9)))
    signature = [tf.TensorSpec([None, 41, 36, 3], tf.uint8), unknown]
    modes = {
        "eager": scaled_views,
        "graph": tf.function(traced, input_signature=signature),
        "xla": tf.function(traced, jit_compile=True),
    }
    return modes.__getitem__


def tensors(params: ViewParams) -> ViewParams:
    return ViewParams(*map(tf.constant, params))


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
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 40),
    seed=st.integers(0, 999),
    clip=st.booleans(),
    factors=st.tuples(*[st.floats(0, 2, width=32)] * 3),
    hue=st.floats(-1, 1, width=32),
    order=st.permutations(range(4)),
)
def test_stock_makes_the_same_views_of_anything(height, width, size, seed, clip, factors, hue, order):
    params = params_of(
        4,
        box=boxes_in(np.random.default_rng(seed), 4, height, width),
        flip=[False, True, False, True],
        order=order,
        clip=clip,
        hue=hue,
        blur_sigma=[0, 0.5, 1, 2],
        **dict(zip(("brightness", "contrast", "saturation"), factors, strict=True)),
    )
    images = images_of(2, height, width, seed=seed)
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
    allowed = 2.0**-10 if dtype == "float16" else 1e-6  # half a float16's spacing below 1, twice
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
