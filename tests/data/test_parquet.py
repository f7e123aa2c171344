"""Tests Parquet files as data sets: the columns of images and labels, train and test files, and unreadable images.

Hugging Face writes into a Parquet file which columns have images and labels. Files without this are tested too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import parquet
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataError, DataSet
from tests.support.record_files import encode_picture, write_parquet

pa = pytest.importorskip("pyarrow")


def load(path: Path | str, **options: Any) -> DataSet:
    return load_dataset(f"parquet:{path}", **options)


def numbers(images: Any) -> list[int]:
    return [int(number) for number in np.asarray(images)[:, 0, 0, 0]]


@pytest.mark.parametrize("memory_limit", [4.0, 0.0])
def test_a_folder_of_hugging_face_is_read_with_splits_and_names(tmp_path: Path, memory_limit: float) -> None:
    for part in range(2):
        write_parquet(tmp_path / f"data/train-0000{part}-of-00002.parquet", range(20 * part, 20 * part + 20))
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", range(100, 107))
    write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", range(200, 203))
    (tmp_path / "README.md").write_text("text")
    images = load(tmp_path, memory_limit=memory_limit)
    assert numbers(images.train.images) == [*range(40)] and numbers(images.test.images) == [*range(100, 107)]
    assert images.classes == ("cat", "dog") and images.train.labels.tolist() == [0, 1] * 20
    assert images.record["splits"]["unused"] == ["1 validation file"]
    assert images.record["counts"]["outside_splits"] == 3
    rows = np.random.default_rng(0).permutation(40)
    assert numbers(images.train.images[rows]) == rows.tolist()


def test_each_group_of_rows_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test that each group of rows in the file is read once, although training takes the images in random order.

    In an earlier version, the program read a whole group again for almost every image.
    """
    import pyarrow.parquet

    write_parquet(tmp_path / "a.parquet", range(40))  # a group has six images
    read, groups = pyarrow.parquet.ParquetFile.read_row_group, []

    def note(self: Any, number: int, **options: Any) -> Any:
        groups.append(number)
        return read(self, number, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read_row_group", note)
    images = load(tmp_path, memory_limit=0).train.images
    for epoch in range(2):
        rows = np.random.default_rng(epoch).permutation(len(images))
        assert len(numbers(images[rows])) == 36
    assert sorted(groups) == [*range(7)]


def test_columns_need_no_metadata(tmp_path: Path) -> None:
    plain = pa.array([encode_picture(number) for number in range(12)])
    labels = pa.array(["dog", "cat", None] * 4)
    images = load(write_parquet(tmp_path / "a.parquet", range(12), None, image=plain, label=labels))
    found = dict(zip(numbers(images.train.images), images.train.labels.tolist()))
    assert images.classes == ("cat", "dog") and all(found[n] == (1, 0, -1)[n % 3] for n in found) and len(found) == 11
    assert len(images.record["unlabelled"]) == 4
    floats = pa.array([0.0, 5.0, None] * 4)  # pandas writes whole numbers as floats if one of them is missing
    images = load(write_parquet(tmp_path / "a.parquet", range(12), None, label=floats))
    assert images.classes == ("0", "5") and set(images.train.labels.tolist()) == {0, 1, -1}


def test_bad_rows_are_named_and_shift_nothing(tmp_path: Path) -> None:
    rows: list[bytes | None] = [encode_picture(number) for number in range(12)]
    rows[2], rows[5], rows[7] = None, b"", b"text"
    images = load(write_parquet(tmp_path / "a.parquet", range(12), image=pa.array(rows)))
    reasons = {entry["path"]: entry["reason"] for entry in images.record["skipped"]}
    assert sorted(reasons) == ["a.parquet#2", "a.parquet#5", "a.parquet#7"]
    assert reasons["a.parquet#2"] == "has no bytes in the Parquet file" and reasons["a.parquet#5"] == "empty file"
    found = dict(zip(numbers(images.train.images), images.train.labels.tolist()))
    assert all(label == number % 2 for number, label in found.items())


def test_damaged_files_and_files_without_images_are_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", range(12))
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    [left_out] = load(tmp_path).record["left_out"]
    assert left_out["path"] == "b.parquet" and "is not a Parquet file, or is damaged" in left_out["reason"]
    path.unlink()
    with pytest.raises(DataError, match="has no images. 1 file was left out: b.parquet: "):
        load(tmp_path)
    write_parquet(tmp_path / "b.parquet", range(2), None, image=pa.array([1, 2]))
    with pytest.raises(DataError, match="b.parquet has the columns image, label, and none of them holds enc"):
        load(tmp_path)
    write_parquet(tmp_path / "b.parquet", range(2), ["cat"])
    with pytest.raises(DataError, match="has the label 1, but only 1 names of labels"):
        load(tmp_path)
    write_parquet(path, range(12))
    with pytest.raises(DataError, match="have different names of labels"):
        load(tmp_path)


def test_a_group_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", range(12))
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 1000)
    with pytest.raises(DataError, match=r"row group of \d+ bytes, more than LARGEST_GROUP \(1000 bytes\)"):
        load(path)


def test_a_resumed_run_refuses_other_labels(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", range(12))
    before = load(path).record
    assert load(path, before=before).record == before
    write_parquet(path, range(12), label=pa.array([0] * 11 + [1]))
    with pytest.raises(DataError, match="The images, splits or labels in .* have changed since this run began"):
        load(path, before=before)


def test_without_the_package_one_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match="pyarrow, which is not installed. Install it with: pip install pyarrow$"):
        load(tmp_path)
