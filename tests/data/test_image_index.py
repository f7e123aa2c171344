"""Tests the index of images: a file in the cache that lists the image files that were already read.

A file in the list need not be read again, as long as its size and its times in the file system are unchanged. A damaged
index must not be used.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data import image_index
from lowlevel_simclr.data.image_file import Shape
from lowlevel_simclr.data.image_index import ImageIndex, choose_index_place, open_index, read_identities

DIGEST = bytes(range(16))


@pytest.fixture(autouse=True)
def everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the index trust files that were just written. Normally it does not, because they could change unnoticed."""
    monkeypatch.setattr(image_index, "RECENT", -3600.0)


def write_files(root: Path, *paths: str) -> list[str]:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return list(paths)


def keep(root: Path, paths: list[str], place: Path, reason: str | None = None) -> None:
    """Write an index that lists all files as read. If `reason` is given, the last file could not be read for it."""
    with open_index(read_identities(root, paths), place) as index:
        for row in range(len(paths)):
            index.note(row, bytes([row + 1]) * 16, reason if row == len(paths) - 1 else None)
            index.note_shape(row, Shape(10, 20 + row, 3))


def look(root: Path, paths: list[str], place: Path) -> ImageIndex:
    index = ImageIndex(read_identities(root, paths), place, pytest.fail)
    index.recall()
    return index


def test_what_was_found_is_known_to_the_next_start(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "data", "a.png", "b/c.png", "b/é.png")
    keep(tmp_path / "data", paths, tmp_path / "cache/index", "damaged")
    again = look(tmp_path / "data", paths, tmp_path / "cache/index")
    assert len(again.find_unknown()) == 0 and again.is_usable().tolist() == [True, True, False]
    assert again.list_reasons() == {2: "damaged"}
    assert [digest[0] for digest in again.list_digests()] == [1, 2, 3]
    np.testing.assert_array_equal(again.get_shapes(), [[10, 20, 3], [10, 21, 3], [10, 22, 3]])


def test_only_a_file_that_changed_is_unknown(tmp_path: Path) -> None:
    paths = write_files(tmp_path, *(f"{number}.png" for number in range(6)))
    keep(tmp_path, paths, tmp_path / "index")
    longer, touched, same_size, replaced = (tmp_path / path for path in paths[:4])
    longer.write_text("longer than before")
    os.utime(touched, (1, 1))
    before = os.stat(same_size)
    same_size.write_text("9.png")
    os.utime(same_size, ns=(before.st_atime_ns, before.st_mtime_ns))  # only ctime (last change) differs
    (tmp_path / "new").write_text(replaced.read_text())
    os.replace(tmp_path / "new", replaced)
    assert look(tmp_path, [*paths, "new.png"], tmp_path / "index").find_unknown().tolist() == [0, 1, 2, 3, 6]


def test_a_renamed_folder_and_other_names_of_a_file_are_known(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "old", "a.png", "b.png")
    for number in range(50):
        os.link(tmp_path / "old" / paths[number % 2], tmp_path / f"old/{number}.png")
    keep(tmp_path / "old", paths, tmp_path / "index")
    os.rename(tmp_path / "old", tmp_path / "new")
    names = [f"{number}.png" for number in range(50)]
    again = look(tmp_path / "new", names, tmp_path / "index")
    assert len(again.find_unknown()) == 0
    assert [digest[0] for digest in again.list_digests()] == [1, 2] * 25
    again.note(0, DIGEST, None)
    again.save()
    assert os.path.getsize(tmp_path / "index") < 600  # an entry for each of the two files, not for each name


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a file that was just written. If it changes again within one tick of the clock, its times stay equal."""
    monkeypatch.undo()
    paths = write_files(tmp_path, "new.png")
    keep(tmp_path, paths, tmp_path / "index")
    assert look(tmp_path, paths, tmp_path / "index").find_unknown().tolist() == [0]
    monkeypatch.setattr(image_index.time, "time", lambda: os.stat(tmp_path / "new.png").st_ctime + 2.5)
    keep(tmp_path, paths, tmp_path / "index")
    assert look(tmp_path, paths, tmp_path / "index").find_unknown().tolist() == []


def test_a_file_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    paths = write_files(tmp_path, "a.png", "b.png")
    with open_index(read_identities(tmp_path, paths), tmp_path / "index") as index:
        index.note(0, b"", "cannot be read: Input/output error")
        index.note(1, DIGEST, None)
    assert look(tmp_path, paths, tmp_path / "index").find_unknown().tolist() == [0]


def test_another_reader_tries_damaged_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_files(tmp_path, "a.png", "b.png")
    keep(tmp_path, paths, tmp_path / "index", "no image")
    monkeypatch.setattr(image_index, "READER", "another")
    assert look(tmp_path, paths, tmp_path / "index").find_unknown().tolist() == [1]


def test_a_broken_link_is_never_known(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere")
    assert read_identities(tmp_path, ["a.png"]).tolist() == [[-1] * 5]
    keep(tmp_path, ["a.png"], tmp_path / "index")
    assert look(tmp_path, ["a.png"], tmp_path / "index").find_unknown().tolist() == [0]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "state"])
def test_a_damaged_index_is_named_and_not_used(tmp_path: Path, damage: str) -> None:
    paths, place = write_files(tmp_path, "a.png", "b.png"), tmp_path / "index"
    keep(tmp_path, paths, place)
    whole = place.read_bytes()
    body = bytearray(whole)
    body[-30] ^= 1
    place.write_bytes({"cut": whole[:-1], "flip": bytes(body), "empty": b"", "text": b"x" * 99}.get(damage, whole[:60]))
    told: list[str] = []
    index = ImageIndex(read_identities(tmp_path, paths), place, told.append)
    index.recall()
    assert len(index.find_unknown()) == 2
    assert len(told) == 1 and told[0].startswith(f"The index {place} is not used (") and "read again." in told[0]


def test_an_index_that_cannot_be_written_is_named_once(tmp_path: Path) -> None:
    paths, told = write_files(tmp_path, "a.png"), list[str]()
    index = ImageIndex(read_identities(tmp_path, paths), tmp_path / "a.png/index", told.append)
    for _ in range(2):
        index.note(0, DIGEST, None)
        index.save()
    assert len(told) == 1 and "a.png/index cannot be written (" in told[0]


def test_an_interrupted_reading_is_kept(tmp_path: Path) -> None:
    paths = write_files(tmp_path, "a.png", "b.png")
    with pytest.raises(KeyboardInterrupt), open_index(read_identities(tmp_path, paths), tmp_path / "index") as index:
        index.note(0, DIGEST, None)
        raise KeyboardInterrupt
    assert look(tmp_path, paths, tmp_path / "index").find_unknown().tolist() == [1]


def test_long_reading_is_saved_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, now = write_files(tmp_path, "a.png"), [time.monotonic()]
    monkeypatch.setattr(image_index.time, "monotonic", lambda: now[0])
    index = ImageIndex(read_identities(tmp_path, paths), tmp_path / "index")
    index.note(0, DIGEST, None)
    index.save_sometimes()
    assert not (tmp_path / "index").exists()
    now[0] += 61
    index.save_sometimes()
    assert len(look(tmp_path, paths, tmp_path / "index").find_unknown()) == 0


def test_the_index_lies_in_the_cache_and_never_in_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert choose_index_place(tmp_path, 999, None) is None
    given, own = choose_index_place(tmp_path, 1, tmp_path / "given"), choose_index_place(tmp_path, 1000, None)
    assert given and given.parent == tmp_path / "given" and given.suffix == ".index"
    assert own == tmp_path / "home/lowlevel_simclr" / given.name
    assert choose_index_place(tmp_path / "other", 1, tmp_path / "given") != given
    (tmp_path / "link").symlink_to(tmp_path)
    assert choose_index_place(tmp_path / "link", 1, tmp_path / "given") == given
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choose_index_place(tmp_path, 1000, None) == tmp_path / ".cache/lowlevel_simclr" / given.name
