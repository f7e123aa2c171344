"""The short form of the fault campaign, and that it notices what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign
from tests.faults.trials import Ended

ROOT = Path(__file__).parents[2]


def run_campaign(out: Path, *flags: str) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.faults.campaign", "--out", str(out), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def test_a_few_faults_of_each_kind_lose_nothing(tmp_path: Path) -> None:
    found = run_campaign(
        tmp_path / "found.json", "--changes", "1", "--kills", "1", "--corruptions", "4", "--inputs", "100"
    )
    assert found["wrong"] == []
    counts = found["counts"]
    assert isinstance(counts, dict) and counts["killed"] == counts["disk full"] == 1 and counts["corruption"] == 4


@pytest.mark.slow
def test_many_faults_lose_nothing(tmp_path: Path) -> None:
    flags = ["--changes", "10", "--kills", "20", "--corruptions", "60", "--inputs", "1000", "--seed", "1"]
    assert run_campaign(tmp_path / "found.json", *flags)["wrong"] == []


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """A campaign whose run without a fault is made up."""
    monkeypatch.setattr("tests.faults.campaign.run_trial", lambda *given, **more: Ended(0, "", 1.0, 5))
    monkeypatch.setattr("tests.faults.campaign.read_final_state", lambda run: {"weights": b"1"})
    return Campaign(tmp_path, 0)


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Ended(-11, "", 1.0, 5), "exit code -11"),
        (Ended(1, "Traceback (most recent call last)\n", 1.0, 5), "a traceback"),
        (Ended(0, "", 61.0, 5), "61 seconds"),
    ],
)
def test_a_wrong_end_is_noted(campaign: Campaign, ended: Ended, reason: str) -> None:
    assert not campaign.judge("corruption", "half of config.json", ended, (0, 1))
    assert len(campaign.wrong) == 1 and reason in campaign.wrong[0] and "half of config.json" in campaign.wrong[0]


def test_other_weights_are_noted(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign.compare("killed", "change 3", campaign.whole)
    assert campaign.wrong == []
    monkeypatch.setattr("tests.faults.campaign.read_final_state", lambda run: {"weights": b"2"})
    campaign.compare("killed", "change 3", campaign.whole)
    monkeypatch.setattr("tests.faults.campaign.read_final_state", lambda run: None)
    campaign.compare("killed", "change 3", campaign.whole)
    assert [text.rpartition(": ")[2] for text in campaign.wrong] == [
        "the weights differ",
        "there is no last checkpoint",
    ]
