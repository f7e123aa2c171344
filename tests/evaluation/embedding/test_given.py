"""Tests how the program `embed` finds the images that a user names: files, folders, data sets, and their labels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data.image_file import Shape, read_pixels
from lowlevel_simclr.data.image_walk import RUN
from lowlevel_simclr.data.picture_forms import Request
from lowlevel_simclr.evaluation.embedding.given import EmbedError, Given, find_given, hash_given
from tests.support.image_files import make_names, make_run_folder, write_pictures
from tests.support.record_files import write_pictures_as_records
from tests.support.small_runs import draw_few_shapes


def names_of(given: Given) -> list[str]:
    return [given.source.name(row) for row in range(len(given.source))]


def test_files_come_in_the_order_given_and_those_of_a_folder_by_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, "z.png", *make_names("b", 3), "b/a/deep.PNG")
    (tmp_path / "b" / "notes.txt").write_text("its name does not end like that of an image")
    (tmp_path / "odd.txt").write_bytes((tmp_path / "z.png").read_bytes())  # read as an image, because the user names it
    found = find_given([tmp_path / "z.png", tmp_path / "b", tmp_path / "odd.txt"])
    names = ["z.png", "b/00.png", "b/01.png", "b/02.png", "b/a/deep.PNG", "odd.txt"]
    assert names_of(found) == [str(tmp_path / name) for name in names] and not found.left_out
    assert found.labels == ["", "", "", "", "a", ""]


def test_a_file_that_is_not_there_and_a_folder_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedError, match="gone.png does not exist"):
        find_given([tmp_path / "gone.png"])
    with pytest.raises(EmbedError, match="There is no image in"):
        find_given([tmp_path])


@pytest.mark.parametrize("form", ["{}", "folder:{}", "glob:{}/**"])
def test_files_are_found_as_training_finds_them(tmp_path: Path, form: str) -> None:
    """Test links, which must be followed, and unreadable files, which must be named.

    Hidden files, and pictures in the folders of training runs, must be left out.
    """
    write_pictures(tmp_path / "elsewhere", "1.png")
    write_pictures(tmp_path / "b", "a.png", ".hidden/c.png", ".d.png")
    (tmp_path / "b/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "b/round").symlink_to(tmp_path / "b")
    make_run_folder(tmp_path / "b/runs/x")
    (tmp_path / "b/photo.heic").write_bytes(b"0")
    given = find_given([Path(form.format(tmp_path / "b"))])
    names = [str(tmp_path / "b" / name) for name in ("a.png", "linked/1.png", "photo.heic", "runs/x")]
    assert names_of(given) == names[:2] and given.labels == ["", "linked"]
    assert given.left_out == [(names[2], "HEIC images are not read"), (names[3], RUN)]


def test_a_folder_with_only_pictures_of_runs_says_so(tmp_path: Path) -> None:
    make_run_folder(tmp_path / "runs/x")
    with pytest.raises(EmbedError, match="no image in .* 1 were left out, the first is .*runs/x: a run"):
        find_given([tmp_path / "runs"])


def test_a_layout_with_two_readings_has_no_labels_and_a_note(tmp_path: Path) -> None:
    write_pictures(tmp_path, *make_names("bus", 2), *make_names("train", 2))
    given = find_given([tmp_path])
    assert len(given.source) == 4 and given.labels == ()
    assert given.notes[0].startswith(f"No labels are written for {tmp_path}. The folders of")


def test_the_runs_own_data_set_is_read_with_the_settings_of_the_run(tmp_path: Path) -> None:
    write_pictures(tmp_path, *make_names("x", 2))
    (tmp_path / "labels.csv").write_text("x/00.png,cat\nx/01.png,dog\n")
    own = Request("folder:x", str(tmp_path), labels="labels.csv")
    given = find_given([Path("folder:x")], own)
    assert given.labels == ["cat", "dog"]
    assert [os.path.basename(name) for name in names_of(given)] == ["00.png", "01.png"]


@pytest.mark.parametrize("name", ["{}", "{}/../x", "folder:{}/"])
def test_the_folder_of_the_run_is_read_with_the_settings_of_the_run(tmp_path: Path, name: str) -> None:
    """Test the folder itself. Once, a run with --splits none asked to give that flag, which embed does not have."""
    root = write_pictures(tmp_path / "x", *make_names("bus", 2), *make_names("train", 2))
    own = Request(f"folder:{root}", splits="none")
    given = find_given([Path(name.format(root))], own)
    assert given.labels == ["bus", "bus", "train", "train"] and given.notes == []
    [note] = find_given([Path(name.format(root))]).notes
    assert "two readings: " in note and note.endswith("trains on train/ and ignores bus/.")
    (tmp_path / "labels.csv").write_text("x/bus/00.png,cat\n")
    own = Request("folder:x", str(tmp_path), labels="labels.csv")
    assert find_given([Path(name.format(root))], own).labels == ["cat", "", "", ""]
    (tmp_path / "labels.csv").unlink()
    given = find_given([Path(name.format(root))], own._replace(splits="none"))
    assert given.labels == ["bus", "bus", "train", "train"]
    assert given.notes == [f"The labels are the folders, because {tmp_path}/labels.csv is not there."]


def test_records_have_their_labels(tmp_path: Path) -> None:
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(4))
    given = find_given([Path(f"tfrecord:{path}")])
    assert names_of(given) == [f"{path}#{row}" for row in range(4)]
    assert set(given.labels) == {"cat", "dog"}


def test_arrays_are_the_images_of_both_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, x_train=pixels[:3], y_train=[7, 5, 7], x_test=pixels[3:], y_test=[5, 7])
    given = find_given([Path(f"npz:{path}")])
    assert names_of(given)[2:4] == [f"npz:{path}/train#2", f"npz:{path}/test#0"]
    assert given.labels == ["7", "5", "7", "5", "7"]
    read = [read_pixels(given.source.read(row), Shape(12, 10, 3)) for row in range(5)]
    np.testing.assert_array_equal(read, pixels)
    draw_few_shapes(monkeypatch)
    assert len(find_given([Path("shapes")]).source) == 100
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "shapes", "a.png")  # the folder has the name of a data set
    assert len(find_given([Path("shapes")]).source) == 1


def test_arrays_with_four_channels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 8, 8, 4), np.uint8))
    with pytest.raises(EmbedError, match="has images with 4 channels, but embed takes 1 or 3"):
        find_given([Path(f"npz:{tmp_path / 'a.npz'}")])


def test_the_hash_changes_with_the_names_and_with_the_files(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", "b.png")
    path = write_pictures_as_records(tmp_path / "a.tfrecord", range(4))
    hashes = [hash_given(find_given(paths)) for paths in ([tmp_path / "a.png"], [tmp_path / "b.png"], [tmp_path])]
    hashes.append(hash_given(find_given([Path(f"tfrecord:{path}")])))
    os.utime(tmp_path / "a.png", (1, 1))
    os.utime(path, (1, 1))
    hashes += [hash_given(find_given([tmp_path / "a.png"])), hash_given(find_given([Path(f"tfrecord:{path}")]))]
    for value in (0, 1):
        np.savez(tmp_path / "a.npz", images=np.full((20, 8, 8, 3), value, np.uint8))
        hashes.append(hash_given(find_given([Path(f"npz:{tmp_path / 'a.npz'}")])))
    assert len(set(hashes)) == len(hashes)
