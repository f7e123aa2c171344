"""Files that are read whole, with a limit: a FIFO, a device or a file without end must not stop a program."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST_TEXT = 2**30  # bytes of a text file that is read whole. metrics.jsonl of a million steps has 0.2 GB.


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading. A FIFO or a device is not opened.

    Args:
        path: the file.

    Raises:
        OSError: if the file cannot be opened, or is not a regular file.
    """
    # Opening a FIFO to read it waits for a writer, unless it is opened without waiting.
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "It is a folder, not a file", str(path))
    raise OSError(errno.EINVAL, "It is not a regular file", str(path))


def read_regular_file(path: Path, at_most: int = LARGEST_TEXT) -> bytes:
    """Return the content of a regular file, or of a link to one.

    Args:
        path: the file.
        at_most: the largest size in bytes.

    Raises:
        OSError: if the file cannot be read, is not a regular file, or is larger than `at_most`.
    """
    with open_regular_file(path) as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise OSError(errno.EFBIG, f"It is larger than {at_most} bytes", str(path))
    return data
