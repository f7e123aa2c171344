"""Fixtures of the training tests: small runs, and a pretended GPU."""

from __future__ import annotations

import pytest

from tests.support.made_up_memory import pretend_gpu
from tests.support.small_runs import draw_few_shapes, narrow_resnet20


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use sixty images to train on and an encoder that is built in a moment."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the plan believe that there is a GPU."""
    pretend_gpu(monkeypatch)
