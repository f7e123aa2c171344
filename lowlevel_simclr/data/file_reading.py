"""Reads many encoded images in threads. The bytes of an image are read once, for its hash and its pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.encoded import Encoded
from lowlevel_simclr.data.frames import Frames, read_canvas
from lowlevel_simclr.data.image_file import Shape, UnreadableError
from lowlevel_simclr.data.image_index import DIGEST, ImageIndex

_AT_ONCE = 1024  # images given to the threads at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_images(
    source: Encoded,
    rows: Sequence[int] | np.ndarray,
    index: ImageIndex,
    shape: Shape,
    keep: Callable[[int, np.ndarray], None] | None = None,
    frames: Frames | None = None,
) -> Iterator[int]:
    """Decode images in threads, and note in the index which images can be used. Yield each image's row, in order.

    Args:
        source: the images.
        rows: the positions of the images to decode.
        index: the index of the image files. It receives the hash of each image, and the reason if the image cannot be
            used.
        shape: the shape of the pixels.
        keep: called in a thread with the row and the pixels (H, W, C) uint8 of each image that can be used. None: the
            images are only checked, which takes less time.
        frames: if images of different sizes are stored with padding, the size of each image. Otherwise None.
    """

    def read(row: int) -> tuple[bytes, str | None]:
        try:
            content = source.read(row)
        except UnreadableError as error:
            return b"", str(error)
        digest = hashlib.blake2b(content, digest_size=DIGEST).digest()
        try:
            if keep is None:
                image_file.check_content(content)
            else:
                keep(row, read_canvas(content, shape, frames, row))
        except UnreadableError as error:
            return digest, str(error)
        return digest, None

    numbers = [int(row) for row in rows]
    for (digest, reason), row in zip(run_in_threads(read, numbers), numbers):
        index.note(row, digest, reason)
        index.save_sometimes()
        yield row


def run_in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the result of `work` for each item, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(items), _AT_ONCE):
            yield from pool.map(work, items[first : first + _AT_ONCE])
