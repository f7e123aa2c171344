"""Reads and writes the JSON files of a run folder, and turns file system errors into messages for the user."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.runtime.files import parse_json, read_regular_file, write_atomically

LARGEST_JSON = 2**28  # bytes; data.json has about 100 bytes for each skipped image file


class RunError(OneLineError, RuntimeError):
    """The run folder cannot be used. The message says why and what to do."""


class NotWritten(RunError):
    """A file of the run folder cannot be written or read, for example because the disk is full or write-protected."""


def choose_free_name(path: Path, word: str) -> Path:
    """Return a path beside `path` that does not exist: path.word, then path.word-2, and so on."""
    number, place = 1, path.with_name(f"{path.name}.{word}")
    while place.exists():
        number += 1
        place = path.with_name(f"{path.name}.{word}-{number}")
    return place


def set_aside(path: Path, word: str) -> Path:
    """Rename a file that is damaged or not used, so that nothing overwrites or deletes it.

    Returns:
        The new path, see `choose_free_name`.

    Raises:
        OSError: if the file cannot be renamed.
    """
    place = choose_free_name(path, word)
    os.replace(path, place)
    return place


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
    """The content of a file is not what this package writes.

    The message is the end of a sentence that begins with the name of the file.
    """


def parse_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DamagedFile: if the file cannot be read, is not JSON with finite numbers, or its value is not an object.
    """
    try:
        value = parse_json(read_regular_file(path, LARGEST_JSON, "LARGEST_JSON"))
    except OSError as error:
        raise DamagedFile(f"cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise DamagedFile("is not valid JSON (it is nested too deeply)") from None
    except ValueError as error:
        raise DamagedFile(f"is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DamagedFile("does not contain a JSON object, so it does not belong to a run")
    return value


@contextlib.contextmanager
def explain_os_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a NotWritten that says what to do.

    Args:
        what: the part WHAT of the message "Cannot WHAT FOLDER: ...", such as "write the metrics of".
        folder: the folder that the message names.

    Raises:
        NotWritten: if the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some disk space, then run the same command again."
        elif error.errno == errno.ENOTDIR:
            remedy = "A part of this path is a file. Choose another folder with --out."
        else:
            remedy = "Check its permissions, or choose another folder with --out."
        raise NotWritten(f"Cannot {what} {folder}: {error.strerror or error}. {remedy}") from error
