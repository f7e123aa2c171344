"""Tests data sets whose files contain many images each (TFRecord, Parquet).

Tests which files are found, and which file names mean training images or test images.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lowlevel_simclr.data import parquet, tfrecord
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.shards import find_kind, find_shards
from tests.support.image_files import make_run_folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train-00000-of-00002", "train"),
        ("data/Test-00000-of-00001-3f2a.parquet", "test"),
        ("mnist-validation.tfrecord-00000-of-00001", "validation"),
        ("val/0.tfrecord", "validation"),
        ("trainer.tfrecord", ""),
        ("train-test.tfrecord", ""),
        ("cats.tfrecord", ""),
    ],
)
def test_a_name_says_its_split(name: str, kind: str) -> None:
    assert find_kind(name) == kind


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.tfrecord", True),
        ("a.tfrecords", True),
        ("a.tfrec", True),
        ("a.record", True),
        ("a-train.tfrecord-00000-of-00010", True),
        ("train-00000-of-01024", True),
        ("a.tfrecord.idx", True),
        ("a.parquet", False),
        ("dataset_info.json", False),
    ],
)
def test_files_of_tfrecord_are_known_by_their_names(name: str, found: bool) -> None:
    assert (tfrecord.NAMED.search(name) is not None) is found
    assert (parquet.NAMED.search(name) is not None) is (name == "a.parquet")


def test_a_folder_a_pattern_and_a_file_are_searched(tmp_path: Path) -> None:
    for name in ("a/train-0.tfrecord", "a/b/test-0.tfrecord", "a/.hidden.tfrecord", "a/x.txt", "c/odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (make_run_folder(tmp_path / "a/run") / "x.tfrecord").touch()

    def find(pattern: str, splits: str = "auto") -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = find_shards("tfrecord:", pattern, tmp_path, tfrecord.NAMED, splits)
        return found.files, found.kinds

    assert find("a") == (("b/test-0.tfrecord", "train-0.tfrecord"), ("test", "train"))
    assert find("a", "none")[1] == ("", "")
    assert find("a/tr*") == (("train-0.tfrecord",), ("train",)) and find("**/odd") == (("c/odd",), ("",))
    assert find("c/odd") == (("odd",), ("",))
    for pattern in ("a/*.parquet", "none/*", "none"):
        with pytest.raises(DataError, match="has no files of the form tfrecord|does not exist. Use --dataset tf"):
            find(pattern)
