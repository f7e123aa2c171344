"""Tests data sets that are given as a list of image files (list:FILE) or as a pattern (glob:PATTERN)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataError, DataSet
from lowlevel_simclr.data.image_walk import RUN
from lowlevel_simclr.data.path_forms import find_matching, make_matcher, split_pattern
from tests.support.image_files import make_names, make_run_folder, write_pictures


def numbers(images: Any) -> list[int]:
    return [int(number) for number in np.asarray(images)[:, 0, 0, 0]]


# list:FILE


def load_list(folder: Path, content: str | bytes, **options: Any) -> DataSet:
    folder.mkdir(exist_ok=True)
    (folder / "list.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_dataset(f"list:{folder / 'list.txt'}", **options)


def test_a_list_names_the_images_relative_to_its_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", *(f"{n}.png" for n in range(6)))
    lines = ["../cat/0.png", f"{tmp_path}/cat/1.png", "  ../cat/2.png  ", "", "# ../cat/5.png", "../cat/./3.png"]
    images = load_list(tmp_path / "lists", "\ufeff" + "\r\n".join(lines))
    assert sorted(numbers(images.train.images) + numbers(images.test.images)) == [0, 1, 2, 3]
    assert images.classes == ("cat",)


def test_a_list_may_name_files_with_any_ending_and_folders_that_are_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path, *make_names("train/a", 3), *make_names("train/b", 3), *make_names("test/a", 2))
    (tmp_path / "train/a/00.png").rename(tmp_path / "train/a/00.image")
    names = ["train/a/00.image", *make_names("train/a", 3)[1:], *make_names("train/b", 3), *make_names("test/a", 2)]
    images = load_list(tmp_path, "\n".join(names))
    assert (len(images.train.images), len(images.test.images), images.classes) == (6, 2, ("a", "b"))


def test_missing_files_and_folders_in_a_list_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, *make_names("a", 6))
    record = load_list(tmp_path, "\n".join([*make_names("a", 6), "a/gone.png", "a"])).record
    reasons = {entry["path"]: entry["reason"] for entry in record["skipped"]}
    assert reasons == {
        "a/gone.png": "cannot be read: No such file or directory",
        "a": "cannot be read: Is a directory",
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "list.txt lists no image. Write one path a line"),
        ("# a.png\n\n", "lists no image"),
        ("a/00.png\na/01.png\n./a/00.png\n", "lists a/00.png twice, in lines 1 and 3. Keep one"),
        ("x.png\ny.png\n", "None of the 2 images in .*list.txt can be used.*No such file"),
        ("a/00.png".encode("utf-16"), "is not text in UTF-8"),
    ],
)
def test_a_list_without_usable_images_is_refused(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    write_pictures(tmp_path, *make_names("a", 6))
    with pytest.raises(DataError, match=sentence):
        load_list(tmp_path, content)


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--dataset list: .*gone.txt cannot be read: No such file"):
        load_dataset("list:gone.txt", str(tmp_path))


def test_a_resumed_run_notices_another_list(tmp_path: Path) -> None:
    write_pictures(tmp_path, *make_names("a", 6))
    before = load_list(tmp_path, "\n".join(make_names("a", 6))).record
    assert load_list(tmp_path, "\n".join(make_names("a", 6)[::-1]), before=before).record == before
    with pytest.raises(DataError, match="The images in .*list.txt have changed since this run began"):
        load_list(tmp_path, "\n".join(make_names("a", 5)), before=before)


# glob:PATTERN


def test_a_pattern_chooses_among_the_images_of_a_folder(tmp_path: Path) -> None:
    write_pictures(
        tmp_path, *make_names("train/cat", 3), *make_names("train/dog", 3, "bmp"), *make_names("test/cat", 2)
    )
    write_pictures(tmp_path, ".hidden/x.png")
    (tmp_path / "train/notes.txt").write_text("text")
    make_run_folder(tmp_path / "runs/old")
    (tmp_path / "loop").symlink_to(tmp_path)
    images = load_dataset("glob:**/*.png", str(tmp_path))
    assert (len(images.train.images), len(images.test.images), images.classes) == (3, 2, ("cat",))
    assert images.record["left_out"] == [{"path": "runs/old/", "reason": RUN}]
    images = load_dataset(f"glob:{tmp_path}/train/*/0[01].*")
    assert len(images.train.images) + len(images.test.images) == 4 and images.classes == ("cat", "dog")


def test_a_folder_whose_name_has_signs_is_not_a_pattern(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a[1]*", *make_names("b", 4))
    assert len(load_dataset(f"folder:{tmp_path}/a[1]*").train.images) == 3
    assert len(load_dataset("glob:b/*", str(tmp_path / "a[1]*")).train.images) == 3


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("a/*.jpg", "matches none of the 4 images in .*, such as 00.png. Change the pattern, and put it in quotes"),
        ("a", "has no .* Use --dataset folder:a, or add"),
        ("none/*.png", "The folder .*none of glob:none.* does not exist"),
    ],
)
def test_a_pattern_without_images_is_refused(tmp_path: Path, pattern: str, sentence: str) -> None:
    write_pictures(tmp_path, *make_names("a", 4))
    with pytest.raises(DataError, match=sentence):
        find_matching(pattern, tmp_path)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.png", "a.png", True),
        ("*.png", "a/b.png", False),
        ("*/*.png", "a/b.png", True),
        ("**/*.png", "a.png", True),
        ("**", "a/b/c.png", True),
        ("a/**/c/*", "a/c/1.png", True),
        ("a/**/c/*", "a/b/b/c/1.png", True),
        ("a/**/c/*", "a/b/1.png", False),
        ("[ab]?.png", "b1.png", True),
        ("[!ab]?.png", "b1.png", False),
        ("*.png", "a.PNG", False),
        ("a\n*.png", "a\nb.png", True),
    ],
)
def test_patterns_match_as_in_a_shell(pattern: str, path: str, matches: bool) -> None:
    assert make_matcher(pattern)(path) is matches


def test_a_pattern_starts_in_the_folder_before_its_first_sign() -> None:
    assert split_pattern("/*.png") == (Path("/"), "*.png") and split_pattern("*.png") == (Path("."), "*.png")
    assert split_pattern("a/b") == (Path("a/b"), "")
