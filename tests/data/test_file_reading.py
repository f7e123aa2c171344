"""Tests reading image files with several threads: each file once, in order, with a list of unreadable files."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data import file_reading, image_file, image_index
from lowlevel_simclr.data.encoded import Files
from lowlevel_simclr.data.file_reading import read_images, run_in_threads
from lowlevel_simclr.data.image_file import Shape
from lowlevel_simclr.data.image_index import ImageIndex, read_identities
from tests.support.image_files import draw_picture, make_names, write_pictures

SHAPE = Shape(16, 16, 3)


def open_folder(root: Path) -> tuple[Files, ImageIndex]:
    names = make_names("a", 6)
    write_pictures(root, *names)
    (root / names[2]).write_bytes(b"")
    (root / names[4]).unlink()
    return Files(root, names), ImageIndex(read_identities(root, names))


def test_each_image_is_noted_and_its_pixels_are_kept(tmp_path: Path) -> None:
    files, index = open_folder(tmp_path)
    held = np.zeros((6, *SHAPE), np.uint8)
    assert list(read_images(files, np.array([5, 0, 2, 4]), index, SHAPE, held.__setitem__)) == [5, 0, 2, 4]
    assert index.find_unknown().tolist() == [1, 3]
    assert index.list_reasons() == {2: "empty file", 4: "cannot be read: No such file or directory"}
    for row in (0, 5):
        content = (tmp_path / f"a/0{row}.png").read_bytes()
        assert index.list_digests()[row] == hashlib.blake2b(content, digest_size=16).digest()
        np.testing.assert_array_equal(held[row], np.asarray(draw_picture(row)))
    assert index.list_digests()[4] == b"" and not held[1:5].any()


def test_images_that_are_only_checked_are_not_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, index = open_folder(tmp_path)
    monkeypatch.setattr(
        image_file, "read_pixels", lambda content, shape: pytest.fail("the image was decoded for its pixels")
    )
    assert list(read_images(files, range(6), index, SHAPE)) == list(range(6))
    assert index.list_reasons().keys() == {2, 4}


def test_long_reading_is_saved_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, index = open_folder(tmp_path)
    saved: list[int] = []
    monkeypatch.setattr(image_index, "SAVED_EVERY", -1.0)
    monkeypatch.setattr(index, "save", lambda: saved.append(len(index.find_unknown())))
    list(read_images(files, range(3), index, SHAPE))
    assert saved == [5, 4, 3]


def test_threads_work_at_the_same_time_and_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reading.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(file_reading, "_AT_ONCE", 4)
    together = threading.Barrier(2)

    def wait(number: int) -> int:
        together.wait(timeout=20)  # returns only if two threads wait at the same time
        return number

    assert list(run_in_threads(wait, range(10))) == list(range(10))
