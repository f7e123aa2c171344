"""Tests the program `report`, which writes a web page about one training, or a comparison of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowlevel_simclr import report
from tests.support.finished_run import write_finished_run


def test_one_run_gets_a_page_and_several_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (str(write_finished_run(tmp_path / name)) for name in ("one", "two"))
    monkeypatch.chdir(tmp_path)
    assert report.main([one]) == 0
    assert report.main([one, two]) == 0
    assert report.main([one, "--out", "mine.html"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Wrote {one}/report.html", "Wrote comparison.html", "Wrote mine.html"]
    assert "<h1>2 runs compared</h1>" in Path("comparison.html").read_text()
    assert "<h1>Run one</h1>" in Path("mine.html").read_text()


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 1
    assert "is not a run folder (it has no config.json)" in capsys.readouterr().err
