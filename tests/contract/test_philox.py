"""Tests the random number generator Philox4x32-10 of this package, in NumPy and in TensorFlow's own ops.

Its results are compared with published results, and with the same generator inside TensorFlow. A purpose is a number
that says what random bits are for, for example for flips. It is a part of the generator's input.

Every statistical test has a fixed seed, so its result never changes. For a correct generator, the tested value exceeds
its limit with a probability below 1e-6.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.contract import philox as reference
from lowlevel_simclr.stock import philox as stock
from tests.support.known_words import KNOWN, LARGEST


def random_words(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN, ids=["zeros", "ones", "pi"])
def test_the_known_answers(counter, key, answer):
    counter, key = np.array(counter, np.uint32), np.array(key, np.uint32)
    assert tuple(reference.philox4x32(counter, key)) == answer
    assert tuple(stock.philox4x32(counter, key).numpy()) == answer


def test_agrees_with_the_generator_inside_tensorflow():
    for counter, key in zip(random_words(20, 4), random_words(20, 2, seed=1), strict=True):
        expected = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[4],
            key=key.view(np.uint64),  # little-endian: the low word comes first
            counter=counter.view(np.uint64),
            alg=1,
            dtype=tf.uint32,
        )
        np.testing.assert_array_equal(reference.philox4x32(counter, key), expected)
        np.testing.assert_array_equal(stock.philox4x32(counter, key), expected)


def test_counters_of_any_rank():
    counters, key = random_words(2, 3, 4), random_words(2)
    expected = reference.philox4x32(counters.reshape(6, 4), key).reshape(2, 3, 4)
    np.testing.assert_array_equal(reference.philox4x32(counters, key), expected)
    np.testing.assert_array_equal(stock.philox4x32(counters, key), expected)


@pytest.mark.parametrize("philox4x32", [reference.philox4x32, stock.philox4x32], ids=["reference", "stock"])
@pytest.mark.parametrize(("counter", "key"), [((2, 3), (2,)), ((2, 4), (3,)), ((), (2,)), ((4,), (1, 2))], ids=str)
def test_other_shapes_are_refused(philox4x32, counter, key):
    with pytest.raises(ValueError, match=r"needs \(\.\.\., 4\) and \(2,\)"):
        philox4x32(np.zeros(counter, np.uint32), np.zeros(key, np.uint32))


# Seeds, purposes, uniform numbers


def test_the_seed_is_the_key_low_word_first():
    np.testing.assert_array_equal(reference.split_seed(0x0123456789ABCDEF), [0x89ABCDEF, 0x01234567])
    np.testing.assert_array_equal(reference.split_seed(2**64 - 1), [LARGEST, LARGEST])
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=f"seed is {seed}"):
            reference.split_seed(seed)


def test_the_counter_is_epoch_index_view_purpose():
    words = reference.draw_words(5, 7, [11, 13], [0, 1], reference.FACTORS)
    expected = [reference.philox4x32([7, 11, 0, 17], [5, 0]), reference.philox4x32([7, 13, 1, 17], [5, 0])]
    np.testing.assert_array_equal(words, expected)


def test_no_two_purposes_share_words():
    purposes = [*reference.CROP, reference.SWITCHES, reference.FACTORS, reference.ORDER_AND_BLUR, reference.EPOCH_ORDER]
    assert reference.CROP == tuple(range(10))
    assert len(set(purposes)) == 14


@pytest.mark.parametrize(("epoch", "index"), [(-1, 0), (2**32, 0), (0, -1), (0, 2**32)])
def test_what_does_not_fit_a_counter_word_is_refused(epoch, index):
    with pytest.raises(ValueError, match="does not fit"):
        reference.draw_words(0, epoch, np.array([3, index]), 0, 0)


def test_uniform_numbers_are_exact():
    words = np.array([0, 255, 256, 2**31, LARGEST], np.uint32)
    expected = np.array([0, 0, 2.0**-24, 0.5, 1 - 2.0**-24])
    for uniform in (reference.to_uniform(words), stock.to_uniform(tf.constant(words)).numpy()):
        assert uniform.dtype == np.float32
        np.testing.assert_array_equal(uniform.astype(np.float64), expected)


def test_uniform_numbers_of_neighbouring_images_are_uniform():
    count, cells = 50_000, 20
    words = reference.draw_words(0, 0, np.arange(count), 0, reference.SWITCHES)
    for column in reference.to_uniform(words).T:
        seen = np.bincount((column * cells).astype(int), minlength=cells)
        chi_square = np.sum((seen - count / cells) ** 2) / (count / cells)
        assert chi_square < 63.7  # 19 degrees of freedom: above 63.7 with probability 1e-6


# The order in which an epoch visits the images


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_epoch_visits_every_image_once(count):
    order = reference.draw_epoch_order(3, 5, count)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_images_with_equal_words_keep_their_order():
    count = 300_000  # images; count^2 / 2^33 = 10 pairs of them are expected to have equal words
    order = reference.draw_epoch_order(0, 0, count)
    words = reference.draw_words(0, 0, order, 0, reference.EPOCH_ORDER)[:, 0].astype(np.int64)
    ties = np.diff(words) == 0
    assert np.sum(ties) >= 3
    assert np.all(np.diff(words) >= 0)
    assert np.all(np.diff(order)[ties] > 0)
    np.testing.assert_array_equal(stock.draw_epoch_order(0, 0, count), order)


def test_epochs_and_seeds_have_unrelated_orders():
    count = 20_000
    base = reference.draw_epoch_order(0, 0, count)
    for other in (
        reference.draw_epoch_order(0, 1, count),
        reference.draw_epoch_order(1, 0, count),
        reference.draw_epoch_order(2**32, 0, count),
        np.arange(count),
    ):
        # The rank correlation of two unrelated orders has the standard deviation 1 / sqrt(count - 1).
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(count - 1)
