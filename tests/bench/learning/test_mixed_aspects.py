"""Tests the benchmark mixed_aspects, which compares training on whole pictures with training on squares cut from them.

The pictures have different sizes. The squares must be cut from the same pictures. The benchmark must count which share
of the pixels training sees.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.learning import mixed_aspects
from bench.report import tables
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data import catalog
from tests.support.small_runs import draw_few_shapes


@pytest.fixture()
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_few_shapes(monkeypatch)
    return mixed_aspects.write_pictures(tmp_path / "whole", "shapes", None, 60, 20)


def test_the_squares_are_what_a_run_from_before_frames_stores(whole: Path, tmp_path: Path) -> None:
    images = catalog.load_dataset(f"folder:{whole}")
    squares = catalog.load_dataset(f"folder:{mixed_aspects.write_squares(whole, tmp_path / 'squares')}")
    side = images.record["frames"]["shorter"]
    assert squares.train.images.shape == (60, side, side, 3) and "frames" not in squares.record
    np.testing.assert_array_equal(squares.train.labels, images.train.labels)
    sizes = mixed_aspects.read_sizes(list(whole.rglob("*.png")))
    assert np.all(sizes.max(axis=1) == 32) and len(np.unique(sizes, axis=0)) == len(mixed_aspects.ASPECTS)


def test_squares_hide_a_part_of_the_pictures(whole: Path) -> None:
    recipe = ViewRecipe(crop_area=(0.3, 1.0))
    cut, shown = (mixed_aspects.count_shown(whole, 0, 40, recipe, cut) for cut in (True, False))
    sizes = mixed_aspects.read_sizes(list((whole / "train").rglob("*.png")))
    assert cut == pytest.approx(np.mean(sizes.min(axis=1) / sizes.max(axis=1)), rel=0.02)
    assert shown > 0.97


def test_a_finished_run_is_read_and_shown_in_a_table(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for name, knn in (("pictures-0", 0.5), ("squares-0", 0.25)):
        (runs / name).mkdir(parents=True)
        found = {"knn": {"20": knn, "200": knn}, "linear": 0.125}
        (runs / name / "evaluation.json").write_text(json.dumps(found))
        (runs / name / "data.json").write_text(json.dumps({"shape": [18, 18, 3]}))
    whole.rename(runs / "pictures")
    (runs / "pictures-0").rename(runs / "whole-0")
    out = tmp_path / "mixed_aspects.json"
    mixed_aspects.main(["--seeds", "0", "--epochs", "2", "--runs", str(runs), "--json", str(out)])
    capsys.readouterr()
    tables.main([str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| squares | 0 | ") and lines[2].endswith(" | 25.0 | 25.0 | 12.5 |")
    assert lines[3].startswith("| whole | 0 | ") and lines[3].endswith(" | 50.0 | 50.0 | 12.5 |")
