"""Tests where an evaluation writes its results: to evaluation.json, to another file, or only to the terminal."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from lowlevel_simclr.evaluation.record import Record
from lowlevel_simclr.run import results
from lowlevel_simclr.run.atomic import RunError


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every attempt to write a file fail, as on a file system that is mounted read-only."""

    def refuse(*given: object, **more: object) -> BinaryIO:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(results, "lock_file", refuse)


def test_results_are_added_to_the_run(tmp_path: Path) -> None:
    record = Record(tmp_path, 4)
    record.add({"knn": {"20": 0.5}})
    assert record.add({"linear": 0.7}) == {"step": 4, "knn": {"20": 0.5}, "linear": 0.7}
    assert results.read_evaluation(tmp_path) == {"step": 4, "knn": {"20": 0.5}, "linear": 0.7}


@pytest.mark.usefixtures("read_only")
def test_a_read_only_run_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path, 4)
    record.add({"knn": {"20": 0.5}})
    assert record.add({"linear": 0.7}) == {"step": 4, "knn": {"20": 0.5}, "linear": 0.7}
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "Read-only file system" in said and "--out" in said
    assert list(tmp_path.iterdir()) == []


def test_results_go_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    Record(tmp_path / "run", 4, tmp_path / "results.json").add({"linear": 0.7})
    assert json.loads((tmp_path / "results.json").read_text()) == {"step": 4, "linear": 0.7}
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.usefixtures("read_only")
def test_another_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Read-only"):
        Record(tmp_path, 4, tmp_path / "results.json")


def test_a_disk_that_fills_later_leaves_the_results_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(tmp_path, 4)
    record.add({"knn": {"20": 0.5}})

    def fill(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(results, "write_json", fill)
    assert record.add({"linear": 0.7}) == {"step": 4, "knn": {"20": 0.5}, "linear": 0.7}
    assert "No space left" in capsys.readouterr().err
    assert results.read_evaluation(tmp_path) == {"step": 4, "knn": {"20": 0.5}}
