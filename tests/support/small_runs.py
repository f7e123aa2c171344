"""Settings for a run that takes seconds: sixty drawn images, and an encoder with one narrow block a stage."""

from __future__ import annotations

import pytest

from lowlevel_simclr.model import encoder


def draw_few_shapes(patch: pytest.MonkeyPatch) -> None:
    """Draw sixty shapes to train on and forty to test with, instead of thousands."""
    patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
    patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)


def narrow_resnet20(patch: pytest.MonkeyPatch) -> None:
    """Build ResNet-20 with one block a stage, 8 channels wide."""
    patch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 8, projects=False))
