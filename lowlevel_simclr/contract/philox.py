"""Philox4x32-10 (Salmon et al. 2011), and the random numbers that a run draws with it.

Philox is stateless: its random words are a function of a key and a counter. Every random number of a run is a function
of (seed, epoch, image index, view, purpose). The seed is the key, and the other four are the counter. So an image gets
the same numbers for every batch size, every number of replicas and every order of the rows, and after every resume. The
words are integers and bit-equal in every implementation.

A view is a random crop of an image with changed colours. A replica is a device that trains on its part of each batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowlevel_simclr.contract.checks import check_whole

Words = NDArray[np.uint32]

# Purposes: the last word of the counter. Each use of random numbers has its own purpose.
CROP = tuple(range(10))  # attempt k of the random crop: area, aspect, y, x
SWITCHES = 16  # flip, jitter, grey, blur
FACTORS = 17  # brightness, contrast, saturation, hue
ORDER_AND_BLUR = 18  # order of the colour operations, blur sigma, brightness shift
EPOCH_ORDER = 32  # order of the images within an epoch
LAYER_SEED = 33  # initial weights; the index is the layer's place in the model
SHAPE_PLACE, SHAPE_TONE, SHAPE_NOISE = 48, 49, 50  # the data set of drawn shapes, `data/shapes.py`

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # for counter words 0 and 2
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # added to the key words after each round: golden ratio, sqrt(3) - 1
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter: ArrayLike, key: ArrayLike) -> Words:
    """Return four random words for each counter (Salmon et al. 2011, section 3.3, ten rounds).

    Args:
        counter: (..., 4) uint32, low word first.
        key: (2,) uint32, low word first.

    Returns:
        (..., 4) uint32, uniform over all words.

    Raises:
        ValueError: if the last axis of counter does not have 4 words, or key does not have two.

    Examples:
        >>> from lowlevel_simclr.contract.philox import philox4x32
        >>> [hex(word) for word in philox4x32([0, 0, 0, 0], [0, 0])]  # as in Random123, the authors' library
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    counter, key = np.asarray(counter), np.asarray(key)
    if counter.ndim == 0 or counter.shape[-1] != 4 or key.shape != (2,):
        raise ValueError(f"counter has shape {counter.shape}, key has {key.shape}. Philox4x32 needs (..., 4) and (2,).")
    x0, x1, x2, x3 = np.moveaxis(counter.astype(np.uint64), -1, 0)  # 32-bit words; uint64 holds their products
    for key_0, key_1 in make_round_keys(int(key[0]), int(key[1])):
        product_0, product_2 = np.uint64(MULTIPLIERS[0]) * x0, np.uint64(MULTIPLIERS[1]) * x2
        x0 = (product_2 >> _HALF) ^ x1 ^ np.uint64(key_0)
        x1 = product_2 & _LOW
        x2 = (product_0 >> _HALF) ^ x3 ^ np.uint64(key_1)
        x3 = product_0 & _LOW
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def make_round_keys(low: int, high: int) -> list[tuple[int, int]]:
    """Return the two key words of each of the ten rounds."""
    step_low, step_high = KEY_STEPS
    return [((low + r * step_low) % 2**32, (high + r * step_high) % 2**32) for r in range(ROUNDS)]


def split_seed(seed: int) -> Words:
    """Return the seed of a run as a key: (2,) uint32, low word first.

    Args:
        seed: seed of the run, in [0, 2^64).

    Raises:
        TypeError: if seed is not a whole number.
        ValueError: if seed is not in [0, 2^64).

    Examples:
        >>> from lowlevel_simclr.contract.philox import split_seed
        >>> split_seed(2**32 + 7).tolist()
        [7, 1]
    """
    seed = check_whole("seed", seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"The seed is {seed}. It must be a whole number in [0, 2^64).")
    return np.array([seed % 2**32, seed // 2**32], np.uint32)


def draw_words(seed: int, epoch: int, index: ArrayLike, view: ArrayLike, purpose: int) -> Words:
    """Return the four random words of each (epoch, index, view, purpose).

    Args:
        seed: seed of the run, in [0, 2^64).
        epoch: epoch number in [0, 2^32).
        index: (n,) positions of the images in the data set, each in [0, 2^32).
        view: (n,) or a scalar: 0 for first views, 1 for second views.
        purpose: one of this module's constants.

    Returns:
        (n, 4) uint32.

    Raises:
        ValueError: if seed is not in [0, 2^64), or if epoch or an index is not in [0, 2^32).

    Examples:
        >>> from lowlevel_simclr.contract.philox import SWITCHES, draw_words
        >>> draw_words(seed=0, epoch=0, index=range(8), view=0, purpose=SWITCHES).shape
        (8, 4)
    """
    counter = np.stack(np.broadcast_arrays(epoch, index, view, purpose), axis=-1)  # (n, 4)
    outside = (counter < 0) | (counter >= 2**32)
    if np.any(outside):
        raise ValueError(
            f"The counter (epoch, index, view, purpose) = {counter[outside.any(axis=-1)][0].tolist()} does not fit "
            "into four 32-bit words. The epoch and every index must be in [0, 2^32)."
        )
    return philox4x32(counter, split_seed(seed))


def to_uniform(words: Any) -> NDArray[np.float32]:
    """Turn words into numbers in [0, 1): the upper 24 bits times 2^-24, which is exact in float32.

    The result has the shape of `words` and the type float32.

    Examples:
        >>> from lowlevel_simclr.contract.philox import to_uniform
        >>> to_uniform([0, 2**31]).tolist()
        [0.0, 0.5]
    """
    return (np.asarray(words, np.uint32) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def draw_epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the images.

    The order is the stable argsort of one random word for each image. With more than about 90,000 images, two equal
    words are likely. A stable sort gives a single order even then.

    Args:
        seed: seed of the run, in [0, 2^64).
        epoch: epoch number in [0, 2^32).
        count: number of images.

    Returns:
        (count,) int64, a permutation of 0 .. count-1.

    Examples:
        >>> from lowlevel_simclr.contract.philox import draw_epoch_order
        >>> sorted(draw_epoch_order(seed=0, epoch=1, count=5).tolist())
        [0, 1, 2, 3, 4]
    """
    words = draw_words(seed, epoch, np.arange(count), 0, EPOCH_ORDER)  # (count, 4)
    return np.argsort(words[:, 0], kind="stable").astype(np.int64)
