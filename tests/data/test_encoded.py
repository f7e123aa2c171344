"""Tests the classes that give access to image files (JPEG, PNG, ...): a list of files, a part of it, a joined list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data.encoded import Drawn, Encoded, Files, Joined, Selected
from lowlevel_simclr.data.image_file import Shape, UnreadableError, read_pixels
from tests.support.image_files import make_names, write_pictures


def test_parts_and_joined_sources_give_the_same_images(tmp_path: Path) -> None:
    files = Files(write_pictures(tmp_path, *make_names("a", 5)), make_names("a", 5))
    backwards = Selected(files, np.arange(5)[::-1])
    both = Joined([files, Selected(files, np.arange(0)), backwards])
    assert [len(files), len(backwards), len(both), len(Joined([]))] == [5, 5, 10, 0]
    wanted = [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    for row, place in enumerate(wanted):
        source: Encoded = both
        path = tmp_path / f"a/0{place}.png"
        assert source.name(row) == str(path) and source.read(row) == path.read_bytes()
        assert source.read_shape(row) == (16, 16, 3)


def test_a_file_that_is_gone_is_not_readable(tmp_path: Path) -> None:
    for read in (Files(tmp_path, ["gone.png"]).read, Files(tmp_path, ["gone.png"]).read_shape):
        with pytest.raises(UnreadableError, match="cannot be read: No such file"):
            read(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_goes_through_the_decoder_unchanged(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 11, channels), np.uint8)
    drawn = Drawn("npz:a", images)
    assert len(drawn) == 3 and drawn.name(2) == "npz:a#2" and drawn.read_shape(0) == (9, 11, channels)
    shape = Shape(9, 11, channels)
    np.testing.assert_array_equal([read_pixels(drawn.read(row), shape) for row in range(3)], images)
