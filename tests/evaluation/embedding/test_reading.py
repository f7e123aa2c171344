"""Tests how the program `embed` reads images in several threads while the encoder works on earlier images."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data.encoded import Files
from lowlevel_simclr.data.image_file import Bounds, Shape
from lowlevel_simclr.evaluation.embedding import reading
from lowlevel_simclr.evaluation.embedding.given import EmbedError, find_given
from tests.support.image_files import make_names, write_pictures
from tests.support.odd_files import make_odd_files

DECODE = reading.choose_decoder(Shape(16, 16, 3), None)


def take_first_pixel(images: np.ndarray) -> np.ndarray:
    """Imitate an encoder: return the first pixel of each image. In these tests it is the number of the image."""
    return images[:, 0, 0, :1].astype(np.float32)


def test_files_go_through_in_equal_batches_and_each_row_is_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH_SIZE", 2)
    root = write_pictures(tmp_path, *make_names("a", 6))
    (root / "a/02.png").write_bytes(b"")
    files = Files(root, [*make_names("a", 6), "a/gone.png"])
    sizes: list[int] = []

    def embed(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return take_first_pixel(images)

    part = reading.compute_all(files, DECODE, embed)
    assert sizes == [2, 2, 2] and part.rows[:, 0].tolist() == [0, 1, 3, 4, 5]
    assert part.places.tolist() == [0, 1, 3, 4, 5] and [place for place, _ in part.bad] == [2, 6]
    nothing = reading.compute_all(Files(root, ["a/02.png"]), DECODE, embed)
    assert not len(nothing.rows) and nothing.bad == [(0, "empty file")]


def test_many_chunks_come_in_order(tmp_path: Path) -> None:
    """Test more images than the threads decode in advance. The threads must end if the caller stops early."""
    write_pictures(tmp_path, *make_names("a", 60))
    files = Files(tmp_path, make_names("a", 60))
    pieces = reading.split_range(range(60), 2)
    assert len(pieces) > reading.AHEAD
    found = [place for chunk in reading.read_chunks(files, DECODE, pieces) for place in chunk.places]
    assert found == list(range(60))
    before = threading.active_count()
    chunks = reading.read_chunks(files, DECODE, pieces)
    next(chunks)
    chunks.close()
    assert threading.active_count() == before


def test_images_are_decoded_while_the_encoder_works(tmp_path: Path) -> None:
    """Test that the last image is decoded before the encoder has finished the first image."""
    write_pictures(tmp_path, *make_names("a", 8))
    late = threading.Event()

    def decode(content: bytes) -> np.ndarray:
        pixels = DECODE(content)
        if pixels[0, 0, 0] == 7:
            late.set()
        return pixels

    chunks = reading.read_chunks(Files(tmp_path, make_names("a", 8)), decode, reading.split_range(range(8), 1))
    next(chunks)
    assert late.wait(10)


def test_what_is_no_regular_file_is_skipped_and_named(tmp_path: Path) -> None:
    """Test a folder that contains more than regular files, and a FIFO that the user names."""
    write_pictures(tmp_path, "a.png", "b/c.png")
    odd = make_odd_files(tmp_path / "b", ".png")
    source = find_given([tmp_path / "a.png", tmp_path / "b", tmp_path / "b/fifo.png"]).source
    part = reading.compute_all(source, DECODE, take_first_pixel)
    assert [Path(source.name(place)).name for place in part.places] == ["a.png", "c.png"]
    bad = [(Path(source.name(place)).name, reason) for place, reason in part.bad]
    assert sorted(name for name, _ in bad) == sorted([*odd, "fifo.png"])
    assert all(odd[name] in reason for name, reason in bad)


def test_an_encoder_that_has_diverged_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png")
    with pytest.raises(EmbedError, match="NaN or infinite, because the training has diverged"):
        reading.compute_all(Files(tmp_path, ["a.png"]), DECODE, lambda images: np.full((len(images), 2), np.nan))


def test_bounds_cut_the_square_in_the_middle(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.png", height=16, width=24)
    content = (tmp_path / "a.png").read_bytes()
    whole = reading.choose_decoder(Shape(16, 24, 3), None)(content)
    square = reading.choose_decoder(Shape(16, 16, 3), Bounds(16, 24))(content)
    np.testing.assert_array_equal(square, whole[:, 4:20])
