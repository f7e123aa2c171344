"""Locks an open file exclusively, so that only one process at a time holds the lock, on every operating system."""

from __future__ import annotations

import os
import sys
import time
from typing import BinaryIO

POLL = 0.1  # seconds between two attempts on Windows, where a lock call itself waits only ten seconds
# On Windows, no other process can read a byte that is locked. So this byte lies far behind the end of any file.
LOCKED_BYTE = 2**40


def lock_open_file(file: BinaryIO, wait: bool) -> None:
    """Lock an open file exclusively. The lock is held until the file is closed, or the process ends or is killed.

    Args:
        file: the file, open for writing. Its position stays the same.
        wait: whether to wait while another process holds the lock.

    Raises:
        BlockingIOError: if another process holds the lock and `wait` is False.
    """
    if sys.platform == "win32":
        _lock_on_windows(file, wait)
    else:
        import fcntl  # here, because Windows does not have it

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_on_windows(file: BinaryIO, wait: bool) -> None:
    if sys.platform == "win32":  # for type checkers
        import msvcrt

        before = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        try:
            while True:
                os.lseek(file.fileno(), LOCKED_BYTE, os.SEEK_SET)
                try:
                    return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                except PermissionError as error:
                    if not wait:
                        raise BlockingIOError(error.errno, "Another process holds the lock") from error
                time.sleep(POLL)
        finally:
            os.lseek(file.fileno(), before, os.SEEK_SET)
