"""Tests bench.gpu_session, which runs a list of commands (parts) on a machine with a GPU, within a time limit.

An interrupted session must continue. A dry session, which makes each part tiny, must run every part.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu_session
from bench.gpu_session import Part
from bench.report.markers import write_between

ROOT = Path(__file__).parents[2]
WELL = ["-c", "open(r'OUT/it.json', 'w').write('1')"]
BADLY = ["-c", "raise SystemExit('no memory')"]


def make_part(name: str, command: list[str], seconds: float = 1) -> Part:
    return Part(name, "why", seconds, command, command)


def test_a_session_continues_with_what_has_not_ended_well(tmp_path: Path) -> None:
    first = gpu_session.run_session([make_part("one", WELL), make_part("two", BADLY)], tmp_path, 60, False)
    assert [each["exit_code"] for each in first] == [0, 1]
    assert "no memory" in (tmp_path / "two" / "output.txt").read_text()
    (tmp_path / "one" / "it.json").unlink()
    second = gpu_session.run_session([make_part("one", WELL), make_part("two", WELL)], tmp_path, 60, False)
    assert [each["exit_code"] for each in second] == [0, 0]
    assert not (tmp_path / "one" / "it.json").exists()  # part "one" had succeeded and did not run again
    stored = json.loads((tmp_path / "session.json").read_text())
    assert [each["name"] for each in stored["parts"]] == ["one", "two"] and stored["dry"] is False


def test_a_part_that_does_not_fit_into_the_time_is_left_for_another_call(tmp_path: Path) -> None:
    parts = [make_part("long", WELL, 100), make_part("short", WELL)]
    assert [each["name"] for each in gpu_session.run_session(parts, tmp_path, 50, False)] == ["short"]


def test_a_part_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ended = gpu_session.run_part(make_part("endless", ["-c", "import time; time.sleep(60)"]), tmp_path, False, 0.5)
    assert ended["exit_code"] == 124


def test_all_parts_fit_into_fifteen_minutes_but_for_the_last() -> None:
    parts = gpu_session.list_parts("data")
    assert sum(part.seconds for part in parts[:5]) < 13 * 60
    assert len({part.name for part in parts}) == len(parts)


def test_the_page_lists_the_parts(tmp_path: Path) -> None:
    page, copy = ROOT / "docs" / "gpu.md", tmp_path / "gpu.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    write_between(copy, "gpu_session", gpu_session.format_list(gpu_session.list_parts("data")))
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_dry_session_runs_every_part(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu_session", "--dry", "--out", str(tmp_path), "--minutes", "60"]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (tmp_path / "step_resnet18" / "step.json").exists() and (tmp_path / "nt_xent" / "nt_xent.json").exists()
