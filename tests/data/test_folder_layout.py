"""Tests how the names of folders divide images into training images, test images and classes.

A folder can be a split (train or test) or a class. The names of all folders together decide. If they have two possible
meanings, the error message must name both.
"""

from __future__ import annotations

import pytest

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.folder_layout import Layout, TwoReadings, find_classes, find_layout


def find(*folders: str, splits: str = "auto") -> Layout:
    """Return the splits and classes (layout) of a data set that has one image in each of these folders."""
    return find_layout("B", sorted(f"{folder}/1.png".lstrip("/") for folder in folders), splits)


def name_folders(layout: Layout) -> tuple[str, str]:
    """Return the names of the folders for training, and of the folders for testing."""
    return tuple(" ".join(path.rpartition("/")[0] for path in paths) for paths in (layout.train, layout.test))


@pytest.mark.parametrize(
    ("folders", "train", "test"),
    [
        ("cat dog", "cat dog", ""),
        ("train/a train/b test/a", "train/a train/b", "test/a"),
        ("Train/a Train/b TEST/a", "Train/a Train/b", "TEST/a"),
        ("Train Test", "Train", "Test"),
        ("training/a testing/a", "training/a", "testing/a"),
        ("train/a val/a", "train/a", "val/a"),
        ("train/a valid/a", "train/a", "valid/a"),
        ("train/a Validation/a", "train/a", "Validation/a"),
        ("train/a val/a test/a", "train/a", "test/a"),
        ("images/train/a images/val/a", "images/train/a", "images/val/a"),
        ("x/images/train x/images/test", "x/images/train", "x/images/test"),
        ("train/a test/a extra", "train/a", "test/a"),
        ("train/a train/b", "train/a train/b", ""),
        ("a b test/a test/b", "a b", "test/a test/b"),
        ("a/train a/test b/train b/test", "a/train b/train", "a/test b/test"),
        ("vehicles/train vehicles/bus animals/cat", "animals/cat vehicles/bus vehicles/train", ""),
        ("group1/control group1/test group2/control group2/test", "", ""),
    ],
)
def test_the_whole_layout_decides(folders: str, train: str, test: str) -> None:
    layout = find(*folders.split())
    assert name_folders(layout) == (train or " ".join(sorted(folders.split())), test)


@pytest.mark.parametrize(
    ("folders", "first", "second"),
    [
        ("bus train", "bus, train", "trains on train/ and ignores bus/"),
        ("control test", "control, test", "holds out test/ and trains on control/"),
        ("toys/bus toys/Train", "Train, bus", "trains on Train/ and ignores bus/"),
        ("a b c d e f validation", "a, b, c, d, e, f, validation", "holds out validation/ and trains on a/, b/, c/, 3"),
        ("a test/b", "a, test", "holds out test/ and trains on a/"),
    ],
)
def test_two_readings_are_refused_and_a_flag_settles_them(folders: str, first: str, second: str) -> None:
    with pytest.raises(DataError, match=f"The folders of B have two .* none takes {first} for classes, and .*{second}"):
        find(*folders.split())
    as_classes = find(*folders.split(), splits="none")
    assert not as_classes.test and len(as_classes.train) == len(folders.split())
    as_splits = find(*folders.split(), splits="named")
    assert len(as_splits.train) < len(folders.split()) and as_splits.folders["train"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("train/1.png", ""), ("train/a/1.png", "a"), ("train/a/b/1.png", "b"), ("test/c/1.png", "c")],
)
def test_the_class_is_the_folder_below_the_split(path: str, name: str) -> None:
    assert find_layout("B", ["train/x/0.png", "test/x/0.png", path]).classes[path] == name


def test_a_class_above_the_splits_is_a_class() -> None:
    assert set(find("a/train", "a/test", "b/train", "b/test").classes.values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        ("train/cat/1 test/dog/2 val/cat/3", "cat dog cat"),
        ("cat/train/1 dog/train/2 cat/test/3 dog/val/4", "cat dog cat dog"),
        ("cat/1 dog/2 3", "cat dog -"),
        ("train/1 test/2", "- -"),
    ],
)
def test_every_image_has_its_class_whatever_its_split(paths: str, classes: str) -> None:
    assert find_classes("data", paths.split()) == [name.strip("-") for name in classes.split()]
    used = {path: name for path, name in find_layout("data", paths.split()).classes.items()}
    assert used.items() <= dict(zip(paths.split(), find_classes("data", paths.split()))).items()


def test_classes_of_a_layout_with_two_readings_need_a_flag() -> None:
    paths = ["bus/1", "train/2"]
    with pytest.raises(TwoReadings, match="two readings"):
        find_classes("data", paths)
    assert find_classes("data", paths, "none") == ["bus", "train"]


def test_folders_say_which_split_they_became() -> None:
    assert find("images/Train/a", "images/val/a", "images/extra").folders == {
        "train": ["images/Train/"],
        "test": ["images/val/"],
        "unused": ["images/extra/"],
    }
    assert find("", "train/a", "test/a").folders["unused"] == ["./"]
    assert find("a", "b").folders == {}


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="B has images only in test/, val/. Put the images to train on in train/, or"):
        find("test/a", "val/a")
    with pytest.raises(DataError, match="--splits is named, but B has no folder named train, test or val. Use"):
        find("a", "b", splits="named")
