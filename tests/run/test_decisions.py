"""Tests budget.json, in which training with a time limit (--budget) records how many steps it decided to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.decisions import DECISIONS, Decision, read_decisions, write_decisions

TWO = [Decision(0, 5, 16, 0.0, 0.5, 1.25, 0.1), Decision(5, 8, 24, 0.5, 1.0, 2.0, 0.3)]


def test_decisions_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_decisions(tmp_path) == []
    write_decisions(tmp_path, TWO)
    assert read_decisions(tmp_path) == TWO


@pytest.mark.parametrize(
    "change",
    [
        {"first": 4},
        {"last": 5},
        {"to_share": 0.5},
        {"from_share": 0.4},
        {"last": "8"},
        {"elapsed": None},
        {"image_size": True},
        {"more": 1},
    ],
    ids=str,
)
def test_damaged_decisions_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = [TWO[0]._asdict(), {**TWO[1]._asdict(), **change}]
    (tmp_path / DECISIONS).write_text(json.dumps({"segments": rows}))
    with pytest.raises(RunError, match="budget.json is damaged: its segments do not follow one another. Restore"):
        read_decisions(tmp_path)


@pytest.mark.parametrize("content", [{}, {"segments": 1}, {"segments": [1]}])
def test_other_content_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / DECISIONS).write_text(json.dumps(content))
    with pytest.raises(RunError, match="is damaged"):
        read_decisions(tmp_path)
