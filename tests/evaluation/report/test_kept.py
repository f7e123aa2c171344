"""Tests the file in which training stores numbers and pictures for its HTML report.

It has baselines for the charts, and a map of images: a point and a small picture (thumbnail) for each.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr.evaluation.report.kept import KEPT, ReportMap, keep_for_report, read_kept, scale_points


def test_the_map_and_the_levels_are_read_as_they_were_kept(tmp_path: Path) -> None:
    images = np.zeros((40, 8, 6, 3), np.uint8)
    images[33] = (250, 0, 0)  # red; a row of the stored picture has 32 thumbnails, so this is the second one of row 2
    mapped = ReportMap(np.random.default_rng(0).normal(size=(40, 2)), images, np.arange(40) % 2 - 1, ["a\x1b[31m"])
    keep_for_report(tmp_path / "plots" / KEPT, 4.25, {"pixels": 0.5}, mapped)
    kept = read_kept(tmp_path)
    assert (kept["chance_loss"], kept["knn_baselines"]) == (4.25, {"pixels": 0.5})
    found = kept["map"]
    assert np.array(found["points"]).shape == (40, 2) and found["labels"] == (np.arange(40) % 2 - 1).tolist()
    assert found["classes"] == [r"a\x1b[31m"]
    with Image.open(io.BytesIO(base64.b64decode(found["thumbnails"]))) as picture:
        assert picture.size == (32 * 32, 2 * 32)
        assert picture.getpixel((48, 48))[0] > 200 and picture.getpixel((16, 48))[0] < 50


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_all_channels_are_kept(tmp_path: Path, channels: int) -> None:
    images = np.full((3, 20, 20, channels), 200, np.uint8)
    keep_for_report(tmp_path / KEPT, 1.0, {}, ReportMap(np.zeros((3, 2)), images, np.full(3, -1), ()))
    assert (tmp_path / KEPT).stat().st_size > 500


def test_without_a_map_the_levels_are_kept(tmp_path: Path) -> None:
    keep_for_report(tmp_path / "plots" / KEPT, 1.0, {}, ReportMap(None, np.zeros((0, 1, 1, 3)), np.zeros(0), ()))
    assert read_kept(tmp_path) == {"chance_loss": 1.0, "knn_baselines": {}}
    assert read_kept(tmp_path / "elsewhere") == {}


def test_points_fill_the_unit_square() -> None:
    points = scale_points(np.array([[0.0, 10.0], [30.0, 25.0], [5.0, 12.0]]))
    assert points.min() == 0 and points.max() == 1 and (points >= 0).all()
    np.testing.assert_array_equal(scale_points(np.ones((3, 2))), 0.5)
