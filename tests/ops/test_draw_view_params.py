"""The native parameters of views agree with the reference in every mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, reference
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.verification.mode import build_for_mode
from tests.support.host import on_the_host
from tests.support.op_modes import list_modes
from tests.support.view_recipes import ALWAYS, NEVER, RECIPE, assert_same

HEIGHT, WIDTH, SIZE = 41, 36, 30


@pytest.mark.parametrize("mode", list_modes())
@pytest.mark.parametrize("recipe", [RECIPE, ALWAYS, NEVER, replace(RECIPE, crop_aspect=(0.05, 0.1), clip=False)])
def test_parameters_are_those_of_the_reference(mode, recipe):
    index = np.arange(2500) * 1_700_000 + 3  # up to nearly 2^32
    for seed, epoch, height, width in ((0, 0, 32, 32), (2**64 - 1, 2**32 - 1, 20, 300)):
        draw = build_for_mode(lambda i: ops.draw_view_params(seed, epoch, i, recipe, height, width), mode)  # noqa: B023
        expected = reference.draw_view_params(seed, epoch, index, recipe, height, width)
        assert_same(draw(tf.constant(index)), expected, recipe)


@pytest.mark.slow
def test_boxes_are_those_of_the_reference_in_millions():
    """Another exponential function could round a box differently only at a tie. Four million draws meet no tie."""
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
