"""Tests the program campaign.py, which kills training, fills the disk, damages files and looks at the outcome.

A short campaign must find nothing wrong. With imitated wrong outcomes, a campaign must notice them.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.campaign import KILL, PARTS, Campaign, run_parts
from tests.faults.record import Record
from tests.faults.trials import Ended, Stop

ROOT = Path(__file__).parents[2]


def run_campaign(out: Path, *flags: str) -> dict[str, Any]:
    """Run a campaign, and assert that it finds nothing wrong. Return the parts from its JSON file."""
    command = [sys.executable, "-m", "tests.faults.campaign", "--out", str(out), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert all(part["wrong"] == [] and part["done"] == part["asked"]["trials"] for part in parts.values())
    return parts


def test_a_few_faults_of_each_kind_lose_nothing(tmp_path: Path) -> None:
    flags = ["--changes", "3", "--kills", "1", "--corruptions", "2", "--signals", "1", "--inputs", "400"]
    parts = run_campaign(tmp_path / "found.json", *flags, "--memory", "0")
    counts = parts["changes"]["counts"]
    assert counts["killed"] == counts["disk full"] == counts["input/output error"] == 1
    assert parts["kills"]["counts"]["killed"] == 1 and sum(parts["corruptions"]["counts"].values()) == 2
    assert set(parts["inputs"]["counts"].values()) == {100} and parts["signals"]["done"] == 1


@pytest.mark.slow
def test_many_faults_lose_nothing(tmp_path: Path) -> None:
    flags = ["--changes", "30", "--kills", "20", "--corruptions", "60", "--signals", "18", "--inputs", "4000"]
    parts = run_campaign(tmp_path / "found.json", *flags, "--memory", "400", "--seed", "1")
    assert parts["kills"]["done"] == 20


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """Return a campaign that starts no programs. Each trial seems to succeed, with the same imitated weights."""
    monkeypatch.setattr("tests.faults.campaign.run_trial", lambda *given, **more: Ended(0, "", 1.0, 12))
    monkeypatch.setattr("tests.faults.campaign.read_final_state", lambda run: {"weights": b"1"})
    records = {part: Record(part, {"trials": 3, "seed": 0}, None) for part in PARTS}
    return Campaign(tmp_path, 0, records)


def test_other_weights_are_noted(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    record = campaign.records["changes"]
    campaign.compare(record, "killed", "change 3", campaign.whole)
    assert record.wrong == []
    monkeypatch.setattr("tests.faults.campaign.read_final_state", lambda run: {"weights": b"2"})
    campaign.compare(record, "killed", "change 3", campaign.whole)
    monkeypatch.setattr("tests.faults.campaign.read_final_state", lambda run: None)
    campaign.compare(record, "killed", "change 3", campaign.whole)
    assert [text.rpartition(": ")[2] for _, text in record.wrong] == [
        "the weights differ",
        "there is no last checkpoint",
    ]


def test_each_change_fails_once_before_one_fails_twice(campaign: Campaign) -> None:
    assert len(campaign.faults) == len(set(campaign.faults)) == 3 * campaign.changes
    first = campaign.faults[: campaign.changes + campaign.changes // 3]
    assert sorted(change for change, kind in first if kind != KILL) == list(range(1, campaign.changes + 1))
    assert sum(kind == KILL for _, kind in first) == campaign.changes // 3
    assert sum(kind == errno.EIO for _, kind in first) == campaign.changes // 2


def test_the_parts_take_turns_and_wrong_trials_are_tried_again(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    for part in ("kills", "inputs"):
        monkeypatch.setitem(PARTS, part, lambda campaign, number, part=part: tried.append((part, number)))
    campaign.records["inputs"].asked["trials"] = 6
    campaign.records["kills"].wrong.append((1, "a traceback"))
    assert run_parts(campaign, ["kills", "inputs"]) == 0
    assert tried[0] == ("kills", 1) and campaign.records["kills"].mended == [(1, "a traceback")]
    assert sorted(tried[1:]) == [*(("inputs", n) for n in range(6)), *(("kills", n) for n in range(3))]
    turns = [part for part, _ in tried[1:]]
    assert turns == ["kills", "inputs", "inputs"] * 3


def test_a_kill_that_comes_too_late_is_drawn_again(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = []

    def end_or_die(program: str, flags: list[str], folder: Path, stop: Stop) -> Ended:
        moments.append(stop.after)
        return Ended(0 if len(moments) < 3 else -9, "", 1.0, 12)

    campaign.processor = 4.0
    monkeypatch.setattr("tests.faults.campaign.run_trial", end_or_die)
    campaign.kill_at_random(0)
    assert len(set(moments)) == 3 and max(moments) < 4.4
    assert campaign.records["kills"].counts == {"killed, resumed": 2, "killed": 1}
    assert campaign.killed_again is not None
