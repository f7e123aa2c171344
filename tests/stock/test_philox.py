"""Tests the random number generator Philox in TensorFlow's own ops: its random bits must equal those of NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr.contract import philox as reference
from lowlevel_simclr.stock import philox as stock

WORD = st.integers(0, 2**32 - 1)


LARGEST = 2**32 - 1


def stock_in(mode: str) -> Callable[..., Any]:
    """Return `stock.philox4x32` as an eager function, as a graph, or compiled by XLA."""
    return {
        "eager": stock.philox4x32,
        "graph": tf.function(stock.philox4x32, reduce_retracing=True),
        "xla": tf.function(stock.philox4x32, jit_compile=True),
    }[mode]


def random_words(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_stock_draws_the_same_words(mode):
    draw = stock_in(mode)
    counters = np.concatenate([random_words(5000, 4), np.full((1, 4), LARGEST, np.uint32)])
    for key in random_words(2, 2, seed=1):
        words = draw(tf.constant(counters), tf.constant(key))
        assert words.dtype == tf.uint32
        np.testing.assert_array_equal(words, reference.philox4x32(counters, key))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=6), st.tuples(WORD, WORD))
def test_stock_draws_the_same_words_for_any_counter(counters, key):
    counters, key = np.array(counters, np.uint32), np.array(key, np.uint32)
    np.testing.assert_array_equal(stock.philox4x32(counters, key), reference.philox4x32(counters, key))


def test_stock_orders_epochs_the_same_way():
    compiled = tf.function(lambda epoch: stock.draw_epoch_order(3, epoch, 5000), jit_compile=True)
    for epoch in (0, 5, LARGEST):
        expected = reference.draw_epoch_order(3, epoch, 5000)
        of_number = stock.draw_epoch_order(3, epoch, 5000)
        assert of_number.dtype == tf.int64
        np.testing.assert_array_equal(of_number, expected)
        np.testing.assert_array_equal(compiled(tf.constant(epoch, tf.int64)), expected)
    for count in (0, 1, 2):
        np.testing.assert_array_equal(stock.draw_epoch_order(3, 5, count), reference.draw_epoch_order(3, 5, count))


@pytest.mark.parametrize("count", [-1, 2**31 + 1])
def test_stock_refuses_counts_out_of_range(count):
    with pytest.raises(ValueError, match=f"count is {count}"):
        stock.draw_epoch_order(0, 0, count)
