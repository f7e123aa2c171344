"""Finds the image files that a text file lists (`list:FILE`), or whose paths match a pattern (`glob:PATTERN`)."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.image_walk import FoundFiles, find_image_files
from lowlevel_simclr.data.path_table import read_lines

COMMENT = "#"  # In a list, a line that begins with this character is a comment. Write ./#1.png for the path #1.png.
_MAGIC = re.compile(r"[*?[]")


class FoundPaths(NamedTuple):
    """Image files, and the folder in which their paths start."""

    root: Path
    files: FoundFiles


# list:FILE


def find_listed(file: Path) -> FoundPaths:
    """Return the image files that a text file lists, one path a line.

    A relative path starts in the folder of the list. Blank lines and lines that begin with COMMENT are ignored. No
    image is opened, so a missing file causes an error only later, when it is read.

    Raises:
        DataError: if the list cannot be read, is empty, or names a file twice.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(file, "--dataset list:").split("\n"), 1):
        path = line.strip()
        if not path or path.startswith(COMMENT):
            continue
        path = os.path.normpath(path)
        if path in seen:
            raise DataError(f"{file} lists {path} twice, in lines {seen[path]} and {number}. Keep one of these lines.")
        seen[path] = number
    if not seen:
        raise DataError(f"{file} lists no image. Write one path a line.")
    return FoundPaths(file.parent, FoundFiles(tuple(sorted(seen)), (), {}))


# glob:PATTERN


def find_matching(pattern: str, base: Path, own: Path | None = None) -> FoundPaths:
    """Return the image files whose paths match a pattern with `*`, `?`, `[...]`, or `**` for any number of folders.

    `image_walk.find_image_files` searches the folder before the first `*`, `?` or `[`. The pattern selects from the
    files found.

    Args:
        pattern: the pattern, such as /data/**/*.jpg.
        base: the folder in which a relative pattern starts.
        own: the run folder, which is left out.

    Raises:
        DataError: if the pattern has no `*`, `?` or `[`, or matches no image.
    """
    start, rest = split_pattern(pattern)
    root = base / start
    if not rest:
        raise DataError(f"glob:{pattern} has no *, ? or [. Use --dataset folder:{pattern}, or add /**.")
    if not root.is_dir():
        raise DataError(f"The folder {root} of glob:{pattern} does not exist. Change the pattern.")
    matches, found = make_matcher(rest), find_image_files(root, own)
    images, others = (tuple(filter(matches, paths)) for paths in (found.images, found.others))
    if not images:
        such = f", such as {found.images[0]}" if found.images else ""
        raise DataError(
            f"glob:{pattern} matches none of the {len(found.images)} images in {root}{such}. Change the pattern, and "
            "put it in quotes."
        )
    left_out = {path: reason for path, reason in found.left_out.items() if path.endswith("/") or matches(path)}
    return FoundPaths(root, FoundFiles(images, others, left_out))


def split_pattern(pattern: str) -> tuple[Path, str]:
    """Return the folder before the first `*`, `?` or `[` of a pattern, and the rest of the pattern.

    If a pattern has none of these characters, the rest is empty.

    Examples:
        >>> split_pattern("data/2024/**/*.jpg")
        (PosixPath('data/2024'), '**/*.jpg')
    """
    parts = pattern.split("/")
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    root = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
    return Path(root), "/".join(parts[first:])


def make_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether a relative path matches a pattern.

    Examples:
        >>> matches = make_matcher("**/*.jpg")
        >>> matches("a.jpg"), matches("a/b/c.jpg"), matches("a/b.png")
        (True, True, False)
    """
    wanted = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in pattern.split("/") if part]
    return lambda path: _match_parts(path.split("/"), wanted)


def _match_parts(parts: Sequence[str], wanted: Sequence[re.Pattern[str] | None]) -> bool:
    """Return whether the names in a path match the parts of a pattern. The part None stands for `**`."""
    if not wanted:
        return not parts
    first, *rest = wanted
    if first is None:
        return any(_match_parts(parts[skipped:], rest) for skipped in range(len(parts) + 1))
    return bool(parts) and first.match(parts[0]) is not None and _match_parts(parts[1:], rest)
