"""Tests of verdicts of real runs: a healthy one has none, and each mistake that a short run can make has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import train
from lowlevel_simclr.run.checkup import Checkup, read_checkup
from lowlevel_simclr.training.session import Session
from tests.support.small_runs import draw_few_shapes, narrow_resnet20

SMALL = ["--image-size", "16", "--batch-size", "20", "--projection-widths", "16", "8", "--warmup-epochs", "1"]
SMALL += ["--precision", "float32", "--steps", "160", "--steps-per-call", "20", "--knn-every", "10"]


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use sixty images to train on, a narrow encoder, and no evaluation after training."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)
    monkeypatch.setattr(Session, "finish", lambda session: session.train())
    yield


def examine(out: Path, *flags: str) -> Checkup:
    """Train a small run and return its check-up."""
    assert train.main([*SMALL, "--out", str(out), *flags]) == 0
    return read_checkup(out)


def list_kinds(found: Checkup) -> list[str]:
    return [verdict.kind for verdict in found.verdicts]


def test_a_healthy_run_has_no_verdict(tmp_path: Path) -> None:
    found = examine(tmp_path / "run")
    assert found.verdicts == [] and found.judged == 160
    rank = found.series["rank_z"].values
    assert rank[-1] > rank[0]


@pytest.mark.slow
def test_a_learning_rate_of_almost_zero_leaves_the_loss_where_it_was(tmp_path: Path) -> None:
    assert list_kinds(examine(tmp_path / "run", "--learning-rate", "1e-8")) == ["stuck"]


@pytest.mark.slow
def test_a_huge_learning_rate_makes_the_encoder_collapse(tmp_path: Path) -> None:
    found = examine(tmp_path / "run", "--learning-rate", "3")
    assert "collapsed" in list_kinds(found)
    assert min(found.series["rank_z"].values) < 1.5


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high_lets_the_loss_rise_again(tmp_path: Path) -> None:
    """Test a run that learns during a long warm-up, until the rate becomes too high."""
    flags = ["--learning-rate", "3", "--warmup-epochs", "50", "--steps", "200"]
    assert "rate" in list_kinds(examine(tmp_path / "run", *flags))


@pytest.mark.slow
def test_crops_of_noise_are_too_hard(tmp_path: Path) -> None:
    """Test images of which two crops share nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=noise[:300], x_test=noise[300:])
    flags = ["--dataset", f"npz:{tmp_path / 'noise.npz'}", "--crop-area", "0.02", "0.04", "--knn-every", "1"]
    assert list_kinds(examine(tmp_path / "run", *flags)) == ["hard"]


@pytest.mark.slow
def test_gradients_that_overflow_lower_the_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a first scale that is far too large, so that each of the first steps halves it. Each step is an epoch."""
    monkeypatch.setattr("lowlevel_simclr.optim.loss_scale.FIRST_SCALE", 2.0**40)
    flags = ["--precision", "float16", "--batch-size", "40", "--steps", "12", "--knn-every", "1"]
    found = examine(tmp_path / "run", *flags)
    assert list_kinds(found) == ["float16"]
    assert found.series["loss_scale"].values[:3] == [2.0**39, 2.0**38, 2.0**37]
