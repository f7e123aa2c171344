"""Files that are read whole, with a limit: a FIFO, a device or a file without end must not stop a program."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_TEXT = 2**30  # bytes of a text file that is read whole. metrics.jsonl of a million steps has 0.2 GB.


def read_regular_file(path: Path, at_most: int = LARGEST_TEXT) -> bytes:
    """Return the content of a regular file, or of a link to one.

    Args:
        path: the file.
        at_most: the largest size in bytes.

    Raises:
        OSError: if the file cannot be read, is not a regular file, or is larger than `at_most`.
    """
    # Opening a FIFO to read it waits for a writer, unless it is opened without waiting.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "It is a folder, not a file", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "It is not a regular file", str(path))
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise OSError(errno.EFBIG, f"It is larger than {at_most} bytes", str(path))
    return data
