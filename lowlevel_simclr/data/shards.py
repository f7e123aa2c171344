"""Finds the files of a data set that holds many images in each file, and the split of each file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.folder_layout import KINDS
from lowlevel_simclr.data.image_walk import find_image_files
from lowlevel_simclr.data.path_forms import make_matcher, split_pattern

Named = re.Pattern[str]  # matches the names of files that hold many images


class Shards(NamedTuple):
    """The files of a data set.

    Attributes:
        root: the folder of the files.
        files: the paths of the files, relative to `root` and sorted.
        kinds: the split of each file, "train", "test" or "validation", or an empty text.
    """

    root: Path
    files: tuple[str, ...]
    kinds: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """The path of each file."""
        return [self.root / file for file in self.files]

    def describe_kinds(self) -> dict[str, str]:
        """Return a dict from each split to a text such as "4 train files"."""
        return {
            kind: " ".join(filter(None, [str(self.kinds.count(kind)), kind, "files"])).removesuffix(
                "s" * (self.kinds.count(kind) == 1)
            )
            for kind in sorted(set(self.kinds))
        }


def find_shards(
    form: str, pattern: str, base: Path, named: Named, splits: str = "auto", own: Path | None = None
) -> Shards:
    """Find the files of a data set.

    Args:
        form: "tfrecord:" or "parquet:", for messages.
        pattern: a file, a folder, or a pattern with `*`, `?`, `[...]` and `**`.
        base: the folder in which a relative pattern starts.
        named: if `pattern` is a folder, only files whose names match `named` are taken.
        splits: with "none", no file has a split. Otherwise the words train, test and val in the names give the splits.
        own: the run folder, which is left out.

    Raises:
        DataError: if no file is found.
    """
    path = base / pattern
    if path.is_dir():
        root, matches = path, _make_searcher(named)
    elif os.path.lexists(path):
        return Shards(path.parent, (path.name,), ("",))
    else:
        start, rest = split_pattern(pattern)
        root, matches = base / start, make_matcher(rest or "none")
        if not rest or not root.is_dir():
            raise DataError(f"{path} does not exist. Use --dataset {form}PATH with a file, a folder or a pattern.")
    files = tuple(file for file in find_image_files(root, own).others if matches(file))
    if not files:
        raise DataError(f"{path} has no files of the form {form.rstrip(':')}. Use another path, or a pattern.")
    return Shards(root, files, tuple("" if splits == "none" else find_kind(file) for file in files))


def _make_searcher(named: Named) -> Callable[[str], bool]:
    return lambda file: named.search(file) is not None


def find_kind(file: str) -> str:
    """Return the split that a path names, or an empty text if the path does not name exactly one split.

    Examples:
        >>> find_kind("data/train-00000-of-00002.parquet"), find_kind("cats.tfrecord")
        ('train', '')
    """
    kinds = {KINDS[word] for word in re.split(r"[^a-z]+", file.lower()) if word in KINDS}
    return kinds.pop() if len(kinds) == 1 else ""


def make_names(file: str, count: int) -> Sequence[str]:
    """Return the names of the records in a file."""
    return [f"{file}#{number}" for number in range(count)]
