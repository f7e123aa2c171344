"""Makes a training take only seconds in a test: with sixty drawn images, and with a narrow encoder of few layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.model import encoder
from lowlevel_simclr.run import checkpoint


def draw_few_shapes(patch: pytest.MonkeyPatch) -> None:
    """Draw sixty shapes for training and forty for testing, instead of thousands."""
    patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
    patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)


def narrow_resnet20(patch: pytest.MonkeyPatch) -> None:
    """Build ResNet-20 with one block in each stage, of 8 channels."""
    patch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 8, projects=False))


def read_state(out: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a run's last checkpoint, by their names."""
    saved = checkpoint.load_latest(out / "checkpoints")
    assert saved is not None
    return saved.arrays


def assert_same_state(one: Path, other: Path) -> None:
    """Assert that the last checkpoints of two runs have the same bits."""
    first, second = read_state(one), read_state(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].tobytes() != second[name].tobytes()] == []
