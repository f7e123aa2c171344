"""Packed images: the decoded pixels of a data set in one file, which is mapped into memory.

A file holds n images (H, W, C) uint8 one after another, then a description: the height and width of each image, a
checksum of each block of images, and a checksum of the description. The name of the file is a hash of the contents of
the image files, of the rules for decoding them, and of the major version of Pillow. So several runs and processes share
the file, and a changed data set has another file. A file gets its name only when it is complete. It can be deleted at
any time.

An unfinished file has the ending `.partial`. If a process was stopped, the next one keeps the blocks that are complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.image_file import PIXEL_RULES, Bounds, Shape
from lowlevel_simclr.data.streamed import StreamedImages
from lowlevel_simclr.runtime.files import lock_file, read_regular_file, write_atomically

BLOCK = 2**26  # bytes of pixels with one checksum
# Number of blocks that are checked when a file is opened, spread evenly over the file. Together they have 1 GiB, and
# the check takes about a second. A smaller file is checked completely.
CHECKED = 16
SYNCED_EVERY = 60.0  # seconds between two syncs to the disk. A power cut loses at most the work of this time.
GIB = 2**30
_MAGIC = b"lls-pack"
# The value of MAP_NORESERVE. The module mmap has this constant only from Python 3.13 on.
_NORESERVE = 0x40 if sys.platform == "darwin" else 0x4000
_LARGEST_NOTES = 2**30  # bytes of the description


class PackedImages(StreamedImages):
    """Images (n, H, W, C) uint8 in a file that is mapped into memory. Reading rows copies them from the file."""

    def __init__(self, pixels: np.ndarray, chosen: np.ndarray) -> None:
        """Take the images `chosen` (n,) of the mapped `pixels` (m, H, W, C)."""
        super().__init__(chosen, Shape(*pixels.shape[1:]))
        self.pixels = pixels

    def select_rows(self, rows: Any) -> PackedImages:
        """Return the images with the row numbers `rows` (m,), or those of a slice, without reading them."""
        return PackedImages(self.pixels, self.chosen[rows])

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (m, H, W, C) with the row numbers `rows` (m,)."""
        return self.pixels[self.chosen[rows]]


def make_key(digests: list[bytes], shape: Shape, bounds: Bounds | None = None) -> str:
    """Return the name of the file with the packed images, without its ending.

    Args:
        digests: a hash for each image file, in order. For a file that cannot be used, this is the empty text b"".
        shape: the shape of the array of an image.
        bounds: the largest allowed sides of an image inside its array, or None if the arrays have no padding.
    """
    digest = hashlib.sha256(repr((PIXEL_RULES, tuple(shape), *([] if bounds is None else [tuple(bounds)]))).encode())
    for each in digests:
        digest.update(bytes([len(each)]) + each)
    return digest.hexdigest()[:32]


def open_packed(folder: Path, key: str, tell: Callable[[str], object] = print) -> np.ndarray | None:
    """Map packed images into memory.

    Args:
        folder: the folder of `--cache`.
        key: see `make_key`.
        tell: called with a message if the file is damaged. The function then removes the file.

    Returns:
        (n, H, W, C) uint8, or None if the file is missing or damaged. Do not write to the array.
    """
    path = folder / f"{key}.pixels"
    try:
        with open(path, "rb") as file:
            notes = _read_notes(file)
            pixels = _map(file, (notes["count"], *notes["shape"]))
            _check_blocks(pixels, notes["blocks"])
            return pixels
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        tell(f"The packed images {show_name(str(path))} are damaged ({error}). They are made again.")
        path.unlink(missing_ok=True)
        return None
    except OSError as error:
        raise DataError(
            f"The packed images {path} cannot be read ({error.strerror or error}). Use another folder with --cache."
        ) from error


def _read_notes(file: BinaryIO) -> dict[str, Any]:
    """Return the description of the images, from the end of the file.

    Raises:
        ValueError: if the file is cut off or damaged.
    """
    size = os.fstat(file.fileno()).st_size
    tail = 16 + len(_MAGIC) + 8  # the checksum, the magic word, and the length of the description
    file.seek(max(0, size - tail))
    end = file.read()
    length = int.from_bytes(end[-8:], "little")
    if end[16:-8] != _MAGIC or length > min(_LARGEST_NOTES, size - tail):
        raise ValueError("the end is missing")
    file.seek(size - tail - length)
    text = file.read(length)
    if _check(text) != end[:16]:
        raise ValueError("the description is damaged")
    notes = json.loads(text[text.index(b"{") :])
    if size - tail - length != notes["count"] * int(np.prod(notes["shape"])):
        raise ValueError("the length is wrong")
    return notes


def _map(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Map the beginning of a file as an array.

    TensorFlow takes an array without a copy only if the array is writable. So the map is writable but private: a write
    would not change the file. The map reserves no memory, because the system would otherwise refuse a file larger than
    the memory.
    """
    size = int(np.prod(shape))
    if sys.platform == "win32":
        return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY), np.uint8).reshape(shape)
    flags, protection = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
    return np.frombuffer(mmap.mmap(file.fileno(), size, flags=flags, prot=protection), np.uint8).reshape(shape)


def _check_blocks(pixels: np.ndarray, checksums: list[str]) -> None:
    """Check at most CHECKED blocks, spread evenly.

    Raises:
        ValueError: if a block is damaged.
    """
    rows = _count_block_rows(pixels.shape)
    if len(checksums) != -(-len(pixels) // rows):
        raise ValueError("checksums are missing")
    for block in np.unique(np.linspace(0, len(checksums) - 1, CHECKED).round().astype(int)):
        if _check(pixels[block * rows : (block + 1) * rows].data).hex() != checksums[block]:
            raise ValueError(f"block {block} of {len(checksums)} has a wrong checksum")


def _count_block_rows(shape: tuple[int, ...]) -> int:
    """Return the number of images in a block."""
    return max(1, BLOCK // max(1, int(np.prod(shape[1:]))))


def _check(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


# Making the file


class Packing:
    """A file of packed images that a process is writing. Only one process writes it at a time, see `open_packing`."""

    def __init__(self, folder: Path, name: str, count: int, shape: Shape) -> None:
        """Open or create the partial file, and find the blocks that an earlier process completed.

        Args:
            folder: the folder of `--cache`.
            name: the name of the partial file. It depends on the image files, so another process can continue the file.
            count: n, the number of images.
            shape: the shape of the array of an image.
        """
        self._path, self._journal = folder / f"{name}.partial", folder / f"{name}.partial.json"
        self._shape = (count, *shape)
        self.rows = _count_block_rows(self._shape)  # images in a block
        self._file = open(self._path, "a+b", buffering=0)
        os.set_inheritable(self._file.fileno(), False)
        self._checksums = self._find_complete()
        self._file.truncate(self.done * int(np.prod(shape)))
        self._synced = time.monotonic()

    @property
    def done(self) -> int:
        """The number of images that are complete."""
        return min(self._shape[0], len(self._checksums) * self.rows)

    def refuse_full_disk(self) -> None:
        """Check that the disk has room for the images that are still missing.

        Raises:
            DataError: if there is not enough room.
        """
        needed = (self._shape[0] - self.done) * int(np.prod(self._shape[1:])) + 64 * self._shape[0]
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise DataError(
                f"Packing the images needs {needed / GIB:.2f} GiB in {self._path.parent}, which has "
                f"{free / GIB:.2f} GiB free. Free some space, use another --cache or a smaller --stored-side."
            )

    def add(self, block: np.ndarray) -> None:
        """Append the images (m, H, W, C) of the next block."""
        view = block.data.cast("B")
        while view:
            view = view[self._file.write(view) :]
        self._checksums.append(_check(block.data).hex())
        if time.monotonic() - self._synced > SYNCED_EVERY:
            self.sync()

    def sync(self) -> None:
        """Write all blocks to the disk, and then a note that these blocks are complete."""
        os.fsync(self._file.fileno())
        text = json.dumps(self._checksums).encode()
        write_atomically(self._journal, lambda file: file.write(text))
        self._synced = time.monotonic()

    def finish(self, key: str, sizes: np.ndarray) -> None:
        """Write the description of the images, and give the complete file its final name.

        Args:
            key: see `make_key`.
            sizes: (n, 2) int32, the height and width of each image inside its array.
        """
        count, *shape = self._shape
        notes = {"count": count, "shape": shape, "blocks": self._checksums, "rules": PIXEL_RULES}
        text = sizes.astype("<i4").tobytes() + json.dumps(notes).encode()
        self._file.write(text + _check(text) + _MAGIC + len(text).to_bytes(8, "little"))
        os.fsync(self._file.fileno())
        os.replace(self._path, self._path.parent / f"{key}.pixels")
        self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _find_complete(self) -> list[str]:
        """Return the checksums of the blocks that an earlier process completed, up to the first damaged block."""
        try:
            checksums = json.loads(read_regular_file(self._journal, _LARGEST_NOTES, "_LARGEST_NOTES"))
        except (OSError, ValueError):
            return []
        self._file.seek(0)
        size = self.rows * int(np.prod(self._shape[1:]))
        total = int(np.prod(self._shape))
        for block, checksum in enumerate(checksums):
            content = self._file.read(min(size, total - block * size))
            if _check(content).hex() != checksum:
                return checksums[:block]
        return checksums


@contextlib.contextmanager
def open_packing(
    folder: Path, name: str, count: int, shape: Shape, tell: Callable[[str], object] = print
) -> Iterator[Packing]:
    """Yield a file of packed images to write. Only one process writes it at a time, and all others wait.

    If the body of the `with` statement is interrupted, the blocks of images written so far are kept. A later start
    continues the file.

    Args:
        folder: see `Packing`.
        name: see `Packing`.
        count: see `Packing`.
        shape: see `Packing`.
        tell: called with a message if another process is packing the same images.

    Raises:
        DataError: if a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_wait_for_lock(folder / f"{name}.lock", tell)):
            packing = Packing(folder, name, count, shape)
            with contextlib.closing(packing):
                try:
                    yield packing
                except BaseException:
                    packing.sync()
                    raise
    except OSError as error:
        raise DataError(
            f"Cannot pack the images in {folder}: {error.strerror or error}. Free some space there, or use another "
            "folder with --cache. Then run the same command again to continue."
        ) from error


def _wait_for_lock(path: Path, tell: Callable[[str], object]) -> BinaryIO:
    try:
        return lock_file(path, wait=False)
    except BlockingIOError:
        tell("Waiting for another process that packs the same images.")
        return lock_file(path, wait=True)
