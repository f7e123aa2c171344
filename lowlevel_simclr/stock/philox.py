"""Philox4x32-10, a counter-based random generator, in stock TensorFlow. It returns the same words as `contract.philox`.

TensorFlow's own stateless ops take one key and one counter, and count upwards from it. In this package every block
of four words has its own counter. A uint64 holds each 32-bit word, so that the product of two words keeps its upper
half. No other integer type gives right results in all three modes (eager, graph, XLA) on every TensorFlow from 2.15 on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.philox import EPOCH_ORDER, KEY_STEPS, MULTIPLIERS, ROUNDS, split_seed

_LOW = 0xFFFFFFFF
_LARGEST_COUNT = 2**31


def philox4x32(counter: tf.Tensor, key: Any) -> tf.Tensor:
    """Return four random words for each counter (Salmon et al. 2011, section 3.3, ten rounds).

    Args:
        counter: (..., 4) uint32, low word first.
        key: (2,) uint32, low word first; a tensor or an array.

    Returns:
        (..., 4) uint32, uniform over all words.

    Raises:
        ValueError: if the last axis of counter does not have 4 words, or key does not have two.

    Examples:
        >>> from lowlevel_simclr import stock
        >>> [hex(word) for word in stock.philox4x32([0, 0, 0, 0], [0, 0]).numpy()]  # a known answer of Random123
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    counter, key = tf.convert_to_tensor(counter, tf.uint32), tf.convert_to_tensor(key, tf.uint32)
    if counter.shape.rank in (None, 0) or counter.shape[-1] != 4 or key.shape != (2,):
        raise ValueError(f"counter has shape {counter.shape}, key has {key.shape}. Philox4x32 needs (..., 4) and (2,).")
    return tf.stack(draw_words(*tf.unstack(counter, axis=-1), key=key), axis=-1)


def draw_words(x0: Any, x1: Any, x2: Any, x3: Any, *, key: Any) -> tuple[tf.Tensor, ...]:
    """Return `philox4x32` of counters that are given as four separate words.

    Args:
        x0: first word of the counters, integers in [0, 2^32). The four words may have any shapes that broadcast.
        x1: second word.
        x2: third word.
        x3: fourth word.
        key: (2,) uint32, low word first.

    Returns:
        The four random words, uint32, of the broadcast shape.
    """
    x0, x1, x2, x3 = (tf.cast(word, tf.uint64) for word in (x0, x1, x2, x3))
    for key_0, key_1 in _make_round_keys(key):
        product_0, product_2 = x0 * _to_uint64(MULTIPLIERS[0]), x2 * _to_uint64(MULTIPLIERS[1])
        x0, x1 = _take_upper_word(product_2) ^ x1 ^ key_0, product_2 & _to_uint64(_LOW)
        x2, x3 = _take_upper_word(product_0) ^ x3 ^ key_1, product_0 & _to_uint64(_LOW)
    return tuple(tf.cast(word, tf.uint32) for word in (x0, x1, x2, x3))


def to_uniform(words: tf.Tensor) -> tf.Tensor:
    """Turn words into numbers in [0, 1): the upper 24 bits times 2^-24, exact in float32. Same shape, float32.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> stock.to_uniform(tf.constant([0, 2**31], tf.uint32)).numpy().tolist()
        [0.0, 0.5]
    """
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def draw_epoch_order(seed: int, epoch: int | tf.Tensor, count: int) -> tf.Tensor:
    """Return the order in which an epoch visits the images.

    Args:
        seed: seed of the run, in [0, 2^64).
        epoch: epoch number in [0, 2^32), a number or an integer scalar.
        count: number of images, at most 2^31.

    Returns:
        (count,) int64, a permutation of 0 .. count-1.

    Raises:
        ValueError: if seed or count is out of range.

    Examples:
        >>> from lowlevel_simclr import stock
        >>> sorted(stock.draw_epoch_order(seed=0, epoch=1, count=5).numpy().tolist())
        [0, 1, 2, 3, 4]
    """
    if not 0 <= count <= _LARGEST_COUNT:
        raise ValueError(f"count is {count}. An epoch has 0 to 2^31 images.")
    index = tf.range(count, dtype=tf.int64)
    word = draw_words(epoch, index, 0, EPOCH_ORDER, key=split_seed(seed))[0]  # (count,)
    # A word and its index form one number, and no two of these numbers are equal. So the order is the same as that of
    # the reference's stable argsort, whether or not tf.sort is stable.
    both = tf.sort(tf.cast(word, tf.int64) * _LARGEST_COUNT + index)
    return both % _LARGEST_COUNT


def _make_round_keys(key: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return the key words of each of the ten rounds, as uint64 scalars."""
    steps = np.arange(ROUNDS, dtype=np.uint64)[:, None] * np.array(KEY_STEPS, np.uint64)  # (10, 2)
    keys = (tf.cast(key, tf.uint64) + steps) & _to_uint64(_LOW)  # (10, 2)
    return [tuple(tf.unstack(row)) for row in tf.unstack(keys)]


def _to_uint64(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint64)


def _take_upper_word(product: tf.Tensor) -> tf.Tensor:
    """Return the upper 32 bits of a product of two words."""
    return tf.bitwise.right_shift(product, _to_uint64(32))
