"""Tests of embedding files: which files are read, in what shape, and which messages are written about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data.encoded import Files
from lowlevel_simclr.data.image_file import Shape
from lowlevel_simclr.data.image_walk import RUN
from lowlevel_simclr.evaluation import embed_files
from lowlevel_simclr.run.atomic import RunError
from tests.support.image_files import make_names, make_run_folder, write_pictures
from tests.support.odd_files import make_odd_files
from tests.support.progress_lines import print_every_line


def test_files_come_in_the_order_given_and_those_of_a_folder_by_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, "z.png", *make_names("b", 3), "b/a/deep.PNG")
    (tmp_path / "b" / "notes.txt").write_text("no image, by its name")
    (tmp_path / "odd.txt").write_bytes((tmp_path / "z.png").read_bytes())  # the user names this file
    found, bad = embed_files.find_images([tmp_path / "z.png", tmp_path / "b", tmp_path / "odd.txt"])
    names = ["z.png", "b/00.png", "b/01.png", "b/02.png", "b/a/deep.PNG", "odd.txt"]
    assert [found.name(row) for row in range(len(found))] == [str(tmp_path / name) for name in names] and bad == []


def test_a_file_that_is_not_there_and_a_folder_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(embed_files.EmbedError, match="gone.png does not exist"):
        embed_files.find_images([tmp_path / "gone.png"])
    with pytest.raises(embed_files.EmbedError, match="There is no image in"):
        embed_files.find_images([tmp_path])


@pytest.mark.parametrize(
    ("record", "sentence"), [({}, "has no data.json with the shape"), ({"shape": [9, 9, 4]}, "with 4 channels")]
)
def test_a_run_tells_the_shape_of_its_images_or_is_refused(
    tmp_path: Path, record: dict[str, list[int]], sentence: str
) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"shape": [12, 10, 3]}))
    assert embed_files.read_stored_shape(tmp_path)[:3] == (12, 10, 3)
    (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises((RunError, embed_files.EmbedError), match=sentence):
        embed_files.read_stored_shape(tmp_path)


def test_files_go_through_in_batches_and_each_row_is_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test the rows with an embedding that is only the first pixel, which is the number of the picture."""
    monkeypatch.setattr(embed_files, "BATCH_SIZE", 2)
    root = write_pictures(tmp_path, *make_names("a", 6))
    (root / "a/02.png").write_bytes(b"")
    files = Files(root, [*make_names("a", 6), "a/gone.png"])
    sizes: list[int] = []

    def embed(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images[:, 0, 0, :1].astype(np.float32)

    rows, paths, bad = embed_files.embed_files(files, embed, Shape(16, 16, 3))
    assert sizes == [2, 2, 1] and rows[:, 0].tolist() == [0, 1, 3, 4, 5]
    assert [Path(path).name for path in paths] == ["00.png", "01.png", "03.png", "04.png", "05.png"]
    assert [Path(path).name for path, _ in bad] == ["02.png", "gone.png"]
    with pytest.raises(embed_files.EmbedError, match="None of the 1 images could be read. First problem: .*02.png"):
        embed_files.embed_files(Files(root, ["a/02.png"]), embed, Shape(16, 16, 3))


@pytest.mark.parametrize("output", ["h", "z"])
def test_what_is_written_holds_rows_and_paths_and_no_pickle(tmp_path: Path, output: str) -> None:
    rows, paths = np.arange(6, dtype=np.float32).reshape(2, 3), ["a b/1.png", "2.png"]
    embed_files.write_embeddings(tmp_path / "new" / "out.npz", rows, paths, output)
    found = np.load(tmp_path / "new" / "out.npz", allow_pickle=False)
    assert set(found) == {output, "paths"} and found["paths"].tolist() == ["a b/1.png", "2.png"]
    np.testing.assert_array_equal(found[output], rows)
    (tmp_path / "file").write_text("")
    with pytest.raises(embed_files.EmbedError, match="Cannot write .*Use another --out"):
        embed_files.write_embeddings(tmp_path / "file" / "out.npz", rows, paths, output)


def test_only_with_a_title_the_files_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_every_line(monkeypatch)
    write_pictures(tmp_path, *make_names("a", 3))
    given = embed_files.find_images([tmp_path])[0], lambda images: images[:, 0, 0], Shape(16, 16, 3)
    embed_files.embed_files(*given)
    assert capsys.readouterr() == ("", "")
    embed_files.embed_files(*given, title="reading images")
    assert "reading images: 3 of 3 images, " in capsys.readouterr().err


def test_what_is_no_regular_file_is_skipped_and_named(tmp_path: Path) -> None:
    """Test files in a folder, and a FIFO that the user names."""
    write_pictures(tmp_path, "a.png", "b/c.png")
    odd = make_odd_files(tmp_path / "b", ".png")
    files, _ = embed_files.find_images([tmp_path / "a.png", tmp_path / "b", tmp_path / "b/fifo.png"])
    rows, paths, bad = embed_files.embed_files(files, lambda images: images[:, 0, 0], Shape(16, 16, 3))
    assert [Path(path).name for path in paths] == ["a.png", "c.png"] and len(rows) == 2
    assert sorted(Path(path).name for path, _ in bad) == sorted([*odd, "fifo.png"])
    assert all(odd[Path(path).name] in reason for path, reason in bad)


def test_files_are_found_as_training_finds_them(tmp_path: Path) -> None:
    """Test that links are followed, hidden files and pictures of runs are left out, and unreadable files are named."""
    write_pictures(tmp_path / "elsewhere", "1.png")
    write_pictures(tmp_path / "b", "a.png", ".hidden/c.png", ".d.png")
    (tmp_path / "b/linked").symlink_to(tmp_path / "elsewhere")
    make_run_folder(tmp_path / "b/runs/x")
    (tmp_path / "b/photo.heic").write_bytes(b"0")
    files, bad = embed_files.find_images([tmp_path / "b"])
    names = [str(tmp_path / "b" / name) for name in ("a.png", "linked/1.png", "photo.heic", "runs/x")]
    assert [files.name(row) for row in range(len(files))] == names[:2]
    assert bad == [(names[2], "HEIC images are not read"), (names[3], RUN)]
    with pytest.raises(embed_files.EmbedError, match="no image in .* 1 were left out, the first is .*runs/x: a run"):
        embed_files.find_images([tmp_path / "b/runs"])
