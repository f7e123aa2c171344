"""Reads files safely: no file can block the program or fill its memory. Writes a file completely or not at all.

The name of a file does not tell what the file is. A FIFO may never end, /dev/zero has no end, and a sparse file of 200
GiB takes no room on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lowlevel_simclr.runtime.file_lock import lock_open_file

LARGEST_TEXT = 2**30  # bytes of a text file that is read whole; metrics.jsonl of a million steps has 0.2 GB
_PIECE = 2**16  # bytes per read of a file that has more bytes than the file system states
# Without O_NONBLOCK, opening a FIFO (a named pipe) would wait for a writer. For a regular file, the flag changes
# nothing. Windows has neither FIFOs in folders nor this flag. But without O_BINARY, Windows changes line breaks.
if sys.platform == "win32":
    _READ = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
else:
    _READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text. Its numbers must be finite.

    Python's own reader accepts NaN and Infinity, which are not JSON, and reads 1e999 as infinity. Such a number could
    not be written again.

    Raises:
        ValueError: if the text is not JSON, or a number in it is not finite.
        RecursionError: if it is nested too deeply.
    """
    return json.loads(content, parse_float=_parse_finite, parse_constant=_parse_finite)


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is not finite")
    return value


@contextlib.contextmanager
def open_regular_file(path: Path, limit: int, limit_name: str) -> Iterator[BinaryIO]:
    """Open a regular file that is not too large.

    Args:
        path: the file. Links are followed.
        limit: the largest size, in bytes.
        limit_name: the name of that limit, for the message.

    Yields:
        The file, open for reading bytes.

    Raises:
        OSError: if the file cannot be opened, is not a regular file, or is too large. `strerror` says which.
    """
    with os.fdopen(os.open(path, _READ), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        if status.st_size > limit:
            raise OSError(
                errno.EFBIG, f"it has {status.st_size} bytes, more than {limit_name} ({limit} bytes)", str(path)
            )
        yield file


def read_regular_file(path: Path, limit: int, limit_name: str) -> bytes:
    """Return the bytes of a regular file that is not too large.

    Args:
        path: the file. Links are followed.
        limit: the largest number of bytes.
        limit_name: the name of that limit, for the message.

    Raises:
        OSError: see `open_regular_file`. The error is also raised if the file turns out to have more bytes than the
            limit, although the file system states fewer. This happens with files in /proc.
    """
    with open_regular_file(path, limit, limit_name) as file:
        content = file.read(os.fstat(file.fileno()).st_size)
        while more := file.read(_PIECE):
            content += more
            if len(content) > limit:
                raise OSError(errno.EFBIG, f"it has more bytes than {limit_name} ({limit} bytes)", str(path))
    return content


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` holds either all old bytes or all new ones, even if the process is killed.

    The bytes are written to `path` + ".tmp", synced to the disk, and renamed.

    Args:
        path: the file. Its folder must exist.
        write: function that writes the content into the open file.

    Raises:
        OSError: if the file cannot be written, for example because the disk is full. The old file is then unchanged,
            and the new one is removed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that a rename in it survives a power cut. Windows cannot open a folder for this."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_file(path: Path, wait: bool) -> BinaryIO:
    """Lock a file exclusively.

    The lock is held until the returned file is closed, or until the process ends or is killed.

    Args:
        path: the file. It is created if it does not exist.
        wait: whether to wait while another process holds the lock.

    Returns:
        The open file.

    Raises:
        BlockingIOError: if another process holds the lock and `wait` is False.
    """
    file = open(path, "a+b")
    try:
        lock_open_file(file, wait)
    except BaseException:
        file.close()
        raise
    return file


def find_user_cache() -> Path | None:
    """Return this package's folder in the user's cache folder, or None if the user has no home folder.

    It is `$XDG_CACHE_HOME/lowlevel_simclr`, or `~/.cache/lowlevel_simclr` without that variable. It may not exist yet.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "lowlevel_simclr"
    except RuntimeError:  # pathlib finds no home folder
        return None
