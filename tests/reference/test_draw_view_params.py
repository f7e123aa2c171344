"""Tests the random parameters of image augmentation (crop, flip, colours, blur), as the NumPy reference draws them.

An augmented image is called a view. Every statistical test has a fixed seed, so its result never changes. If the code
is correct, a tested value exceeds its bound with a probability below 1e-6. The bound is 5 standard deviations for a
count or a correlation, and a number from a table for the other statistics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.philox import draw_words
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams
from lowlevel_simclr.reference.draw_view_params import draw_view_params as draw
from lowlevel_simclr.reference.draw_view_params import find_central_crop
from lowlevel_simclr.stock.draw_view_params import draw_view_params as stock_draw
from tests.support.view_recipes import ALWAYS, FACTORS, NEVER, RECIPE, of_rows

NEUTRAL = dict(zip(FACTORS, (1, 1, 1, 0, 0), strict=True))
IMAGES = np.arange(20_000)
FIVE_SIGMA = 5.0  # a normal number is more than 5 standard deviations from its mean with probability 6e-7
KS = 2.694  # Kolmogorov's statistic times sqrt(n m / (n + m)) exceeds this with probability 1e-6


@pytest.fixture(scope="module")
def drawn() -> ViewParams:
    """Draw the parameters of both views of 20,000 images of 32x32 pixels, in one epoch."""
    return draw(0, 0, IMAGES, RECIPE, 32, 32)


# Shapes, types and ranges of the parameters


def test_every_field_has_its_type_and_shape():
    params = draw(0, 0, np.arange(5), RECIPE, 32, 48)
    types = ViewParams("int32", "bool", *["float32"] * 5, "int32", "bool", "bool", "float32")
    for name, field, dtype in zip(ViewParams._fields, params, types, strict=True):
        assert field.dtype.name == dtype, name
        assert field.shape == ((10, 4) if name in ("box", "order") else (10,)), name


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 300), (300, 20), (1, 1), (2, 3)])
def test_boxes_lie_inside_the_image(height, width):
    y, x, h, w = draw(1, 2, np.arange(3000), RECIPE, height, width).box.T
    assert np.all((y >= 0) & (x >= 0) & (h >= 1) & (w >= 1) & (y + h <= height) & (x + w <= width))


def test_boxes_reach_every_border(drawn):
    y, x, h, w = drawn.box.T
    assert y.min() == x.min() == 0
    assert (y + h).max() == (x + w).max() == 32


def test_numbers_lie_in_their_ranges_and_fill_them(drawn):
    jittered = drawn.brightness != 1
    for name in FACTORS:
        low, high = getattr(RECIPE, name)
        numbers = getattr(drawn, name)[jittered]
        assert low - 1e-6 <= numbers.min() < low + 0.01 * (high - low), name
        assert high - 0.01 * (high - low) < numbers.max() <= high + 1e-6, name
    sigma = drawn.blur_sigma[drawn.blur_sigma > 0]
    assert 0.1 <= sigma.min() < 0.11
    assert 1.99 < sigma.max() <= 2.0


def test_every_order_is_a_permutation(drawn):
    np.testing.assert_array_equal(np.sort(drawn.order, axis=1), np.tile(np.arange(4), (len(drawn.order), 1)))
    np.testing.assert_array_equal(PERMUTATIONS, sorted(itertools.permutations(range(4))))


# Probabilities and distributions


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("probability", [0.05, 0.2, 0.5, 0.8])
def test_switches_have_their_probability(probability, view):
    given_probability = dict.fromkeys(("flip", "jitter", "grey", "blur"), probability)
    recipe = replace(RECIPE, **{f"{name}_probability": p for name, p in given_probability.items()})
    own = slice(view * len(IMAGES), (view + 1) * len(IMAGES))
    params = of_rows(draw(0, 0, IMAGES, recipe, 32, 32), own)
    sigma = math.sqrt(len(IMAGES) * probability * (1 - probability))
    for on in (params.flip, params.brightness != 1, params.grey, params.blur_sigma > 0):
        assert abs(np.sum(on) - len(IMAGES) * probability) < FIVE_SIGMA * sigma


def test_probabilities_zero_and_one_are_never_and_always():
    never, always = (draw(0, 0, IMAGES, recipe, 32, 32) for recipe in (NEVER, ALWAYS))
    assert not np.any(never.flip | never.grey | (never.blur_sigma > 0))
    assert np.all(always.flip & always.grey & (always.blur_sigma > 0))
    for name, neutral in NEUTRAL.items():
        assert np.all(getattr(never, name) == neutral)
        assert np.mean(getattr(always, name) == neutral) < 1e-3


def test_all_orders_are_equally_likely(drawn):
    for rows in np.split(drawn.order, 2):
        _, seen = np.unique(rows, axis=0, return_counts=True)
        expected = len(rows) / 24
        assert len(seen) == 24
        assert np.sum((seen - expected) ** 2 / expected) < 70.5  # chi-square, 23 degrees: P(above) = 1e-6


def kolmogorov(sample: np.ndarray, other: np.ndarray) -> float:
    """Return Kolmogorov's statistic of two samples with n and m numbers, times sqrt(n m / (n + m)).

    If both samples have the same distribution, the result exceeds KS with probability 1e-6. For a discrete distribution
    the probability is smaller.
    """
    points = np.union1d(sample, other)
    shares = [np.searchsorted(np.sort(numbers), points, "right") / len(numbers) for numbers in (sample, other)]
    return np.max(np.abs(shares[0] - shares[1])) * math.sqrt(len(sample) * len(other) / (len(sample) + len(other)))


def crop_by_definition(random: np.random.Generator, recipe: ViewRecipe, height: int, width: int) -> tuple[int, ...]:
    """Draw a crop as SimCLR's RandomResizedCrop does, with NumPy's random numbers. Return y, x, height and width."""
    for _attempt in range(10):
        area = random.uniform(*recipe.crop_area) * height * width
        aspect = math.exp(random.uniform(*map(math.log, recipe.crop_aspect)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            return int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1)), h, w
    return find_central_crop(recipe.crop_aspect, height, width)


@pytest.mark.parametrize(
    ("area", "aspect", "height", "width"),
    [((0.08, 1), (3 / 4, 4 / 3), 32, 32), ((0.5, 1), (1 / 3, 3), 40, 60)],
    ids=["paper", "often rejected"],
)
def test_boxes_are_distributed_as_ten_draws_are(area, aspect, height, width):
    recipe = replace(RECIPE, crop_area=area, crop_aspect=aspect)
    random = np.random.default_rng(1)
    expected = np.array([crop_by_definition(random, recipe, height, width) for _row in range(20_000)])
    boxes = draw(0, 0, IMAGES[:10_000], recipe, height, width).box
    quantities = {
        "area": lambda y, x, h, w: h * w,
        "aspect": lambda y, x, h, w: w / h,
        "y": lambda y, x, h, w: y,
        "x": lambda y, x, h, w: x,
        "place": lambda y, x, h, w: y / (height - h + 1) + x / (width - w + 1),
    }
    for name, quantity in quantities.items():
        assert kolmogorov(quantity(*boxes.T), quantity(*expected.T)) < KS, name


def test_area_is_uniform_and_aspect_log_uniform():
    # Boxes of at most 30 % of the area always fit into the image, so none is rejected. In an image of 1000x1000 pixels,
    # rounding to whole pixels changes the result for less than 0.1 % of the boxes.
    recipe = replace(RECIPE, crop_area=(0.1, 0.3))
    y, x, h, w = draw(0, 0, IMAGES, recipe, 1000, 1000).box.T
    uniform = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert kolmogorov(h * w / 1e6, 0.1 + 0.2 * uniform) < KS
    assert kolmogorov(np.log(w / h), math.log(3 / 4) + math.log(16 / 9) * uniform) < KS
    assert kolmogorov(y / (1001 - h), uniform) < KS
    assert kolmogorov(x / (1001 - w), uniform) < KS


# The crop, compared with its definition, which is computed for one view at a time


def box_by_definition(index: int, view: int, recipe: Any, height: int, width: int) -> tuple[int, tuple[int, ...]]:
    """Compute a crop in plain Python numbers. Ten boxes are tried, and the first one that fits into the image is used.

    Returns:
        The number of the box that fits (from 0; 10 if none fits), and the crop (y, x, height, width).
    """
    for attempt in range(10):
        u = [int(word >> 8) / 2**24 for word in draw_words(5, 3, [index], view, attempt)[0]]
        area = height * width * (recipe.crop_area[0] + (recipe.crop_area[1] - recipe.crop_area[0]) * u[0])
        low, high = map(math.log, recipe.crop_aspect)
        aspect = math.exp(low + (high - low) * u[1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            return attempt, (math.floor(u[2] * (height - h + 1)), math.floor(u[3] * (width - w + 1)), h, w)
    return 10, find_central_crop(recipe.crop_aspect, height, width)


def test_the_first_attempt_that_fits_is_used_and_the_central_crop_if_none_does():
    recipe = replace(RECIPE, crop_area=(0.6, 1.0), crop_aspect=(0.2, 5.0))
    boxes = draw(5, 3, np.arange(150), recipe, 30, 40).box
    attempts = set()
    for row, box in enumerate(boxes):
        attempt, expected = box_by_definition(row % 150, row // 150, recipe, 30, 40)
        assert tuple(box) == expected
        attempts.add(attempt)
    assert {0, 1, 2, 3, 10} <= attempts


@pytest.mark.parametrize(
    ("aspect", "height", "width", "expected"),
    [
        ((0.5, 2.0), 32, 32, (0, 0, 32, 32)),  # the whole image
        ((3.0, 4.0), 32, 32, (10, 0, 11, 32)),  # width is 3 or 4 times height: 32 columns, 32 / 3 = 10.67 rows
        ((0.25, 0.4), 32, 32, (0, 9, 32, 13)),  # width is at most 0.4 times height: 32 rows, 12.8 columns
        ((3 / 4, 4 / 3), 10, 40, (0, 13, 10, 13)),
        ((3 / 4, 4 / 3), 40, 10, (13, 0, 13, 10)),
        ((8.0, 9.0), 5, 2, (2, 0, 1, 2)),  # 0.25 rows, but a box has at least one pixel
        ((0.1, 0.2), 2, 5, (0, 2, 2, 1)),
    ],
)
def test_the_central_crop_is_the_largest_of_an_allowed_aspect(aspect, height, width, expected):
    # The drawn area is always larger than the image, so no attempt fits.
    recipe = SimpleNamespace(**{field.name: getattr(RECIPE, field.name) for field in fields(RECIPE)})
    recipe.crop_area, recipe.crop_aspect = (30.0, 40.0), aspect
    boxes = draw(0, 0, np.arange(50), recipe, height, width).box
    np.testing.assert_array_equal(boxes, np.tile(expected, (100, 1)))
    np.testing.assert_array_equal(stock_draw(0, 0, tf.range(50), recipe, height, width).box, boxes)


def test_a_fixed_box_is_always_drawn():
    recipe = replace(RECIPE, crop_area=(784 / 1024, 784 / 1024), crop_aspect=(1.0, 1.0))
    boxes = draw(0, 0, np.arange(500), recipe, 32, 32).box
    assert np.all(boxes[:, 2:] == 28)
    assert set(boxes[:, 0]) == set(boxes[:, 1]) == set(range(5))


# Independence of the parameters


def numbers(params: ViewParams) -> dict[str, np.ndarray]:
    """Return every drawn quantity as a column. The columns must be independent of each other.

    Only the last three are not: they are the places of three operations in one order.
    """
    y, x, h, w = params.box.T
    columns = {name: getattr(params, name) for name in (*FACTORS, "flip", "grey", "blur_sigma")}
    columns |= {"area": h * w, "aspect": np.log(w / h), "y": y / (1001 - h), "x": x / (1001 - w)}
    for operation in range(3):
        columns[f"slot of {operation}"] = np.argmax(params.order == operation, axis=1)
    return {name: np.asarray(column, np.float64) for name, column in columns.items()}


@pytest.fixture(scope="module")
def wide() -> Callable[[int, int], ViewParams]:
    """Return a function that draws the parameters of both views of 20,000 images of 1000x1000 pixels.

    In such images, every drawn crop box fits. The colours of every view are changed.
    """
    recipe = replace(RECIPE, crop_area=(0.1, 0.3), jitter_probability=1)
    return lambda seed, epoch: draw(seed, epoch, IMAGES, recipe, 1000, 1000)


def correlations(first: ViewParams, second: ViewParams) -> np.ndarray:
    """Return the correlation of each column of `first` with each column of `second`, in standard deviations."""
    one, other = (np.stack(list(numbers(params).values())) for params in (first, second))
    count = len(one)
    return np.corrcoef(one, other)[:count, count:] * math.sqrt(one.shape[1])


def test_views_images_epochs_and_seeds_are_independent(wide):
    base = wide(0, 0)
    first, second = np.split(np.arange(2 * len(IMAGES)), 2)
    pairs = {
        "views": (of_rows(base, first), of_rows(base, second)),
        "neighbouring images": (of_rows(base, first[:-1]), of_rows(base, first[1:])),
        "a view and the next image's other": (of_rows(base, first[1:]), of_rows(base, second[:-1])),
        "epochs": (base, wide(0, 1)),
        "seeds": (base, wide(1, 0)),
        "seeds that differ in the high word": (base, wide(2**32, 0)),
    }
    for name, (one, other) in pairs.items():
        # Each of the 15 x 15 correlations exceeds the bound with probability 6e-7, so at least one of them does with
        # probability 1e-4. If two columns used the same random bits, their correlation would be 100 or more.
        assert np.max(np.abs(correlations(one, other))) < FIVE_SIGMA, name


def test_the_quantities_of_a_view_are_independent_of_each_other(wide):
    params = wide(0, 0)
    among = correlations(params, params)
    slots = slice(len(among) - 3, len(among))  # the three places in one order depend on each other
    among[slots, slots] = 0
    assert np.max(np.abs(among - np.diag(np.diag(among)))) < FIVE_SIGMA


# What the parameters of a view depend on


@pytest.mark.parametrize("function", [draw, stock_draw], ids=["reference", "stock"])
def test_rows_are_the_same_in_any_batch_and_any_order(function):
    whole = function(9, 4, np.arange(100), RECIPE, 32, 40)
    chosen = np.array([17, 3, 99, 3, 0, 64])
    part = function(9, 4, chosen, RECIPE, 32, 40)
    expected = of_rows(whole, np.concatenate([chosen, 100 + chosen]))
    for name, own, other in zip(ViewParams._fields, part, expected, strict=True):
        np.testing.assert_array_equal(own, other, err_msg=name)


def test_each_of_seed_epoch_index_and_view_decides():
    base = draw(0, 0, np.arange(50), ALWAYS, 32, 32)
    others = (
        draw(1, 0, np.arange(50), ALWAYS, 32, 32),
        draw(2**63, 0, np.arange(50), ALWAYS, 32, 32),
        draw(0, 1, np.arange(50), ALWAYS, 32, 32),
        draw(0, 0, np.arange(50, 100), ALWAYS, 32, 32),
        of_rows(base, np.roll(np.arange(100), 50)),
    )
    for other in others:
        for name in ("box", *FACTORS, "order", "blur_sigma"):
            changed = getattr(base, name) != getattr(other, name)
            assert np.mean(changed) > 0.5, name


def test_one_switch_changes_nothing_else():
    base = draw(0, 0, np.arange(300), NEVER, 32, 32)
    for switch, own in {"flip": {"flip"}, "jitter": set(FACTORS), "grey": {"grey"}, "blur": {"blur_sigma"}}.items():
        on = draw(0, 0, np.arange(300), replace(NEVER, **{f"{switch}_probability": 1.0}), 32, 32)
        different = {name for name in ViewParams._fields if np.any(getattr(on, name) != getattr(base, name))}
        assert different == own


@pytest.mark.parametrize("clip", [False, True])
def test_every_view_clips_or_none(clip):
    recipe = replace(RECIPE, clip=clip)
    assert np.all(draw(0, 0, np.arange(9), recipe, 32, 32).clip == clip)
    assert np.all(stock_draw(0, 0, tf.range(9), recipe, 32, 32).clip.numpy() == clip)
