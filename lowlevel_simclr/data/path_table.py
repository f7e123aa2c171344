"""Reads a table of image paths with their labels (`--labels FILE`) or their splits (`--split FILE`).

The file is CSV text in UTF-8. Its delimiter is a comma, a tab or a semicolon. It may have a byte order mark and CRLF.
With a header, the columns are found by their names, so one file may have both labels and splits. Without a header there
are two columns: the path, and the label or the split.
"""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.config.names import format_none
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.image_walk import ENDINGS
from lowlevel_simclr.runtime.files import LARGEST_TEXT, read_regular_file

DELIMITERS = (",", "\t", ";")  # a table uses the first of these that its first line contains
PATH_COLUMNS = frozenset("path file filename file_name filepath file_path image image_path img name".split())
VALUE_COLUMNS = {  # accepted names of the column of labels, and of the column of splits
    "label": frozenset("label labels class class_name category target".split()),
    "split": frozenset("split set subset partition".split()),
}


class Entry(NamedTuple):
    """A line of a table."""

    line: int  # from 1
    path: str
    value: str  # a label or a split, or an empty text


class Matched(NamedTuple):
    """The entries of a table, matched with the images of a data set."""

    values: Mapping[str, Entry]  # by the path of the image
    unknown: Mapping[str, str]  # from path to reason, for entries whose image is not in the data set


def read_lines(file: Path, flag: str) -> str:
    """Return the text of a file that a flag of the command line names, without a byte order mark.

    Bytes that are not UTF-8 can be part of a path. The text keeps them as surrogate characters, as Python's file
    functions do.

    Raises:
        DataError: if the file cannot be read, is too large, or is not text.
    """
    try:
        content = read_regular_file(file, LARGEST_TEXT, "LARGEST_TEXT")
    except OSError as error:
        raise DataError(f"{flag} {file} cannot be read: {error.strerror}. Give the path of a text file.") from None
    if b"\0" in content:
        raise DataError(f"{flag} {file} is not text in UTF-8: it contains a zero byte. Save it as UTF-8.")
    return content.decode("utf-8-sig", "surrogateescape")


def read_table(file: Path, column: str) -> list[Entry]:
    """Return the lines of a table.

    Args:
        file: the CSV file.
        column: the column to read besides the path, "label" or "split".

    Raises:
        DataError: if the file cannot be read, if its columns cannot be recognised, or if a line has too few columns.
    """
    flag = {"label": "--labels", "split": "--split"}[column]
    text = read_lines(file, flag)
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in DELIMITERS if mark in first), DELIMITERS[0])
    lines = _split_lines(file, flag, text, delimiter)
    number, cells = next(lines, (0, []))
    if not cells:
        raise DataError(f"{flag} {file} is empty. Each line needs a path and a {column}.")
    places = _find_columns(cells, column)
    if places is None:
        raise DataError(
            f"{flag} {file} begins with the columns {', '.join(cells)}. Give it a header that names the columns path "
            f"and {column}, or only these two columns."
        )
    entries = [] if _is_header(cells, column) else [_take_entry(file, flag, number, cells, places)]
    return entries + [_take_entry(file, flag, number, cells, places) for number, cells in lines]


def _split_lines(file: Path, flag: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{flag} {file} is not CSV in line {reader.line_num}: {error}. Repair that line.") from None
        if any(cells):
            yield reader.line_num, cells


def _is_header(cells: Sequence[str], column: str) -> bool:
    """Return whether the first line is a header. A line that contains the name of an image file is not a header."""
    known = PATH_COLUMNS | VALUE_COLUMNS[column]
    images = any(os.path.splitext(cell)[1].lower() in ENDINGS for cell in cells)
    return not images and any(cell.lower() in known for cell in cells)


def _find_columns(cells: Sequence[str], column: str) -> tuple[int, int] | None:
    """Return the numbers of the columns of the path and of the value, or None if they cannot be found."""
    if not _is_header(cells, column):
        return (0, 1) if len(cells) == 2 else None
    names = [cell.lower() for cell in cells]
    values = [place for place, name in enumerate(names) if name in VALUE_COLUMNS[column]]
    paths = [place for place, name in enumerate(names) if name in PATH_COLUMNS]
    if len(names) == 2 and len(values) + len(paths) == 1:  # one name is known, so the other column is the other kind
        values, paths = values or [1 - paths[0]], paths or [1 - values[0]]
    return (paths[0], values[0]) if len(values) == len(paths) == 1 else None


def _take_entry(file: Path, flag: str, line: int, cells: Sequence[str], places: tuple[int, int]) -> Entry:
    """Return the entry of one line.

    Raises:
        DataError: if the line is too short, or has no path.
    """
    if len(cells) <= max(places):
        raise DataError(
            f"{flag} {file} has {len(cells)} column{'s' * (len(cells) != 1)} in line {line} ({cells[0]}), but it needs "
            f"{max(places) + 1}. Repair that line."
        )
    path, value = (cells[place] for place in places)
    if not path:
        raise DataError(f"{flag} {file} has no path in line {line} ({value}). Repair that line.")
    return Entry(line, path, value)


def match_entries(file: Path, column: str, entries: Sequence[Entry], root: Path, paths: Sequence[str]) -> Matched:
    """Find the image of every entry.

    Relative paths start either in the data folder or in the folder of the table. The function takes the folder in which
    it finds more images. It also accepts absolute paths, paths with backslashes from Windows, and letters with accents
    in both forms of Unicode (one character, or a letter and an accent).

    Args:
        file: the table.
        column: "label" or "split".
        entries: the lines of the table.
        root: the data folder.
        paths: the paths of the images, relative to the data folder.

    Raises:
        DataError: if no entry names an image of the data set, or if two lines name the same image.
    """
    finder = _Finder(root, paths)
    bases = (os.path.abspath(root), os.path.abspath(file.parent))
    found = max(([finder.find(base, entry.path) for entry in entries] for base in bases), key=_count_found)
    if not _count_found(found):
        raise DataError(
            f"{format_none(len(entries), 'path')} in {file} is an image in {root}. The first is {entries[0].path} in "
            f"line {entries[0].line}. Paths start in the data folder or in the folder of the file."
        )
    values: dict[str, Entry] = {}
    for entry, path in zip(entries, found):
        if path is None:
            continue
        if path in values:
            _refuse_twice(file, column, path, values[path], entry)
        values[path] = entry
    reason = f"is named in {file.name}, but is not an image here"
    return Matched(values, {entry.path: reason for entry, path in zip(entries, found) if path is None})


def _count_found(found: Sequence[str | None]) -> int:
    return sum(path is not None for path in found)


def _refuse_twice(file: Path, column: str, path: str, first: Entry, second: Entry) -> None:
    """Raise the error for two lines that name the same image."""
    said = ", ".join(f"{column} {entry.value or 'none'} in line {entry.line}" for entry in (first, second))
    raise DataError(f"{file} names {path} twice: {said}. Keep one of these lines.")


class _Finder:
    """Finds images of a data set by their absolute paths."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        base = os.path.abspath(root)
        self._known = {os.path.normpath(os.path.join(base, path)): path for path in paths}
        self._composed: dict[str, str | None] = {}
        for whole, path in self._known.items():
            key = unicodedata.normalize("NFC", whole)
            self._composed[key] = None if key in self._composed else path  # None: the name fits two images

    def find(self, base: str, name: str) -> str | None:
        """Return the path of the image that a table calls `name`, relative to the folder `base`, or None."""
        for text in (name, name.replace("\\", "/")):
            whole = os.path.normpath(os.path.join(base, text))
            path = self._known.get(whole) or self._composed.get(unicodedata.normalize("NFC", whole))
            if path is not None:
                return path
        return None
