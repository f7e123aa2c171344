"""Tests the warnings (verdicts) that a real training prints, for example about a learning rate that is too high.

A healthy training must print none. Each mistake that shows in a short training must give its own warning.
"""

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
    """Make training take seconds: sixty images, a narrow encoder, and no evaluation."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)
    monkeypatch.setattr(Session, "finish", lambda session: session.train())
    yield


def examine(out: Path, *flags: str) -> Checkup:
    """Train with a small encoder. Return the stored measures and warnings (the check-up)."""
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
def test_a_huge_learning_rate_is_named(tmp_path: Path) -> None:
    """Test a learning rate that is so high that the encoder learns almost nothing. BatchNorm keeps numbers finite."""
    found = examine(tmp_path / "run", "--learning-rate", "3", "--warmup-epochs", "20", "--steps", "200")
    assert list_kinds(found) == ["rate"]


@pytest.mark.slow
def test_a_huge_weight_decay_makes_the_encoder_collapse(tmp_path: Path) -> None:
    """Test a weight decay so large that only the biases of the projection head remain. So all images get the same z."""
    flags = ["--optimizer", "sgd", "--learning-rate", "0.02", "--weight-decay", "10"]
    found = examine(tmp_path / "run", *flags)
    assert "collapsed" in list_kinds(found)
    assert min(found.series["rank_z"].values) < 1.5


@pytest.mark.slow
def test_a_projection_head_of_two_hidden_units_uses_few_directions_of_z(tmp_path: Path) -> None:
    """Test a real partial collapse: z has 128 entries, but the two hidden units leave it few directions."""
    found = examine(tmp_path / "run", "--projection-widths", "2", "128", "--temperature", "0.5", "--steps", "300")
    assert list_kinds(found) == ["partly collapsed"]
    assert "The effective rank of z is" in found.verdicts[0].evidence


@pytest.mark.slow
def test_crops_of_noise_are_too_hard(tmp_path: Path) -> None:
    """Test images of noise. Two crops of such an image have nothing in common."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=noise[:300], x_test=noise[300:])
    flags = ["--dataset", f"npz:{tmp_path / 'noise.npz'}", "--crop-area", "0.02", "0.04", "--knn-every", "1"]
    assert list_kinds(examine(tmp_path / "run", *flags)) == ["hard"]


@pytest.mark.slow
def test_gradients_that_overflow_lower_the_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a loss scale (for float16) that begins far too large, so that each of the first steps halves it.

    In this test, each step is an epoch.
    """
    monkeypatch.setattr("lowlevel_simclr.optim.loss_scale.FIRST_SCALE", 2.0**40)
    flags = ["--precision", "float16", "--batch-size", "40", "--steps", "12", "--knn-every", "1"]
    found = examine(tmp_path / "run", *flags)
    assert list_kinds(found) == ["float16"]
    assert found.series["loss_scale"].values[:3] == [2.0**39, 2.0**38, 2.0**37]


def draw_textures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 32, 32, 3) of four textures in random colours, and the number of each image's texture.

    Even an untrained encoder separates the textures. To recognize a single image, its colours are enough.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    labels, images = np.arange(count) % 4, np.empty((count, 32, 32, 3), np.uint8)
    for place, label in enumerate(labels):
        down, right = random.integers(0, 8, 2)
        rows, columns = (y + down) // 2 % 2, (x + right) // 2 % 2
        texture = 2 * (rows, columns, rows ^ columns, (y + down) // 4 % 2)[label] - 1
        images[place] = np.clip(128 + random.uniform(-40, 40, 3) + 60 * texture[..., None], 0, 255)
    return images, labels


@pytest.mark.slow
def test_day29_learns_its_task_while_h_becomes_worse(tmp_path: Path) -> None:
    """Test the preset day29 with a small encoder. It learns to recognize images by colour, and h becomes worse."""
    (x_train, y_train), (x_test, y_test) = draw_textures(600, 0), draw_textures(300, 1)
    np.savez(tmp_path / "textures.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    flags = ["--preset", "day29", "--dataset", f"npz:{tmp_path / 'textures.npz'}", "--weights", "random"]
    flags += ["--encoder", "resnet20", "--stem", "cifar", "--batch-size", "60", "--knn-every", "2", "--steps", "120"]
    found = examine(tmp_path / "run", *flags)
    assert list_kinds(found) == ["easy"]
    said = found.verdicts[0].evidence
    assert "k-NN fell from" in said and "All crops have nearly one size, no view changes hue or saturation" in said
