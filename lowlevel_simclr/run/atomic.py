"""Files that are whole or not there, locks, and errors of the file system as messages."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class RunError(RuntimeError):
    """A run folder that cannot be used; the text says why and what to do."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that `path` holds the old bytes or all of the new ones, also after a kill.

    Args:
        path: the file; its folder must exist. `path` + ".tmp" is written first, synced, and renamed.
        write: writes the content into the open file.

    Raises:
        OSError: the disk is full, the folder unwritable and so on; the old file is untouched and nothing else
            is left.
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


def choose_free_name(path: Path, word: str) -> Path:
    """Return a path beside a file that is not there yet: file.word, then file.word-2, and so on."""
    number, place = 1, path.with_name(f"{path.name}.{word}")
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}.{word}-{number}")
    return place


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON, atomically. A number that is not finite raises a ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        RunError: for a file that holds none.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is no JSON ({error}): mend it, or choose another folder") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no JSON object and so is not of a run: choose another folder")
    return value


def lock_file(path: Path, wait: bool) -> BinaryIO:
    """An exclusive lock on a file, held until the returned file is closed or the process ends or is killed.

    Raises:
        BlockingIOError: another process holds it and `wait` is false.
    """
    file = open(path, "a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def explain_os_errors(what: str, folder: Path) -> Iterator[None]:
    """Turns an error of the file system into a `RunError` that says what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space and run the same command again"
        else:
            remedy = "see that it can be written, or choose another folder with --out"
        raise RunError(f"cannot {what} {folder}: {error.strerror or error}; {remedy}") from error
