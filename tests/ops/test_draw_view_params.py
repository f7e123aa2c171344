"""Tests the C++ op that draws random parameters of image augmentation: crop box, flip, colour changes and blur.

The op must draw the same numbers as the NumPy reference: eagerly, in a graph, and through XLA. An augmented image is
called a view.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr import ops, reference, stock
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.verification.mode import build_for_mode
from tests.support.host import on_the_host
from tests.support.op_modes import list_modes
from tests.support.view_recipes import ALWAYS, NEVER, RECIPE, assert_same

HEIGHT, WIDTH, SIZE = 41, 36, 30


@pytest.mark.parametrize("mode", list_modes())
@pytest.mark.parametrize("recipe", [RECIPE, ALWAYS, NEVER, replace(RECIPE, crop_aspect=(0.05, 0.1), clip=False)])
def test_parameters_are_those_of_the_reference(mode, recipe):
    index = np.arange(2500) * 1_700_000 + 3  # the largest is nearly 2^32
    for seed, epoch, height, width in ((0, 0, 32, 32), (2**64 - 1, 2**32 - 1, 20, 300)):
        draw = build_for_mode(lambda i: ops.draw_view_params(seed, epoch, i, recipe, height, width), mode)  # noqa: B023
        expected = reference.draw_view_params(seed, epoch, index, recipe, height, width)
        assert_same(draw(tf.constant(index)), expected, recipe)


@pytest.mark.slow
def test_boxes_are_those_of_the_reference_in_millions():
    """Test eight million boxes. None may differ from the reference.

    The op and the reference may use different `exp` functions, whose results may differ in the last bit. This could
    change a box whose side, before rounding, is almost exactly halfway between two integers. No box of this test has
    such a side.
    """
    for epoch in range(20):
        index = np.arange(100_000)
        for height, width in ((32, 32), (375, 500)):
            drawn = ops.draw_view_params(7, epoch, index, RECIPE, height, width)
            expected = reference.draw_view_params(7, epoch, index, RECIPE, height, width)
            assert_same(drawn, expected)


@on_the_host
def test_parameters_know_their_shapes_in_graphs():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int64)])
    def draw(index: tf.Tensor, epoch: tf.Tensor) -> ViewParams:
        drawn = ops.draw_view_params(1, epoch, index, RECIPE, 32, 32)
        for name, field in zip(ViewParams._fields, drawn):
            assert field.shape.as_list() == ([None, 4] if name in ("box", "order") else [None])
        return drawn

    for count in (0, 1, 300):
        assert_same(draw(tf.range(count), 9), reference.draw_view_params(1, 9, np.arange(count), RECIPE, 32, 32))


@pytest.mark.parametrize("mode", list_modes())
@on_the_host
def test_numbers_that_do_not_fit_their_words_are_refused(mode):
    draw = build_for_mode(lambda index, epoch: ops.draw_view_params(0, epoch, index, RECIPE, 32, 32), mode)
    refused = ValueError if mode == "eager" else tf.errors.InvalidArgumentError
    for index, text in (([3, -1], r"index\[1\] is -1"), ([2**32, 0], r"index\[0\] is 4294967296")):
        with pytest.raises(refused, match=text):
            draw(tf.constant(index, tf.int64), tf.constant(0, tf.int64))
    for epoch in (-1, 2**32):
        with pytest.raises(refused, match=f"epoch is {epoch}"):
            draw(tf.constant([0, 1], tf.int64), tf.constant(epoch, tf.int64))
    with pytest.raises(ValueError, match="seed is -1"):
        ops.draw_view_params(-1, 0, [0], RECIPE, 32, 32)
    with pytest.raises(ValueError, match=r"index has shape \(1, 1\)"):
        ops.draw_view_params(0, 0, [[0]], RECIPE, 32, 32)


# ---- Images that fill only a part (frame) of their array

RANGE = st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)).map(lambda bounds: tuple(sorted(bounds)))


@st.composite
def frames(draw, count=64):
    """Draw the height and width of an array, and for each image the size of the part of the array that it fills."""
    height, width = draw(st.integers(1, 600)), draw(st.integers(1, 600))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = random.integers(1, (height + 1, width + 1), (count, 2))
    sizes[0] = height, width
    return height, width, sizes.astype(draw(st.sampled_from(["int32", "int64", "uint16"])))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    given_frames=frames(),
    area=RANGE,
    aspect=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(lambda bounds: tuple(sorted(bounds))),
    seed=st.integers(0, 2**64 - 1),
)
def test_parameters_in_frames_are_those_of_the_reference(given_frames, area, aspect, seed):
    height, width, sizes = given_frames
    recipe, index = replace(RECIPE, crop_area=area, crop_aspect=aspect), np.arange(len(sizes))
    expected = reference.draw_view_params(seed, 3, index, recipe, height, width, sizes)
    assert_same(ops.draw_view_params(seed, 3, index, recipe, height, width, sizes), expected, recipe)


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(given_frames=frames(count=20), seed=st.integers(0, 2**64 - 1))
def test_each_image_draws_as_it_would_alone(given_frames, seed):
    """Test that the parameters of an image depend on its own size, and not on the size of the array around it."""
    height, width, sizes = given_frames
    drawn = reference.draw_view_params(seed, 1, np.arange(20), RECIPE, height, width, sizes)
    for place, (own_height, own_width) in enumerate(sizes.tolist()):
        alone = reference.draw_view_params(seed, 1, [place], RECIPE, own_height, own_width)
        for field, expected in zip(drawn, alone):
            np.testing.assert_array_equal(field[[place, 20 + place]], expected)


@pytest.mark.parametrize("mode", list_modes())
@pytest.mark.parametrize("made_by", [ops, stock], ids=["native", "stock"])
def test_frames_work_in_every_mode(made_by, mode):
    sizes = np.random.default_rng(0).integers(1, (41, 301), (300, 2))

    def draw(index: tf.Tensor, sizes: tf.Tensor) -> ViewParams:
        return made_by.draw_view_params(5, 6, index, RECIPE, 40, 300, sizes)

    found = build_for_mode(draw, mode)(tf.range(300), tf.constant(sizes, tf.int32))
    assert_same(found, reference.draw_view_params(5, 6, np.arange(300), RECIPE, 40, 300, sizes))


@pytest.mark.parametrize("mode", list_modes())
@on_the_host
def test_a_frame_that_does_not_fit_is_refused(mode):
    draw = build_for_mode(lambda index, sizes: ops.draw_view_params(0, 0, index, RECIPE, 20, 30, sizes), mode)
    refused = ValueError if mode == "eager" else tf.errors.InvalidArgumentError
    for size in ([21, 5], [0, 5], [5, 31], [5, -1]):
        text = rf"sizes\[1\] is {size[0]} x {size[1]} pixels. It must be at least 1 x 1 and at most 20 x 30, the size"
        with pytest.raises(refused, match=text):
            draw(tf.range(3), tf.constant([[20, 30], size, [1, 1]]))


def test_a_frame_that_does_not_fit_has_no_box_in_a_stock_graph():
    draw = build_for_mode(lambda index, sizes: stock.draw_view_params(0, 0, index, RECIPE, 20, 30, sizes), "graph")
    box = draw(tf.range(4), tf.constant([[20, 30], [21, 5], [0, 1], [1, 1]])).box.numpy()
    assert np.flatnonzero((box == -1).all(axis=1)).tolist() == [1, 2, 5, 6]


# The first 12 digits of the SHA-256 of the boxes of images 0 to 499, with seed 7 and epoch 3. They were recorded before
# `draw_view_params` got the argument `sizes`, and show that boxes without this argument have not changed.
NARROW = replace(RECIPE, crop_area=(0.6, 1.0), crop_aspect=(0.05, 0.1))
RECORDED = {
    (32, 32, RECIPE): "43f1bdaa16fe",
    (30, 41, RECIPE): "11bdc2251654",
    (32, 32, NARROW): "168ecf6addaf",  # nearly all boxes are the central crop, because no drawn box fits
    (30, 41, NARROW): "2e1d57c470bf",
}


@pytest.mark.parametrize("made_by", [ops, stock, reference], ids=["native", "stock", "reference"])
@pytest.mark.parametrize("whole", [False, True], ids=["no sizes", "whole frames"])
def test_images_of_one_size_keep_their_boxes(made_by, whole):
    for (height, width, recipe), digest in RECORDED.items():
        sizes = np.tile([height, width], (500, 1)) if whole else None
        box = made_by.draw_view_params(7, 3, np.arange(500), recipe, height, width, sizes).box
        assert hashlib.sha256(np.asarray(box).tobytes()).hexdigest().startswith(digest)


# ---- The padding around an image


@pytest.mark.parametrize("mode", list_modes())
@pytest.mark.parametrize("size", [8, 60])
@pytest.mark.parametrize("made_by", [ops, stock], ids=["native", "stock"])
def test_no_view_shows_the_padding(made_by, size, mode):
    """Test that enlarging and reducing a crop read only pixels of the image, and none of the padding around it."""
    random = np.random.default_rng(4)
    sizes = random.integers(1, (34, 48), (60, 2))
    inside = (np.arange(33)[:, None] < sizes[:, 0, None, None]) & (np.arange(47) < sizes[:, 1, None, None])
    images = random.integers(0, 256, (60, 33, 47, 3)).astype(np.uint8)
    recipe = replace(RECIPE, crop_area=(0.5, 1.0))

    def make(images: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        drawn = made_by.draw_view_params(3, 0, tf.range(60), recipe, 33, 47, sizes)
        return made_by.make_views(images, drawn, size)

    views = build_for_mode(make, mode)
    made = [
        views(tf.constant(np.where(inside[..., None], images, padding).astype(np.uint8)), sizes) for padding in (0, 255)
    ]
    assert made[0].numpy().tobytes() == made[1].numpy().tobytes()
    assert np.isfinite(made[0].numpy()).all()
