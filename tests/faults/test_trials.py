"""Tests trials.py, which runs a program in a forked process (a trial), measures its time, and can send it a signal.

A program that waits for a busy processor must not count as a program that hangs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults import trials

Process = subprocess.Popen[bytes]


@pytest.fixture
def busy() -> Iterator[Process]:
    """Start a process that computes without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


def test_a_hang_is_killed_at_the_limit() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    code, seconds, after_signal = trials._Watch(child, None, None, 0.5).wait()
    assert code == -signal.SIGKILL and 0.5 <= seconds < 5.0 and after_signal == 0.0


def test_time_spent_waiting_for_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    monkeypatch.setattr(trials, "_measure_waiting", lambda process: 0.9 * (time.monotonic() - started))
    child = os.fork()
    if child == 0:
        time.sleep(2.0)
        os._exit(0)
    code, seconds, _ = trials._Watch(child, None, None, 0.5).wait()
    assert code == 0 and seconds < 0.5


def test_waiting_is_that_of_the_kernel(busy: Process) -> None:
    """Test the time for which a process waits for a processor, as Linux counts it.

    If two processes compute on one processor, each waits about half of the time. A sleeping process does not wait.
    """
    processor = next(iter(os.sched_getaffinity(0)))
    os.sched_setaffinity(busy.pid, {processor})
    rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(rival.pid, {processor})
        time.sleep(2.0)
        assert trials._measure_waiting(busy.pid) > 0.2
    finally:
        rival.kill()
        rival.wait()
    sleeper = subprocess.Popen(["sleep", "30"])
    try:
        time.sleep(1.0)
        assert trials._measure_waiting(sleeper.pid) < 0.5
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_program_receives_signals_that_its_parent_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Test that a trial receives SIGHUP and SIGINT even if its parent process ignores them, for example under nohup."""

    def wait(arguments: list[str]) -> int:
        while True:
            sum(range(10_000))

    monkeypatch.setitem(sys.modules, "lowlevel_simclr.train", SimpleNamespace(main=wait))
    before = signal.signal(number, signal.SIG_IGN)
    try:
        ended = trials.run_trial("train", [], tmp_path, stop=trials.Stop(0.1, number), limit=5.0)
    finally:
        signal.signal(number, before)
    assert ended.code in (-number, 1) and ended.seconds < 4.0  # Python may end with 1 after SIGINT


def test_a_signal_comes_after_the_processor_time(busy: Process) -> None:
    watch = trials._Watch(busy.pid, trials.Stop(0.3, signal.SIGTERM), None)
    code, seconds, after_signal = watch.wait()
    assert code == -signal.SIGTERM and seconds > 0.25 and after_signal < seconds
