"""Tests that the programs `train` and `embed` find the same images if they get the same data set.

A data set can be a folder, a list of files, a table of labels, or a file that contains many images.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.picture_forms import Request, find_pictures, list_pictures
from tests.support.image_files import make_names, write_pictures
from tests.support.record_files import write_pictures_as_records


def test_embedding_finds_the_images_that_training_lists(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", *make_names("train/a", 4), *make_names("test/a", 3))
    (tmp_path / "list.txt").write_text("\n".join(f"data/{name}" for name in make_names("train/a", 4)))
    write_pictures_as_records(tmp_path / "records/train.tfrecord", range(4))
    write_pictures_as_records(tmp_path / "records/test.tfrecord", range(3))
    for dataset, count in (("folder:data", 7), ("list:list.txt", 4), ("glob:data/**/a/*", 7), ("tfrecord:records", 7)):
        listed, found = (each(Request(dataset, str(tmp_path))) for each in (list_pictures, find_pictures))
        names = [listed.source.name(row) for row in range(len(listed.paths))]
        assert sorted(names) == [found.source.name(row) for row in range(len(found.source))] and len(names) == count
        contents = [found.source.read(row) for row in range(count)]
        assert sorted(listed.source.read(row) for row in range(count)) == sorted(contents)


def test_images_for_embedding_have_the_classes_of_training(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", *make_names("train/a", 2), *make_names("test/b", 2), *make_names("val/c", 1))
    (tmp_path / "labels.csv").write_text("train/a/00.png,x\n")
    found = find_pictures(Request("folder:data", str(tmp_path)))
    assert found.labels == ["b", "b", "a", "a", "c"] and found.no_labels == ""
    assert find_pictures(Request("folder:data", str(tmp_path), labels="labels.csv")).labels == ["", "", "x", "", ""]
    write_pictures(tmp_path / "odd", "bus/1.png", "train/2.png")
    odd = find_pictures(Request("folder:odd", str(tmp_path)))
    assert odd.labels == ["", ""] and "two readings" in odd.no_labels


def test_a_home_folder_and_a_data_dir_are_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pictures(tmp_path, *make_names("a", 4))
    (tmp_path / "labels.csv").write_text("a/00.png,x\n")
    (tmp_path / "list.txt").write_text("a/00.png\na/01.png\na/02.png\n")
    for dataset in ("folder:~/a", "glob:~/a/*", "list:~/list.txt"):
        assert list_pictures(Request(dataset, "/elsewhere", labels="~/labels.csv")).classes == ("x",)
        relative = dataset.replace("~/", "")
        assert list_pictures(Request(relative, "~", labels="labels.csv")).classes == ("x",)


def test_records_have_their_own_labels(tmp_path: Path) -> None:
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(4))
    with pytest.raises(DataError, match="--labels and --split are for image files, but tfrecord:.* has its own"):
        list_pictures(Request(f"tfrecord:{path}", labels="x.csv"))
