"""Tests bench.report.compare, which compares a new result of a benchmark with an older one.

It must fail if the new result is worse. It must refuse results of different benchmarks or machines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.report import compare
from tests.support.step_result import STEP

ROWS: dict[str, Any] = {"device": "a", "rows": [{"problem": {"N": 256}, "name": "native", "processor": 0.002}]}


def code(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], *flags: str) -> int:
    for name, result in (("old", old), ("new", new)):
        (tmp_path / name).write_text(json.dumps(result))
    return compare.main([str(tmp_path / "old"), str(tmp_path / "new"), *flags])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 0),
        ({"whole_pairs_per_second": 180.0}, 1),
        ({"whole_pairs_per_second": 196.0}, 0),
        ({"whole_pairs_per_second": 400.0}, 0),
        ({"peak_memory_bytes": 2**31}, 1),
        ({"plain_pairs_per_second": 60.0}, 0),
        ({"device": "b"}, 2),
        ({"config": {"encoder": "resnet18"}}, 2),
    ],
)
def test_only_what_got_worse_here_fails(tmp_path: Path, changed: dict[str, Any], expected: int) -> None:
    assert code(tmp_path, STEP, STEP | changed) == expected


def test_rows_are_compared_by_the_processor_time_of_what_is_ours(tmp_path: Path) -> None:
    slower = {"device": "a", "rows": [ROWS["rows"][0] | {"processor": 0.0022}]}
    assert code(tmp_path, ROWS, slower) == 1
    assert code(tmp_path, ROWS, slower, "--tolerance", "0.2") == 0
    assert code(tmp_path, slower, ROWS) == 0


def test_results_of_two_benchmarks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(tmp_path, ROWS, {"device": "a", "beyond_import_seconds": 3.0}) == 2
    assert "no quantity in common" in capsys.readouterr().err
