"""Atomic file writes, locks, and file system errors as messages."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.runtime.file_lock import lock_open_file
from lowlevel_simclr.runtime.files import read_regular_file

LARGEST_JSON = 2**28  # bytes; data.json takes about 100 for each skipped file


class RunError(OneLineError, RuntimeError):
    """The run folder cannot be used. The message says why and what to do."""


class NotWritten(RunError):
    """A file of the run folder cannot be written or read, for example because the disk is full or read-only."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` always holds either the old content or all of the new one, even after a kill.

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


def choose_free_name(path: Path, word: str) -> Path:
    """Return a path beside `path` that does not exist: path.word, then path.word-2, and so on."""
    number, place = 1, path.with_name(f"{path.name}.{word}")
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}.{word}-{number}")
    return place


def set_aside(path: Path, word: str) -> Path:
    """Rename a file that was not used, so that nothing overwrites or deletes it.

    Returns:
        The new path, see `choose_free_name`.

    Raises:
        OSError: if it cannot be renamed.
    """
    place = choose_free_name(path, word)
    os.replace(path, place)
    return place


def _sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that a rename in it survives a power cut. Windows cannot open a folder for this."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON, atomically.

    Raises:
        ValueError: if a number is NaN or infinite.
        OSError: if the file cannot be written.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        RunError: if the file cannot be read, is not JSON, or its value is not an object.
    """
    try:
        return parse_object(path)
    except DamagedFile as error:
        raise RunError(f"{path} {error}. Repair it, or choose another folder.") from None


class DamagedFile(ValueError):
    """A file has other content than this package writes. The message is the end of a sentence about the file."""


def parse_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DamagedFile: if the file cannot be read, is not JSON, or its value is not an object.
    """
    try:
        value = json.loads(read_regular_file(path, LARGEST_JSON, "LARGEST_JSON"))
    except OSError as error:
        raise DamagedFile(f"cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise DamagedFile("is not valid JSON (it is nested too deeply)") from None
    except ValueError as error:
        raise DamagedFile(f"is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DamagedFile("does not contain a JSON object, so it does not belong to a run")
    return value


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


@contextlib.contextmanager
def explain_os_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a NotWritten that says what to do.

    Args:
        what: the verb phrase WHAT in the message "cannot WHAT FOLDER".
        folder: the folder that the message names.

    Raises:
        NotWritten: if the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some disk space, then run the same command again."
        else:
            remedy = "Check its permissions, or choose another folder with --out."
        raise NotWritten(f"Cannot {what} {folder}: {error.strerror or error}. {remedy}") from error
