"""Tests images in files that contain many of them (TFRecord, Parquet): labels, and storing of the decoded pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data import image_file, records
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.image_file import UnreadableError
from tests.support.record_files import write_pictures_as_records


def test_labels_with_names_must_have_one() -> None:
    labels, classes = records.number_labels(Path("x"), [1, -1, None, 0], ["cat", "dog"])
    assert labels.tolist() == [1, -1, -1, 0] and classes == ("cat", "dog")
    for wrong in (2, "cat"):
        with pytest.raises(DataError, match=f"x has the label {wrong}, but only 2 names of labels"):
            records.number_labels(Path("x"), [0, wrong], ["cat", "dog"])


def test_numbers_and_texts_may_be_mixed_without_names() -> None:
    labels, classes = records.number_labels(Path("x"), [10, "9", None, "", -3, 10], None)
    assert labels.tolist() == [1, 0, -1, -1, -1, 1] and classes == ("9", "10")


def test_a_stretch_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    slices = records.Slices([tmp_path / "a"], np.array([[0, 2, 3], [0, 8, 5]]), ["a#0", "a#1"])
    assert slices.read(0) == b"234" and slices.name(1) == f"{tmp_path / 'a'}#1" and len(slices) == 2
    with pytest.raises(UnreadableError, match="the file is shorter than it was"):
        slices.read(1)
    monkeypatch.setattr(records, "LARGEST_IMAGE_FILE", 2)
    with pytest.raises(UnreadableError, match=r"has 3 bytes, more than LARGEST_IMAGE_FILE \(2 bytes\)"):
        slices.read(0)


def test_records_are_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(12))
    os.utime(path, (1, 1))
    wanted = load_dataset(f"tfrecord:{path}")
    monkeypatch.setattr("lowlevel_simclr.data.image_index.RECENT", -1e9)  # trust the file, which was just written
    first = load_dataset(f"tfrecord:{path}", cache=str(tmp_path / "cache"))
    monkeypatch.setattr(image_file, "read_pixels", lambda *given: pytest.fail("an image was decoded again"))
    again = load_dataset(f"tfrecord:{path}", cache=str(tmp_path / "cache"), memory_limit=0)
    for images in (first, again):
        np.testing.assert_array_equal(np.asarray(images.train.images), wanted.train.images)
        assert images.record["content"] == wanted.record["content"]
