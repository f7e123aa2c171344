"""Decodes images in threads while the encoder works, and passes them through the encoder in batches of equal size.

Every batch has the same number of images, so TensorFlow traces the encoder once. The last batch of a part is filled up
with black images. Which images share a batch depends only on their positions. So a program that was stopped and started
again computes exactly the same bytes as one that was not stopped.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.data import frames, image_file
from lowlevel_simclr.data.encoded import Encoded
from lowlevel_simclr.evaluation.embedding.given import EmbedError

BATCH_SIZE = 256  # images that go through the encoder at once
CHUNK = 64  # images that a thread decodes one after another
AHEAD = 16  # most chunks that are decoded in advance: four batches
MOST_THREADS = 16

Decode = Callable[[bytes], NDArray[np.uint8]]
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # images (B, H, W, C) -> rows (B, d)


class Chunk(NamedTuple):
    """Some images after decoding.

    Attributes:
        pixels: the images that can be read, (H, W, C) uint8.
        places: their positions in the source.
        bad: the positions of the other images, each with the reason.
    """

    pixels: list[NDArray[np.uint8]]
    places: list[int]
    bad: list[tuple[int, str]]


class Part(NamedTuple):
    """Rows of consecutive images.

    Attributes:
        rows: (m, d) float32.
        places: (m,) int64, the positions of the images in the source.
        bad: the positions of the images that cannot be read, each with the reason.
    """

    rows: NDArray[np.float32]
    places: NDArray[np.int64]
    bad: list[tuple[int, str]]


def choose_decoder(shape: image_file.Shape, bounds: image_file.Bounds | None) -> Decode:
    """Return the function that decodes the bytes of an image file in the same way as the evaluation of the run.

    Args:
        shape: the shape of an image.
        bounds: the largest size of the run's images, or None if all of them have exactly this shape.
    """
    if bounds is None:
        return lambda content: image_file.read_pixels(content, shape)
    return lambda content: frames.read_square(content, shape.height, bounds, shape.channels)


def read_chunks(source: Encoded, decode: Decode, ranges: Iterable[range]) -> Iterator[Chunk]:
    """Yield one chunk of decoded images for each range of positions, in order.

    Threads decode the next few chunks in advance.
    """

    def read(places: range) -> Chunk:
        chunk = Chunk([], [], [])
        for place in places:
            try:
                chunk.pixels.append(decode(source.read(place)))
                chunk.places.append(place)
            except image_file.UnreadableError as error:
                chunk.bad.append((place, str(error)))
        return chunk

    waiting: collections.deque[Future[Chunk]] = collections.deque()
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        for places in ranges:
            waiting.append(pool.submit(read, places))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def count_images(chunks: Iterable[Chunk], update: Callable[[int], object]) -> Iterator[Chunk]:
    """Yield the chunks. After each one, call `update` with its number of images."""
    for chunk in chunks:
        yield chunk
        update(len(chunk.places) + len(chunk.bad))


def split_range(places: range, length: int) -> list[range]:
    """Split a range into pieces of `length`. The last piece may be shorter.

    Examples:
        >>> split_range(range(2, 7), 2)
        [range(2, 4), range(4, 6), range(6, 7)]
    """
    return [places[first : first + length] for first in range(0, len(places), length)]


def choose_batch_size(count: int) -> int:
    """Return how many of `count` images go through the encoder at once."""
    return min(BATCH_SIZE, count)


def compute_part(chunks: Iterable[Chunk], embed: Embed, batch_size: int) -> Part:
    """Return the rows of the images of some chunks.

    Args:
        chunks: the images.
        embed: a function that takes images (B, H, W, C) uint8 and returns rows (B, d).
        batch_size: the number of images in every call of `embed` (B).

    Raises:
        EmbedError: if a row is NaN or infinite.
    """
    pixels: list[NDArray[np.uint8]] = []
    places: list[int] = []
    bad: list[tuple[int, str]] = []
    rows: list[NDArray[np.float32]] = []
    for chunk in chunks:
        pixels += chunk.pixels
        places += chunk.places
        bad += chunk.bad
        while len(pixels) >= batch_size:
            rows.append(embed(np.stack(pixels[:batch_size])))
            del pixels[:batch_size]
    if pixels:
        rows.append(embed(_fill_up(np.stack(pixels), batch_size))[: len(pixels)])
    found = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    if not np.isfinite(found).all():
        raise EmbedError(
            "The encoder gives numbers that are NaN or infinite, because the training has diverged. Train again with a "
            "lower --learning-rate, a longer warm-up or --precision float32."
        )
    return Part(found, np.array(places, np.int64), bad)


def _fill_up(images: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    """Return the images followed by black images, (batch_size, H, W, C)."""
    return np.pad(images, [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)])


def compute_all(source: Encoded, decode: Decode, embed: Embed, batch_size: int | None = None) -> Part:
    """Return the rows of all images, in memory.

    Args:
        source: the images.
        decode: a function that takes the bytes of a file and returns pixels (H, W, C) uint8.
        embed: a function that takes images (B, H, W, C) uint8 and returns rows (B, d).
        batch_size: the number of images in every call of `embed` (B). Default: see `choose_batch_size`.

    Raises:
        EmbedError: see `compute_part`.
    """
    chunks = read_chunks(source, decode, split_range(range(len(source)), CHUNK))
    return compute_part(chunks, embed, batch_size or choose_batch_size(len(source)))
