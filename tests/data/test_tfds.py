"""Tests data sets that TensorFlow Datasets has prepared: their folder, splits, versions and class names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataError, DataSet
from lowlevel_simclr.data.tfds import find_version
from tests.support.record_files import write_tfds

pytest.importorskip("tensorflow_datasets")


def load(name: str, folder: Path | None = None, **options: Any) -> DataSet:
    return load_dataset(f"tfds:{name}", None if folder is None else str(folder), **options)


def numbers(images: Any) -> list[int]:
    return sorted(int(number) for number in np.asarray(images)[:, 0, 0, 0])


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set with 20 training images in three files, 6 test images, and a further split of 2 images."""
    return write_tfds(tmp_path_factory.mktemp("sets"), train=range(20), test=range(100, 106), extra=range(200, 202))


def test_train_is_trained_on_and_test_held_out(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load("pets", sets)
    assert numbers(images.train.images) == [*range(20)] and numbers(images.test.images) == [*range(100, 106)]
    assert images.classes == ("cat", "dog")
    assert all(label == number % 2 for number, label in zip(images.train.images[:, 0, 0, 0], images.train.labels))
    assert images.record["splits"] == {
        "train": ["the split train"],
        "test": ["the split test"],
        "unused": ["the split extra"],
    }
    monkeypatch.setenv("TFDS_DATA_DIR", str(sets))
    for name in ("pets", "pets:1.0.0", str(sets / "pets/1.0.0")):
        np.testing.assert_array_equal(load(name, memory_limit=0).train.images, images.train.images)


@pytest.mark.parametrize(
    ("split", "count"),
    [("test", 6), ("train+test", 26), ("train[:50%]", 10), ("1.0.0:train[5:]", 15), ("train[:3]+extra", 5)],
)
def test_a_split_may_be_given_and_a_tenth_of_it_is_held_out(sets: Path, split: str, count: int) -> None:
    images = load(f"pets:{split}", sets)
    assert len(images.train.images) + len(images.test.images) == count
    assert len(images.test.images) == max(1, round(count / 10))
    if split == "1.0.0:train[5:]":
        assert sorted(numbers(images.train.images) + numbers(images.test.images)) == [*range(5, 20)]


def test_the_newest_version_is_taken_and_configs_are_asked_for(tmp_path: Path) -> None:
    for version in ("9.0.0", "10.0.0", "10.0.0rc"):
        (tmp_path / "pets" / version).mkdir(parents=True)
    for version in ("9.0.0", "10.0.0"):
        (tmp_path / "pets" / version / "dataset_info.json").touch()
    assert find_version(tmp_path, "pets", None).name == "10.0.0"
    assert find_version(tmp_path, "pets", "9.0.0").name == "9.0.0"
    with pytest.raises(DataError, match="no prepared data set pets:1.0.0 in .* \\(it has 10.0.0, 9.0.0\\). Prepare"):
        find_version(tmp_path, "pets", "1.0.0")
    (tmp_path / "voc/2007/4.0.0").mkdir(parents=True)
    (tmp_path / "voc/2007/4.0.0/dataset_info.json").touch()
    assert find_version(tmp_path, "voc", None) == find_version(tmp_path, "voc/2007", None)
    (tmp_path / "voc/2012/4.0.0").mkdir(parents=True)
    (tmp_path / "voc/2012/4.0.0/dataset_info.json").touch()
    with pytest.raises(DataError, match="voc has several configs in .* Use one of voc/2007, voc/2012."):
        find_version(tmp_path, "voc", None)


def test_what_is_not_there_is_refused_and_nothing_is_downloaded(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared data set mnist in .* Prepare it with: tfds build mnist --data"):
        load("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []
    for split in ("valid", "train[:x%]"):
        with pytest.raises(DataError, match="has no split '.*'. Use one of extra, test, train, or leave it out"):
            load(f"pets:{split}", sets)
    with pytest.raises(DataError, match="is not NAME, NAME:SPLIT"):
        load(":x", sets)


def test_other_files_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = write_tfds(tmp_path, train=range(4)) / "pets/1.0.0"
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "array_record"}))
    with pytest.raises(DataError, match="holds array_record files, and only TFRecord.* tfds convert_format"):
        load("pets", tmp_path)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="tensorflow-datasets cannot read .*Prepare the data set again"):
        load("pets", tmp_path)


def test_without_the_package_one_sentence_says_how_to_install_it(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match="not installed. Install it with: pip install tensorflow-datasets$"):
        load("pets", sets)
