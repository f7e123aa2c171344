"""What several tests of the training room need: small runs, and a GPU that is not there."""

from __future__ import annotations

import pytest

from tests.support.made_up_memory import pretend_gpu
from tests.support.small_runs import draw_few_shapes, narrow_resnet20


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty images to train on and an encoder that is built in a moment."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan believes that there is a GPU."""
    pretend_gpu(monkeypatch)
