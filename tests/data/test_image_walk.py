"""Tests the search for image files in a folder and its subfolders: what is found, what is left out, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lowlevel_simclr.data import image_walk
from lowlevel_simclr.data.image_walk import RUN, find_image_files
from tests.support.image_files import make_run_folder, write_pictures
from tests.support.permissions import obey_permissions


def test_images_and_other_files_are_found_by_their_endings(tmp_path: Path) -> None:
    write_pictures(tmp_path, "b/2.PNG", "a/1.jpg", ".hidden/x.png", "a/.y.png")
    (tmp_path / "a/notes.txt").write_text("")
    (tmp_path / "a/photo.heic").write_text("")
    found = find_image_files(tmp_path)
    assert found == (("a/1.jpg", "b/2.PNG"), ("a/notes.txt",), {"a/photo.heic": "HEIC images are not read"})


def test_links_are_followed_and_a_loop_is_entered_once(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "root", "a/1.png")
    (root / "b").symlink_to(write_pictures(tmp_path / "elsewhere", "2.png"))
    (root / "a/loop").symlink_to(root)
    assert find_image_files(root).images == ("a/1.png", "b/2.png")


def test_no_run_folder_is_data(tmp_path: Path) -> None:
    """Test that the pictures that a training draws into its own folder are never used as images to train on.

    Such a folder is recognized by its config.json, by its name in --out, or by the pictures that a preview draws.
    """
    write_pictures(tmp_path, "cat/1.png", "new/plots/views.png", "looked/plots/views.png", "other/plots/views.png")
    (tmp_path / "looked/plots/views.svg").write_text("<svg/>")
    (tmp_path / "other/notes.txt").write_text("not a preview")
    make_run_folder(tmp_path / "cat/old")
    (tmp_path / "new/checkpoints").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "new")
    found = find_image_files(tmp_path, own=tmp_path / "link")
    assert found.images == ("cat/1.png", "other/plots/views.png")
    assert found.left_out == {"cat/old/": RUN, "link/": RUN, "looked/": RUN}
    assert find_image_files(tmp_path / "cat/old").left_out == {"./": RUN}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": {}, "model": {}}', json.dumps({"data": {}, "model": 1})])
def test_a_config_of_something_else_makes_no_run(tmp_path: Path, text: str) -> None:
    write_pictures(tmp_path, "a/1.png")
    (tmp_path / "a/config.json").write_text(text)
    assert find_image_files(tmp_path).images == ("a/1.png",)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    try:
        with obey_permissions():
            found = find_image_files(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
    assert found.images == ("a/1.png",) and found.left_out == {"b/": "cannot be listed: Permission denied"}


def test_every_ending_has_one_meaning() -> None:
    assert not image_walk.ENDINGS & image_walk.OTHER_IMAGES
