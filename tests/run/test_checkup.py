"""Tests reading and writing of checkup.json: measures of the encoder during training, and warnings (verdicts)."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkup import CHECKUP, MEASURES, Series, Verdict, read_checkup, write_verdicts
from lowlevel_simclr.run.folder import Run
from tests.support.open_runs import make_row

VERDICT = Verdict("stuck", 100, "The loss is stuck.", "It is 6.2 (chance 6.2).", ("Use --epochs 9.", "Or --seed 1."))


def test_a_run_without_a_check_up_was_not_judged(run: Run) -> None:
    assert read_checkup(run.folder) == ({}, [], None)
    run.append([make_row(1)])
    assert read_checkup(run.folder) == ({}, [], None)


def test_each_measure_is_a_series_without_the_steps_that_have_no_value(run: Run) -> None:
    run.append(
        [
            make_row(1, rank_h=2.5, gradient_norm=math.inf),
            make_row(2),
            make_row(3, rank_h=4, gradient_norm=0.5, knn=0.7),
            make_row(4, rank_h=math.nan),
        ]
    )
    series = read_checkup(run.folder).series
    assert series == {"rank_h": Series([1, 3], [2.5, 4.0]), "gradient_norm": Series([3], [0.5])}
    assert list(series) == [name for name in MEASURES if name in series]


def test_verdicts_come_back_as_they_were_written(run: Run) -> None:
    later = dataclasses.replace(VERDICT, kind="collapsed", step=150, holds=False)
    write_verdicts(run.folder, 200, [VERDICT, later])
    assert read_checkup(run.folder)[1:] == ([VERDICT, later], 200)
    write_verdicts(run.folder, 300, [])
    assert read_checkup(run.folder)[1:] == ([], 300)


def spoil(**changed: Any) -> dict[str, Any]:
    return {"schema": 1, "step": 200, "verdicts": [{**dataclasses.asdict(VERDICT), **changed}]}


@pytest.mark.parametrize(
    "content",
    [
        [],
        5,
        {"schema": 1},
        {"step": -1, "verdicts": []},
        {"step": True, "verdicts": []},
        {"step": 1, "verdicts": 5},
        {"step": 1, "verdicts": [5]},
        {"step": 1, "verdicts": {"a": "b"}},
        spoil(advice=["one"]),
        spoil(advice=5),
        spoil(advice=["one", 2]),
        spoil(evidence=None),
        spoil(step="7"),
        spoil(holds="yes"),
    ],
    ids=repr,
)
def test_a_damaged_check_up_is_named(tmp_path: Path, content: Any) -> None:
    (tmp_path / CHECKUP).write_text(json.dumps(content))
    with pytest.raises(RunError, match=CHECKUP):
        read_checkup(tmp_path)


def test_a_check_up_that_cannot_be_written_is_a_sentence(run: Run) -> None:
    (run.folder / CHECKUP).mkdir()
    with pytest.raises(RunError, match="Cannot write the check-up of"):
        write_verdicts(run.folder, 1, [])
    assert os.path.isdir(run.folder / CHECKUP)
