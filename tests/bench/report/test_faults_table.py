"""Tests the table of results of tests/faults/campaign.py, which kills programs and damages files in many trials.

For each part of the campaign, the table must show the number of trials and the number of wrong outcomes.
"""

from __future__ import annotations

from typing import Any

from bench.report import faults_table


def make_part(done: int, trials: int, **more: Any) -> dict[str, Any]:
    empty = {"facts": {}, "counts": {}, "wrong": [], "mended": [], "processor_seconds": 10.0}
    return {"asked": {"trials": trials}, "done": done, "longest_trial_seconds": 3.5, **empty, **more}


def test_the_table_names_every_part_and_what_is_missing() -> None:
    versions = [{"commit": commit, "python": "3.11.7", "tensorflow": "2.21.0"} for commit in ("a", "b")]
    facts = {"changes_tried": 7, "changes_of_a_run": 692}
    campaign = {
        "versions": versions,
        "parts": {
            "inputs": make_part(2000, 2000, counts={"image": 1500, "npz": 500}),
            "changes": make_part(9, 923, counts={"killed": 2, "disk full": 7}, facts=facts, wrong=[[3, "a traceback"]]),
            "kills": make_part(500, 500, mended=[[1, "exit code 1"]]),
        },
    }
    kernels = {
        "kernels": {
            "address": {"seconds": 60, "cases": {"nt_xent": 1000, "make_views": 234}, "right": True},
            "fuzzer": {"seconds": 600, "cases": {"nt_xent": 5}, "right": False},
        }
    }
    said = faults_table.format_table(campaign, kernels)
    rows = said.splitlines()
    assert "killed 2, disk full 7, input/output error 0; 7 of the 692 changes" in rows[2]
    assert rows[2].endswith("| 9 of 923 | 1 |") and rows[3].endswith("| 500 of 500 | 0 |")
    assert rows[4] == "| an input with random damage (image 1,500, npz 500) | 2,000 of 2,000 | 0 |"
    assert rows[5] == "| the kernels under AddressSanitizer, 60 seconds for each driver | 1,234 | 0 |"
    assert rows[6].endswith("| 5 | at least 1 |")
    assert "30 seconds of processor time on Python 3.11.7 with TensorFlow 2.21.0. The longest trial took 3.5" in said
    assert "At first, 1 of these trials ended wrongly. All of them" in said
    assert "ended correctly when they were repeated after corrections. The campaign is not complete: changes." in said


def test_the_stored_result_has_a_row_for_each_part() -> None:
    rows = faults_table.format_stored().splitlines()
    assert len(rows) >= 2 + len(faults_table.DESCRIBE)
