"""Keeps encoded images in a temporary file, for sources that cannot read a single image quickly."""

from __future__ import annotations

import tempfile
import threading
from typing import IO

import numpy as np

from lowlevel_simclr.data.dataset import DataError

_MISSING, _EMPTY = -1, -2  # stand for the length of an image that was not added, and of an image without bytes


class Unpacked:
    """Encoded images, by their positions. They lie in a file without a name, which disappears when the process ends.

    Several threads may add and read images at the same time. In memory there is only the place of each image in the
    file, 16 bytes.
    """

    def __init__(self, count: int) -> None:
        """Make room for the places of `count` images. The file is made when the first image is added."""
        self._starts, self._lengths = np.zeros(count, np.int64), np.full(count, _MISSING, np.int64)
        self._file: IO[bytes] | None = None
        self._end = 0
        self._lock = threading.Lock()

    def has(self, row: int) -> bool:
        """Return whether an image was added."""
        return bool(self._lengths[row] != _MISSING)

    def add(self, row: int, content: bytes | None) -> None:
        """Add the bytes of an image. If the source has no bytes for this image, pass `content=None`.

        Raises:
            DataError: if the file cannot be written, for example because the disk is full.
        """
        if content is None:
            self._lengths[row] = _EMPTY
            return
        with self._lock:
            try:
                self._write(content)
            except OSError as error:
                raise DataError(
                    f"The images cannot be unpacked in {tempfile.gettempdir()} after {self._end / 2**30:.2f} GiB "
                    f"({error.strerror}). Set TMPDIR to a folder with more room."
                ) from error
            self._starts[row] = self._end
            self._end += len(content)
            self._lengths[row] = len(content)  # last, because other threads read it to see whether the image is there

    def _write(self, content: bytes) -> None:
        """Write bytes at the end of the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lowlevel_simclr-", buffering=0)
        self._file.seek(self._end)
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]

    def read(self, row: int) -> bytes | None:
        """Return the bytes of an image that was added, or None if it was added without bytes."""
        length = int(self._lengths[row])
        if length == _EMPTY or self._file is None:
            return None
        with self._lock:
            self._file.seek(int(self._starts[row]))
            return self._file.read(length)

    def __del__(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
