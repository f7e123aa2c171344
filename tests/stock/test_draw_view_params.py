"""Tests the random parameters of image augmentation: TensorFlow's ops (stock) must draw the same ones as NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.reference.draw_view_params import draw_view_params as draw
from lowlevel_simclr.stock.draw_view_params import draw_view_params as stock_draw
from tests.support.view_recipes import RECIPE, assert_same


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_stock_draws_the_same(mode):
    def stock(epoch: tf.Tensor, index: tf.Tensor) -> ViewParams:
        return stock_draw(2**40 + 7, epoch, index, RECIPE, 33, 50)

    signature = [tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int64)]  # the graph does not know N (images)
    if mode != "eager":
        stock = tf.function(stock, input_signature=signature, jit_compile=mode == "xla")
    index = np.concatenate([np.arange(1000), [2**31 - 1, 2**31, 2**32 - 1]])
    for epoch in (0, 1, 2**32 - 1):
        actual = stock(tf.constant(epoch, tf.int64), tf.constant(index))
        assert_same(actual, draw(2**40 + 7, epoch, index, RECIPE, 33, 50))


def test_stock_draws_the_same_inside_tf_data():
    batches = tf.data.Dataset.range(24).batch(8).map(lambda index: stock_draw(1, 2, index, RECIPE, 32, 32))
    for number, params in enumerate(batches):
        assert_same(params, draw(1, 2, np.arange(8 * number, 8 * number + 8), RECIPE, 32, 32))


RANGE = st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)).map(lambda bounds: tuple(sorted(bounds)))


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    area=RANGE,
    aspect=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(lambda bounds: tuple(sorted(bounds))),
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    switch=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    framed=st.booleans(),
)
def test_stock_draws_the_same_by_any_recipe(area, aspect, height, width, switch, seed, framed):
    recipe = replace(
        RECIPE, crop_area=area, crop_aspect=aspect, brightness=area, jitter_probability=switch, blur_sigma=aspect
    )
    index = np.arange(64)
    sizes = np.random.default_rng(seed).integers(1, (height + 1, width + 1), (64, 2)) if framed else None
    expected = draw(seed, 3, index, recipe, height, width, sizes)
    assert_same(stock_draw(seed, 3, tf.constant(index), recipe, height, width, sizes), expected, recipe)
