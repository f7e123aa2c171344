"""Tests data sets whose labels or splits (training and test images) come from a user's CSV file (--labels, --split).

The CSV file replaces the names of the folders. A training that resumes must notice if the content of the file changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataError, DataSet
from lowlevel_simclr.data.table_layout import hash_labels, sort_labels
from tests.support.image_files import make_names, write_pictures


def load(root: Path, **options: Any) -> DataSet:
    return load_dataset(f"folder:{root}", **options)


def numbers(images: Any) -> list[int]:
    return [int(number) for number in np.asarray(images)[:, 0, 0, 0]]


def write_table(file: Path, lines: dict[str, str]) -> str:
    """Write a CSV file with a value for each path, and return its own path."""
    file.write_text("".join(f"{path},{value}\n" for path, value in lines.items()))
    return str(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a folder of 20 pictures without subfolders."""
    return write_pictures(tmp_path / "pictures", *(f"{number:02d}.png" for number in range(20)))


def test_labels_come_from_the_table_and_the_rest_has_none(root: Path) -> None:
    given = {f"{number:02d}.png": str(number % 3 + 9) for number in range(15)}
    file = write_table(root / "labels.csv", {**given, "16.png": "", "gone.png": "9"})
    record = (images := load(root, labels=file)).record
    assert images.classes == ("9", "10", "11")
    for split in (images.train, images.test):
        assert [n % 3 if n < 15 else -1 for n in numbers(split.images)] == split.labels.tolist()
    assert sorted(record["unlabelled"]) == [f"{number}.png" for number in range(15, 20)]
    assert record["left_out"] == [{"path": "gone.png", "reason": "is named in labels.csv, but is not an image here"}]


def test_the_table_wins_over_the_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path, *make_names("train/x", 4), *make_names("test/x", 4))
    lines = {path: "ab"[place % 2] for place, path in enumerate([*make_names("train/x", 4), *make_names("test/x", 4)])}
    images = load(tmp_path, labels=write_table(tmp_path / "t.csv", lines))
    assert images.classes == ("a", "b") and images.train.labels.tolist() == [0, 1, 0, 1] == images.test.labels.tolist()
    swapped = {path: "test" if path.startswith("train") else "train" for path in lines}
    images = load(tmp_path, split=write_table(tmp_path / "s.csv", swapped))
    assert numbers(images.train.images) == [4, 5, 6, 7] and numbers(images.test.images) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="s.csv leaves no image to train on"):
        load(tmp_path, split=write_table(tmp_path / "s.csv", dict.fromkeys(lines, "test")))


def test_splits_come_from_the_table_and_the_rest_is_counted(root: Path) -> None:
    words = ["train"] * 8 + ["Test"] * 4 + ["val"] * 3
    file = write_table(root / "s.csv", {f"{n:02d}.png": word for n, word in enumerate(words)})
    images = load(root, split=file)
    assert numbers(images.train.images) == [*range(8)] and numbers(images.test.images) == [8, 9, 10, 11]
    assert images.record["counts"]["outside_splits"] == 8
    assert images.record["splits"] == {
        "train": ["the train images of s.csv"],
        "test": ["the test images of s.csv"],
        "unused": ["the images that s.csv does not name", "the validation images of s.csv"],
    }


def test_a_table_of_one_split_leaves_the_other_to_the_rest(root: Path) -> None:
    held = load(root, split=write_table(root / "s.csv", {"03.png": "test", "05.png": "test"}))
    assert numbers(held.test.images) == [3, 5] and len(held.train.images) == 18
    only = load(root, split=write_table(root / "s.csv", {f"{n:02d}.png": "train" for n in range(10)}))
    assert sorted(numbers(only.train.images) + numbers(only.test.images)) == [*range(10)]
    assert len(only.test.images) == 1


def test_one_file_gives_both(root: Path) -> None:
    lines = [f"{n:02d}.png,{'train' if n < 15 else 'test'},{'ab'[n % 2]}\n" for n in range(20)]
    (root / "both.csv").write_text("path,split,label\n" + "".join(lines))
    images = load(root, split=str(root / "both.csv"), labels=str(root / "both.csv"))
    assert (len(images.train.images), len(images.test.images), images.classes) == (15, 5, ("a", "b"))


def test_unknown_splits_and_an_image_in_both_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match="gives 01.png the split 'foo' in line 2. Use train, test or val"):
        load(root, split=write_table(root / "s.csv", {"00.png": "train", "01.png": "foo"}))
    (root / "s.csv").write_text("00.png,train\n00.png,test\n")
    with pytest.raises(DataError, match="00.png twice: split train in line 1, split test in line 2"):
        load(root, split=str(root / "s.csv"))


@pytest.mark.parametrize("flag", ["labels", "split"])
def test_a_resumed_run_notices_another_table(root: Path, flag: str) -> None:
    words = ["train", "test"] if flag == "split" else ["cat", "dog"]
    given = {f"{n:02d}.png": words[n % 2] for n in range(20)}
    file = write_table(root / "t.csv", given)
    before = load(root, **{flag: file}).record
    moved = write_table(root.parent / "moved.csv", {f"pictures/{path}": word for path, word in given.items()})
    again = load(root, before=before, **{flag: moved}).record  # the same content at another path
    assert again["tables"] == before["tables"] and again["content"] == before["content"]
    for other in ({**given, "03.png": words[0]}, {**given, "03.png": words[0], "04.png": words[1]}):
        with pytest.raises(DataError, match="The images, splits or labels in .*pictures have changed since this run"):
            load(root, before=before, **{flag: write_table(root / "t.csv", other)})
    with pytest.raises(DataError, match="The images, splits or labels in .* have changed"):
        load(root, before=before)
    with pytest.raises(DataError, match="The images, splits or labels in .* have changed"):
        load(root, before=load(root).record, **{flag: moved})


def test_a_run_of_an_older_version_resumes(root: Path) -> None:
    record = load(root).record
    before = {name: value for name, value in record.items() if name != "tables"}
    assert load(root, before=before).record == record


def test_class_names_are_sorted_as_numbers_only_if_all_are() -> None:
    assert sort_labels({"10", "9", "009"}) == ("009", "9", "10")
    assert sort_labels({"10", "9", "x"}) == ("10", "9", "x")
    assert sort_labels({"²", "1"}) == ("1", "²")


def test_the_hash_covers_splits_labels_and_names() -> None:
    labels = np.array([0, 1, 0])
    hashes = {
        hash_labels(2, labels, ("a", "b")),
        hash_labels(1, labels, ("a", "b")),
        hash_labels(2, labels[::-1] * 2, ("a", "b")),
        hash_labels(2, labels, ("a", "c")),
    }
    assert len(hashes) == 4
