"""Tests TFRecord files as data sets: the usual keys of images and labels, train and test files, and damaged files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import tfrecord
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataError, DataSet
from lowlevel_simclr.data.tfrecord import IMAGE_KEYS, LABEL_KEYS, name_labels
from tests.support.record_files import (
    cut_record,
    encode_picture,
    make_example,
    write_pictures_as_records,
    write_records,
)


def load(path: Path | str, **options: Any) -> DataSet:
    return load_dataset(f"tfrecord:{path}", **options)


def numbers(images: Any) -> list[int]:
    return [int(number) for number in np.asarray(images)[:, 0, 0, 0]]


def find_labels(images: DataSet) -> dict[int, int]:
    """Return the label of each picture, as a dict from the picture's number to its label."""
    splits = images.train, images.test
    return {number: int(label) for split in splits for number, label in zip(numbers(split.images), split.labels)}


def write_set(root: Path) -> Path:
    """Write two files of training images and one file of test images, with names like those of ImageNet's files."""
    for part in range(2):
        write_pictures_as_records(root / f"train-0000{part}-of-00002", range(8 * part, 8 * part + 8))
    write_pictures_as_records(root / "validation-00000-of-00001", range(100, 106))
    (root / "notes.txt").write_text("no records")
    return root


@pytest.mark.parametrize("memory_limit", [4.0, 0.0])
def test_files_are_read_in_order_with_splits_labels_and_names(tmp_path: Path, memory_limit: float) -> None:
    images = load(write_set(tmp_path), memory_limit=memory_limit)
    assert numbers(images.train.images) == [*range(16)] and numbers(images.test.images) == [*range(100, 106)]
    assert images.classes == ("cat", "dog") and images.train.labels.tolist() == [0, 1] * 8
    assert images.record["splits"] == {"train": ["2 train files"], "test": ["1 validation file"], "unused": []}


def test_a_file_a_pattern_and_a_folder_without_splits_hold_out_a_tenth(tmp_path: Path) -> None:
    write_set(tmp_path)
    for path, splits, count in (("train-00000-of-00002", "auto", 8), ("train-*", "auto", 16), (".", "none", 22)):
        images = load(path, data_dir=str(tmp_path), splits=splits)
        found = numbers(images.train.images) + numbers(images.test.images)
        assert len(found) == count == len(set(found)) and len(images.test.images) == round(count / 10)


@pytest.mark.parametrize("key", [key for key in IMAGE_KEYS if key not in ("jpg", "webp")])
@pytest.mark.parametrize("label_key", LABEL_KEYS[:2])
def test_the_usual_keys_are_found(tmp_path: Path, key: str, label_key: str) -> None:
    records = [
        make_example(**{key: encode_picture(number), label_key: number % 2, "height": 16}) for number in range(12)
    ]
    images = load(write_records(tmp_path / "a.tfrecord", records))
    labels = [number % 2 for number in numbers(images.train.images)]
    assert len(labels) == 11 and images.train.labels.tolist() == labels and images.classes == ("0", "1")


def test_labels_may_be_texts_ids_or_missing(tmp_path: Path) -> None:
    given: list[int | bytes | list[int]] = [47219, 3, -1, [], [1, 2], 3]
    write_records(
        tmp_path / "ids.tfrecord", [make_example(image=encode_picture(n), label=label) for n, label in enumerate(given)]
    )
    images = load(tmp_path / "ids.tfrecord")
    found = find_labels(images)
    assert images.classes == ("3", "47219") and found == {0: 1, 1: 0, 2: -1, 3: -1, 4: -1, 5: 0}
    texts = [make_example(image=encode_picture(n), label=text) for n, text in enumerate([b"dog", b"cat", b"", b"dog"])]
    images = load(write_records(tmp_path / "texts.tfrecord", texts))
    found = find_labels(images)
    assert images.classes == ("cat", "dog") and found == {0: 1, 1: 0, 2: -1, 3: 1}


def test_numbers_get_names_only_if_each_has_its_own() -> None:
    assert name_labels([2, 1, -1], ["dog", "cat", ""]) == ["dog", "cat", None]
    assert name_labels([2, 1], ["dog", ""]) == [2, 1]
    assert name_labels([2, 2], ["dog", "cat"]) == [2, 2]
    assert name_labels([1, 2], ["cat", "cat"]) == [1, 2]
    assert name_labels([None, "a"], ["dog", ""]) == ["dog", "a"]


def test_what_cannot_be_decoded_is_named_by_its_record_and_shifts_nothing(tmp_path: Path) -> None:
    records = [make_example(image=encode_picture(number), label=number % 2) for number in range(12)]
    records[3] = make_example(image=encode_picture(3)[:60], label=1)
    records[5] = make_example(image=b"text", label=1)
    records[6] = make_example(label=1)
    records[7] = b"\xff no example"
    records[8] = make_example(image=encode_picture(8, side=4), label=0)
    images = load(write_records(tmp_path / "a.tfrecord", records))
    reasons = {entry["path"]: entry["reason"] for entry in images.record["skipped"]}
    assert sorted(reasons) == [f"a.tfrecord#{number}" for number in (3, 5, 6, 7, 8)]
    assert reasons["a.tfrecord#6"] == "empty file" and "smaller than 8" in reasons["a.tfrecord#8"]
    assert reasons["a.tfrecord#5"].startswith("no JPEG, PNG")
    assert sorted(numbers(images.train.images) + numbers(images.test.images)) == [0, 1, 2, 4, 9, 10, 11]


def test_a_damaged_file_gives_the_records_before_the_damage_and_is_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    cut_record(tmp_path / "train-00000-of-00002", 5)
    (tmp_path / "train-00001-of-00002").write_bytes(b"no records at all")
    images = load(tmp_path)
    assert numbers(images.train.images) == [0, 1, 2, 3, 4]
    assert images.record["left_out"] == [
        {"path": "train-00000-of-00002", "reason": "is damaged after 5 records"},
        {"path": "train-00001-of-00002", "reason": "is not a TFRecord file, or is damaged"},
    ]


def test_files_without_images_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none does not exist. Use --dataset tfrecord:PATH"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="has no files of the form tfrecord"):
        load(tmp_path)
    write_records(tmp_path / "a.tfrecord", [make_example(pixels=b"1234", height=2)])
    with pytest.raises(
        DataError, match="a.tfrecord#0 has the features height, pixels, and no encoded image.*image/enc"
    ):
        load(tmp_path)
    (tmp_path / "a.tfrecord").write_bytes(gzip.compress(b"0" * 99))
    with pytest.raises(DataError, match=r"a.tfrecord is compressed \(gzip\)"):
        load(tmp_path)
    (tmp_path / "a.tfrecord").unlink()
    os.mkfifo(tmp_path / "a.tfrecord")
    with pytest.raises(DataError, match="has no images. 1 file was left out: a.tfrecord: is not a regular file"):
        load(tmp_path)


def test_a_resumed_run_refuses_other_images_and_other_labels(tmp_path: Path) -> None:
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(12))
    before = load(path).record
    assert load(path, before=before).record == before
    write_records(path, [make_example(image=encode_picture(n), label=n % 3) for n in range(12)])
    with pytest.raises(DataError, match="The images, splits or labels in .*a.tfrecord have changed since this run"):
        load(path, before=before)
    write_pictures_as_records(path, [*range(11), 99])
    with pytest.raises(DataError, match="The images, splits or labels in .*a.tfrecord have changed since this run"):
        load(path, before=before)


def test_a_file_that_is_cut_while_it_is_streamed_is_named(tmp_path: Path) -> None:
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(12))
    images = load(path, memory_limit=0)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="a.tfrecord#.* can no longer be read .*the file is shorter than it was"):
        images.train.images[np.arange(2)]


def test_files_are_searched_once_while_they_stay_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test the start of a training, which lists the images twice: to choose its settings, and to train.

    It must search the files for records only once.
    """
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(12))
    opened = []
    monkeypatch.setattr(tfrecord, "track", lambda parts, *others: opened.append(parts) or parts)
    first, again = load(path), load(path)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert len(opened) == 1
    write_pictures_as_records(path, range(20, 32))
    assert min(numbers(load(path).train.images)) >= 20 and len(opened) == 2
