"""Tests how the package shows progress: a bar on a terminal, lines in a log file, and nothing if the work is short."""

from __future__ import annotations

import os
import re
import sys

import pytest
from tqdm import tqdm

from lowlevel_simclr.runtime import progress_bar
from lowlevel_simclr.runtime.progress_bar import ProgressLines, open_bar, start_clock_after, track


class Clock:
    """An imitation of a clock. Its time changes only when a test calls `wait`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr("tqdm.std.time", lambda: self.now)
        patch.setattr("time.monotonic", lambda: self.now)

    def wait(self, seconds: float) -> None:
        """Move the clock forward by this many seconds."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the imitated clock, which replaces Python's clock during a test."""
    return Clock(monkeypatch)


def test_short_work_prints_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track(range(10), "reading images", 10, "images"):
        clock.wait(1.1)  # 11 seconds in all
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_line_now_and_then_with_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in track(range(4000), "reading images", 4000, "images"):
        clock.wait(1 / 64)  # 62.5 seconds in all
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert re.fullmatch(r"reading images: 7\d\d of 4,000 images, 64 images/s, 00:50 left", lines[0])
    assert all("\r" not in line for line in lines)


def test_without_a_title_nothing_is_shown(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "", 3, "images")) == [0, 1, 2]
    for _ in track(range(3), "", 3, "images"):
        clock.wait(100)
    assert capsys.readouterr() == ("", "")


def test_the_last_state_of_kept_work_is_a_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with open_bar("training", 20, "steps", done=10, keep=True) as bar:
        clock.wait(4)
        bar.set_postfix_str("loss 4.410", refresh=False)
        bar.update(10)
    assert capsys.readouterr().err == "training: 20 of 20 steps, 2.5 steps/s, loss 4.410\n"


def test_the_last_state_is_printed_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with open_bar("training", 20, "steps", keep=True) as bar:
        clock.wait(16)
        bar.update(20)
    assert capsys.readouterr().err == "training: 20 of 20 steps, 1.2 steps/s\n"


def test_another_line_does_not_repeat_the_progress(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with open_bar("training", 20, "steps") as bar:
        clock.wait(20)
        bar.update(10)
        tqdm.write("a warning")
    printed = capsys.readouterr()
    assert printed.out == "a warning\n" and printed.err.count("\n") == 1


def test_bytes_and_an_unknown_total(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with open_bar("downloading a.tar", None, "B", scale=True) as bar:
        clock.wait(15)
        bar.update(30_000_000)
    assert capsys.readouterr().err == "downloading a.tar: 30.0MB, 2.00MB/s\n"


def test_the_clock_starts_after_the_items_that_do_not_count(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with open_bar("training", 101, "steps", keep=True) as bar:
        clock.wait(60)
        start_clock_after(bar, 1)
        capsys.readouterr()
        clock.wait(15)
        bar.update(30)
        (line,) = capsys.readouterr().err.splitlines()
    assert line == "training: 31 of 101 steps, 2 steps/s, 00:35 left"


def test_the_first_of_some_items_may_take_longer(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for place in track(range(101), "fine-tuning", 101, "steps", compiles=True):
        clock.wait(0.5 if place else 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fine-tuning: 1 of 101 steps"
    assert lines[1].startswith("fine-tuning: 2") and ", 2 steps/s, 00:3" in lines[1]


def test_a_terminal_gets_a_bar_with_the_time_left(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with open_bar("reading images", 100, "images") as bar:
        assert not isinstance(bar, ProgressLines)
        clock.wait(0.5)
        bar.update(1)
        assert capsys.readouterr().err == ""  # nothing is shown yet, because the work may be short
        clock.wait(1)
        bar.update(29)
        shown = capsys.readouterr().err
    assert "reading images:  30%" in shown and " images/s" in shown and "<" in shown


def test_a_number_has_as_many_digits_as_it_needs() -> None:
    shown = [progress_bar._format_number(number) for number in (0.123, 2.0, 2.51, 12.7, 12345.6)]
    assert shown == ["0.12", "2", "2.5", "13", "12,346"]


def test_a_terminal_without_columns_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2, raising=False)
    for columns, lines in ((0, True), (80, False)):
        monkeypatch.setattr(os, "get_terminal_size", lambda fd, columns=columns: os.terminal_size((columns, columns)))
        with open_bar("reading images", 100, "images") as bar:
            assert isinstance(bar, ProgressLines) == lines
