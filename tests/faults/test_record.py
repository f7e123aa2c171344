"""Tests record.py, which counts the outcomes of the tests of faults and stores the counts in a JSON file.

It must recognize wrong outcomes. After a stop, it must continue from the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import record
from tests.faults.record import Record
from tests.faults.trials import Ended

ASKED = {"trials": 5, "seed": 0}


def test_the_folders_of_the_machine_are_not_recorded() -> None:
    found = Record("kills", ASKED, None)
    found.note("train", 'a traceback: File "/home/me/.venv/lib/json/encoder.py", line 4')
    assert found.wrong == [(0, 'train: a traceback: File "encoder.py", line 4')]


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Ended(-11, "", 1.0, 5), "exit code -11"),
        (Ended(1, "Traceback (most recent call last)\n", 1.0, 5), "a traceback"),
        (Ended(0, "", 61.0, 5), "61 seconds"),
        (Ended(0, "", 6.0, 5, after_signal=5.5), "5.5 seconds after the signal"),
        (Ended(0, "", 6.0, 5, after_signal=2.5), "ignored the signal, and ended 2.5 seconds after it"),
    ],
)
def test_a_wrong_end_is_noted(ended: Ended, reason: str) -> None:
    found = Record("corruptions", ASKED, None)
    assert found.judge("train", "all of config.json", Ended(143, "", 59.0, 5, after_signal=4.9), (0, 143))
    found.begin(3)
    assert not found.judge("train", "half of config.json", ended, (0, 1))
    ((trial, text),) = found.wrong
    assert trial == 3 and reason in text and "half of config.json" in text


def test_a_stopped_campaign_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    first = Record("changes", ASKED, out)
    first.count("killed", 2.0, 1.5)
    first.note("killed", "the weights differ")
    first.done = 2
    first.write()
    other = Record("kills", ASKED, out)
    other.count("killed", 1.0)
    other.write()
    again = Record("changes", ASKED, out)
    assert (again.done, again.counts, again.longest, again.processor) == (2, {"killed": 1}, 2.0, 1.5)
    assert again.take_wrong() == [(0, "killed: the weights differ")] and again.wrong == []
    assert set(json.loads(out.read_text())["parts"]) == {"changes", "kills"}
    with pytest.raises(SystemExit, match="Give another --out"):
        Record("changes", {"trials": 6, "seed": 0}, out)


def test_the_versions_of_a_campaign_are_noted_once(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    for _ in range(2):
        record.add_version(out)
        Record("kills", ASKED, out).write()
    (version,) = json.loads(out.read_text())["versions"]
    assert set(version) == {"commit", "python", "tensorflow"} and version["python"].startswith("3.")
