"""Finds the splits and the classes of a folder of images, only from the names of its subfolders.

A folder named train, test, val or similar, in lower or upper case, can be a split or a class. The whole layout decides
which of the two it is. A layout that can be read in two ways raises an error. The split folders may lie in a folder
that contains only them (`images/train/`), or in the folders of the classes (`cat/train/`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from lowlevel_simclr.data.dataset import DataError

KINDS = {  # the names of split folders in lower case, and the split that each stands for
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
GIVE_FLAG = " Give one of these flags."  # the end of the message of TwoReadings
HELD = ("test", "validation")  # the first of these splits that exists is held out; the other one is not used


class TwoReadings(DataError):
    """A folder with the name of a split can also be a class. The message explains both ways to read the layout."""


class Layout(NamedTuple):
    """The splits and the classes of some images, from their folders.

    Attributes:
        train: the images to train on.
        test: the images to hold out. Empty if no folder is a test or validation split.
        classes: a dict from the path of each image to its class, or to an empty text if the image has no class.
        folders: the folders that are splits: {"train": [...], "test": [...], "unused": [...]}. Empty if no folder is a
            split.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: Mapping[str, str]
    folders: Mapping[str, list[str]]


class _Level(NamedTuple):
    """Where the split folders are: how many folders are above them, and whether the folders above are classes."""

    depth: int
    below_classes: bool = False


def find_layout(root: str, paths: Sequence[str], splits: str = "auto") -> Layout:
    """Return the splits and the classes of image files.

    Args:
        root: the name of the folder, for messages.
        paths: the paths of the files relative to the folder, separated by `/`.
        splits: "auto" decides from the whole layout. "none": no folder is a split. "named": every folder with the name
            of a split is a split.

    Raises:
        DataError: if the layout has two readings and `splits` is "auto", or if no image is left to train on.
    """
    folders = {path: path.split("/")[:-1] for path in paths}
    level = None if splits == "none" else _find_level(root, folders, splits)
    if level is None:
        if splits == "named":
            raise DataError(f"--splits is named, but {root} has no folder named train, test or val. Use --splits auto.")
        return Layout(tuple(paths), (), {path: names[-1] if names else "" for path, names in folders.items()}, {})
    return _divide(root, folders, level)


def _find_level(root: str, folders: Mapping[str, list[str]], splits: str) -> _Level | None:
    """Return where the split folders are, or None if no folder is a split."""
    alone = True  # whether there was only one folder at each depth so far
    for depth in range(max((len(names) for names in folders.values()), default=0)):
        names = {each[depth] for each in folders.values() if len(each) > depth}
        kinds = {KINDS[name.lower()] for name in names if name.lower() in KINDS}
        others = {name for name in names if name.lower() not in KINDS}
        if kinds and alone:
            if splits == "auto":
                _refuse_two_readings(root, folders, depth, kinds, others)
            return _Level(depth)
        deep = all(len(each) > depth for each in folders.values())
        if not alone and deep and not others and "train" in kinds and len(kinds) > 1:
            return _Level(depth, below_classes=True)
        alone = alone and len(names) == 1
    return None


def _refuse_two_readings(
    root: str, folders: Mapping[str, list[str]], depth: int, kinds: Collection[str], others: Collection[str]
) -> None:
    """Check that the folders next to the split folders leave only one way to read the layout.

    If there are a train and a test folder, both are splits. Without a train folder, a test folder is a split if its
    subfolders have the same names as the folders next to it.

    Raises:
        TwoReadings: if the split folders can be classes too.
    """
    if not others or ("train" in kinds and len(kinds) > 1):
        return
    named = {each[depth] for each in folders.values() if len(each) > depth} - set(others)
    inner = {"".join(each[depth + 1 : depth + 2]) for each in folders.values() if {*each[depth : depth + 1]} & named}
    if "train" not in kinds and inner <= set(others):
        return
    split, rest = _list_folders(named), _list_folders(others)
    second = f"trains on {split} and ignores {rest}" if "train" in kinds else f"holds out {split} and trains on {rest}"
    classes = ", ".join(sorted([*named, *others]))
    raise TwoReadings(
        f"The folders of {root} have two readings: --splits none takes {classes} for classes, and --splits named "
        f"{second}.{GIVE_FLAG}"
    )


def _list_folders(names: Collection[str]) -> str:
    """Return the names of folders as text. If there are five or more, only the first three are named."""
    shown = [f"{name}/" for name in sorted(names)]
    return ", ".join(shown if len(shown) < 5 else [*shown[:3], f"{len(shown) - 3} others"])


def _divide(root: str, folders: Mapping[str, list[str]], level: _Level) -> Layout:
    """Return the layout of a folder whose split folders are at `level`."""
    depth = level.depth
    kind_of = {path: KINDS.get("".join(names[depth : depth + 1]).lower(), "") for path, names in folders.items()}
    kinds = set(kind_of.values())
    chosen, held = choose_splits(kinds)
    train = tuple(path for path, kind in kind_of.items() if kind == chosen)
    test = tuple(path for path, kind in kind_of.items() if held and kind == held)
    if not train:
        raise DataError(
            f"{root} has images only in {_list_folders({folders[path][depth] for path in folders})}. Put the images to "
            "train on in train/, or use --splits none."
        )
    used = {**dict.fromkeys(train, "train"), **dict.fromkeys(test, "test")}
    named: dict[str, set[str]] = {"train": set(), "test": set(), "unused": set()}
    for path, names in folders.items():
        named[used.get(path, "unused")].add("/".join([*names[: depth + 1], ""]) or "./")
    classes = {path: _find_class(names, level, bool(kind_of[path])) for path, names in folders.items() if path in used}
    return Layout(train, test, classes, {split: sorted(each) for split, each in named.items()})


def find_classes(root: str, paths: Sequence[str], splits: str = "auto") -> list[str]:
    """Return the class of each image file, even of images in a split that training does not use.

    Args:
        root: the name of the folder, for messages.
        paths: the paths of the files relative to the folder, separated by `/`.
        splits: see `find_layout`.

    Raises:
        TwoReadings: if the layout has two readings and `splits` is "auto".
    """
    folders = {path: path.split("/")[:-1] for path in paths}
    level = None if splits == "none" else _find_level(root, folders, splits)
    if level is None:
        return [names[-1] if names else "" for names in folders.values()]
    in_split = ("".join(names[level.depth : level.depth + 1]).lower() in KINDS for names in folders.values())
    return [_find_class(names, level, inside) for names, inside in zip(folders.values(), in_split)]


def choose_splits(kinds: Collection[str]) -> tuple[str, str]:
    """Return the split to train on, and the split to hold out.

    Args:
        kinds: the splits of the images: values of KINDS, and an empty text for images in no split.

    Returns:
        Two texts. The first is "train". If no image is in a train split, it is an empty text, and training uses the
        images that are in no split. The second text is the first entry of HELD that is in `kinds`, or an empty text.
    """
    return "train" if "train" in kinds else "", next((kind for kind in HELD if kind in kinds), "")


def _find_class(names: Sequence[str], level: _Level, in_split: bool) -> str:
    """Return the class of an image from the folders above it, or an empty text if it has no class."""
    inner = names[level.depth + in_split :]
    if not inner and level.below_classes:
        inner = names[: level.depth]
    return inner[-1] if inner else ""
