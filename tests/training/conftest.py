"""Fixtures for the tests of training: one makes runs small, the other one pretends that the machine has a GPU."""

from __future__ import annotations

import pytest

from tests.support.made_up_memory import pretend_gpu
from tests.support.small_runs import draw_few_shapes, narrow_resnet20


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use sixty images for training, and a small encoder that is built within a second."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the program choose the settings of a run as if this machine had a GPU."""
    pretend_gpu(monkeypatch)
