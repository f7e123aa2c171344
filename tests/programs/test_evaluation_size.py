"""Tests --evaluation-size, the size of the images that the trained encoder gets. The views of training are smaller."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import embed, evaluate, train
from lowlevel_simclr.api.export import load_network
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.transform import find_transform
from lowlevel_simclr.evaluation.represent import compute_h
from tests.support.small_runs import draw_few_shapes, narrow_resnet20

SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--warmup-epochs", "0"]
SMALL += ["--precision", "float32", "--xla", "off", "--steps", "4"]


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run take seconds: sixty images, and a small encoder."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)


def test_every_use_of_the_trained_encoder_has_the_size_of_the_evaluation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main([*SMALL, "--evaluation-size", "16", "--knn-every", "1", "--out", str(out)]) == 0
    network = load_network(out, with_head=False, preprocessing=True, image_size=None)
    assert network.encoder.input_shape[1:3] == (16, 16)
    stored = json.loads((out / "evaluation.json").read_text())
    images = catalog.load_dataset("shapes", None)
    assert stored["transform"] == find_transform(network.encoder, network.scaling).describe(images.train.images)
    assert evaluate.main([str(out)]) == 0
    again = json.loads((out / "evaluation.json").read_text())
    assert (again["knn"], again["linear"]) == (stored["knn"], stored["linear"])
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("knn" in row for row in rows)


def test_embed_has_the_size_of_the_evaluation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main([*SMALL, "--evaluation-size", "16", "--knn-every", "0", "--out", str(out)]) == 0
    assert embed.main([str(out), "shapes", "--out", str(tmp_path / "h.npz")]) == 0
    network = load_network(out, with_head=False, preprocessing=True, image_size=None)
    images = catalog.load_dataset("shapes", None)
    expected = compute_h(network.encoder, images.train.images[:8], network.scaling)
    found = np.load(tmp_path / "h.npz")
    rows = next(found[name] for name in found.files if found[name].ndim == 2)
    np.testing.assert_allclose(rows[:8], expected, rtol=1e-5, atol=1e-5)


def test_a_size_that_the_encoder_cannot_take_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--encoder", "resnet50", "--stem", "imagenet", "--image-size", "32", "--evaluation-size", "8"]
    assert train.main([*flags, "--out", str(tmp_path / "run")]) == 1
    assert "Views of 8 pixels are too small for resnet50" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_preset_evaluates_at_the_size_of_its_views() -> None:
    assert load_preset("cifar10-resnet20").model.evaluation_size is None
