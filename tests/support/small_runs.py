"""Changes that make a run take seconds: sixty drawn images, and an encoder with one narrow block in each stage."""

from __future__ import annotations

import pytest

from lowlevel_simclr.model import encoder


def draw_few_shapes(patch: pytest.MonkeyPatch) -> None:
    """Draw sixty shapes for training and forty for testing, instead of thousands."""
    patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
    patch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)


def narrow_resnet20(patch: pytest.MonkeyPatch) -> None:
    """Build ResNet-20 with one block in each stage, of 8 channels."""
    patch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 8, projects=False))
