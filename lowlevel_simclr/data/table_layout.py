"""Finds the splits and labels of image files from CSV tables of the user, or from the names of their folders."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lowlevel_simclr.data.dataset import UNLABELLED, DataError
from lowlevel_simclr.data.folder_layout import KINDS, Layout, choose_splits, find_classes, find_layout
from lowlevel_simclr.data.path_table import Matched, match_entries, read_table


@dataclasses.dataclass(frozen=True)
class Tables:
    """The files with the splits and the labels of images.

    Attributes:
        labels: a CSV file of paths and labels. None: the names of the folders are the labels.
        split: a CSV file of paths and splits. None: the names of the folders give the splits.
    """

    labels: Path | None = None
    split: Path | None = None


NO_TABLES = Tables()


class TableLayout(NamedTuple):
    """The splits and classes of images, and the entries of the tables that do not name an image of the data set."""

    layout: Layout
    unknown: Mapping[str, str]  # from path to reason, for these entries


def find_table_layout(root: Path, shown: str, paths: Sequence[str], splits: str, tables: Tables) -> TableLayout:
    """Return the splits and the classes of image files.

    Args:
        root: the folder in which relative paths start.
        shown: the name of the data set, for messages.
        paths: the paths of the images.
        splits: see `folder_layout.find_layout`. If there is a table of splits, no folder is a split.
        tables: the tables.

    Raises:
        DataError: see `folder_layout.find_layout`, `path_table.read_table` and `path_table.match_entries`. It is also
            raised if the name of a split is unknown, or if no image is left to train on.
    """
    layout = find_layout(shown, paths, "none" if tables.split else splits)
    unknown: dict[str, str] = {}
    if tables.split:
        matched = match_entries(tables.split, "split", read_table(tables.split, "split"), root, paths)
        layout, unknown = _divide(tables.split, layout, matched), {**unknown, **matched.unknown}
    if tables.labels:
        matched = _match_labels(tables.labels, root, paths)
        layout = layout._replace(classes=dict(zip(paths, _list_values(matched, paths))))
        unknown = {**unknown, **matched.unknown}
    return TableLayout(layout, unknown)


def find_table_classes(root: Path, shown: str, paths: Sequence[str], splits: str, tables: Tables) -> list[str]:
    """Return the class of each image file, even of images that training does not use, see `find_table_layout`.

    Raises:
        DataError: see `folder_layout.find_classes`, `path_table.read_table` and `path_table.match_entries`.
    """
    if tables.labels:
        return _list_values(_match_labels(tables.labels, root, paths), paths)
    return find_classes(shown, paths, "none" if tables.split else splits)


def _match_labels(file: Path, root: Path, paths: Sequence[str]) -> Matched:
    return match_entries(file, "label", read_table(file, "label"), root, paths)


def _list_values(matched: Matched, paths: Sequence[str]) -> list[str]:
    """Return the value that a table has for each path, or an empty text if it has none."""
    return [matched.values[path].value if path in matched.values else "" for path in paths]


def _divide(file: Path, layout: Layout, matched: Matched) -> Layout:
    """Return the layout, but with the splits of a table.

    Raises:
        DataError: if the name of a split is unknown, or if no image is left to train on.
    """
    for path, entry in matched.values.items():
        if entry.value.lower() not in KINDS:
            raise DataError(
                f"{file} gives {path} the split '{entry.value}' in line {entry.line}. Use train, test or val."
            )
    kind_of = {path: KINDS[entry.value.lower()] for path, entry in matched.values.items()}
    chosen, held = choose_splits(set(kind_of.values()))
    train = tuple(path for path in layout.train if kind_of.get(path, "") == chosen)
    test = tuple(path for path in layout.train if held and kind_of.get(path) == held)
    if not train:
        raise DataError(f"{file} leaves no image to train on. Give some images the split train, or leave them out.")
    used = {chosen, held}
    rest = sorted({kind_of.get(path, "") for path in layout.train} - used)
    folders = {
        "train": [_describe_split(file, chosen)],
        "test": [_describe_split(file, held)] if test else [],
        "unused": [_describe_split(file, kind) for kind in rest],
    }
    return Layout(train, test, layout.classes, folders)


def _describe_split(file: Path, kind: str) -> str:
    return f"the {kind} images of {file.name}" if kind else f"the images that {file.name} does not name"


def sort_labels(names: set[str]) -> tuple[str, ...]:
    """Return the names of classes, sorted as numbers if all are whole numbers, otherwise as text.

    Examples:
        >>> sort_labels({"10", "9"}), sort_labels({"10", "9", "cat"})
        (('9', '10'), ('10', '9', 'cat'))
    """
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def number_names(names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers (n,) int64 for the labels of images, and the names of the classes in order.

    Args:
        names: the label of each image. An empty text means that there is no label. The class number is then UNLABELLED.
    """
    classes = sort_labels({name for name in names if name})
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers.get(name, UNLABELLED) for name in names], np.int64), classes


def hash_labels(train: int, labels: np.ndarray, classes: Sequence[str]) -> str:
    """Return a SHA-256 over the number of training images, the class numbers (n,) and the names of the classes."""
    digest = hashlib.sha256(repr((train, tuple(classes))).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()
