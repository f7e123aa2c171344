"""Philox4x32-10 and what is drawn from it: stateless, counter-based random words (Salmon et al. 2011).

Every random number of a run is a function of (seed, epoch, image index, view, purpose): the seed is the key, the
other four are the counter. So whatever the batch, the replica, the step that a run was resumed at, or the order of
the rows, the same image gets the same numbers. The words are integers and bit-equal in every implementation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]

# Purposes: the last word of the counter. Two uses never share one.
CROP = tuple(range(10))  # attempt k of the random crop: area, aspect, y, x
SWITCHES = 16  # flip, jitter, grey, blur
FACTORS = 17  # brightness, contrast, saturation, hue
ORDER_AND_BLUR = 18  # order of the colour operations, sigma of the blur, brightness shift
EPOCH_ORDER = 32  # order of the images within an epoch
LAYER_SEED = 33  # initial weights; the place of the layer stands for the index
SHAPE_PLACE, SHAPE_TONE, SHAPE_NOISE = 48, 49, 50  # the drawn data set, `shapes.py`

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of counter words 0 and 2
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # added to the key words after each round: golden ratio, sqrt(3) - 1
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter: ArrayLike, key: ArrayLike) -> Words:
    """Four random words for each counter (Salmon et al. 2011, section 3.3, ten rounds).

    Args:
        counter: (..., 4) uint32, low word first.
        key: (2,) uint32, low word first.

    Returns:
        (..., 4) uint32, uniform over all words.

    Raises:
        ValueError: the last axis of counter is not 4, or key is not two words.
    """
    counter, key = np.asarray(counter), np.asarray(key)
    if counter.ndim == 0 or counter.shape[-1] != 4 or key.shape != (2,):
        raise ValueError(f"counter has shape {counter.shape} and key {key.shape}: Philox4x32 needs (..., 4) and (2,).")
    x0, x1, x2, x3 = np.moveaxis(counter.astype(np.uint64), -1, 0)  # 32-bit words in 64-bit places
    for key_0, key_1 in make_round_keys(int(key[0]), int(key[1])):
        product_0, product_2 = np.uint64(MULTIPLIERS[0]) * x0, np.uint64(MULTIPLIERS[1]) * x2
        x0 = (product_2 >> _HALF) ^ x1 ^ np.uint64(key_0)
        x1 = product_2 & _LOW
        x2 = (product_0 >> _HALF) ^ x3 ^ np.uint64(key_1)
        x3 = product_0 & _LOW
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def make_round_keys(low: int, high: int) -> list[tuple[int, int]]:
    """The key words of each of the ten rounds."""
    step_low, step_high = KEY_STEPS
    return [((low + r * step_low) % 2**32, (high + r * step_high) % 2**32) for r in range(ROUNDS)]


def split_seed(seed: int) -> Words:
    """A run's seed as a key: (2,) uint32, low word first.

    Raises:
        ValueError: seed is not in [0, 2^64).
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"The seed is {seed}: give a whole number in [0, 2^64).")
    return np.array([seed % 2**32, seed // 2**32], np.uint32)


def draw_words(seed: int, epoch: int, index: ArrayLike, view: ArrayLike, purpose: int) -> Words:
    """The four words of each (epoch, index, view, purpose).

    Args:
        seed: the run's, in [0, 2^64).
        epoch: in [0, 2^32).
        index: (n,) places of the images in the data set, each in [0, 2^32).
        view: (n,) or a scalar, 0 for first views and 1 for second ones.
        purpose: one of this module's constants.

    Returns:
        (n, 4) uint32.

    Raises:
        ValueError: seed, epoch or an index does not fit its words.
    """
    counter = np.stack(np.broadcast_arrays(epoch, index, view, purpose), axis=-1)  # (n, 4)
    outside = (counter < 0) | (counter >= 2**32)
    if np.any(outside):
        raise ValueError(
            f"The counter (epoch, index, view, purpose) = {counter[outside.any(axis=-1)][0].tolist()} does not fit "
            "four 32-bit words: give an epoch and indices in [0, 2^32)."
        )
    return philox4x32(counter, split_seed(seed))


def to_uniform(words: Any) -> NDArray[np.float32]:
    """Words as numbers in [0, 1): the upper 24 bits times 2^-24, exact in float32. Same shape, float32."""
    return (np.asarray(words, np.uint32) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def draw_epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch visits the images: image indices, each once.

    The stable argsort of one word per image, so that equal words (expected from some 90,000 images on) leave no
    choice.

    Args:
        seed: the run's, in [0, 2^64).
        epoch: in [0, 2^32).
        count: number of images.

    Returns:
        (count,) int64, a permutation of 0 .. count-1.
    """
    words = draw_words(seed, epoch, np.arange(count), 0, EPOCH_ORDER)  # (count, 4)
    return np.argsort(words[:, 0], kind="stable").astype(np.int64)
