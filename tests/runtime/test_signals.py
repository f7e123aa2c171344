"""Tests that SIGINT, SIGTERM and SIGHUP end a program within seconds, with one sentence and the signal's exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 10.0  # seconds; a program should end within five seconds, but the machine may be busy
# Code that calls a C function which no signal interrupts: it locks a mutex that is already locked, and waits for ever.
C_CALL = """
lib, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
begin()
lib.pthread_mutex_lock(mutex)
lib.pthread_mutex_lock(mutex)
"""


def start(body: str) -> subprocess.Popen[str]:
    """Start a program that runs `body` with this package's signal handling. Wait until `body` calls `begin`."""
    text = f"""
        import ctypes, signal, sys, threading, time
        from lowlevel_simclr.runtime.signals import *
        from lowlevel_simclr.runtime import signals
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background ignores SIGINT
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        def begin():
            print("begun", flush=True)
        try:
            with signals.end_on_signals():
                signals.tell_stage("reading the images")
{textwrap.indent(textwrap.dedent(body), " " * 16)}
                print("done", flush=True)
        except signals.StopSignal as stop:
            print(signals.describe_stop(stop.number), file=sys.stderr)
            sys.exit(128 + stop.number)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n", process.communicate()
    return process


def end(process: subprocess.Popen[str]) -> tuple[str, str, float]:
    """Wait for the end of a process. Return the rest of its output, and the number of seconds that this took."""
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    return out, err, time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_python_ends_with_one_sentence(number: signal.Signals) -> None:
    process = start("begin()\ntime.sleep(60)")
    process.send_signal(number)
    _, err, seconds = end(process)
    assert process.returncode == 128 + number and seconds < LIMIT
    assert err == f"Stopped by {number.name} while reading the images. Run the same command again to continue.\n"


def test_a_signal_in_a_destructor_is_not_lost() -> None:
    """Test a signal in a destructor (`__del__`), in which Python only prints an exception and continues."""
    process = start("class Slow:\n    def __del__(self):\n        begin()\n        time.sleep(60)\nSlow()")
    process.send_signal(signal.SIGTERM)
    out, err, seconds = end(process)
    assert process.returncode == 128 + signal.SIGTERM and seconds < LIMIT and "done" not in out
    assert err == "Stopped by SIGTERM while reading the images. Run the same command again to continue.\n"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_long_call_into_a_library_does_not_keep_the_program(number: signal.Signals) -> None:
    process = start(C_CALL)
    time.sleep(1)  # by now, the program is inside the call
    process.send_signal(number)
    _, err, seconds = end(process)
    assert process.returncode == 128 + number and seconds < LIMIT
    assert err == f"Stopped by {number.name} while reading the images. Run the same command again to continue.\n"


def test_a_second_signal_ends_a_long_call_at_once() -> None:
    process = start("signals.PATIENCE = 1000" + C_CALL)
    time.sleep(1)  # by now, the program is inside the call
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert end(process)[2] < LIMIT and process.returncode == 128 + signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    process = subprocess.Popen(
        [
            "nohup",
            sys.executable,
            "-c",
            "import signal, sys\nfrom lowlevel_simclr.runtime import signals\n"
            "with signals.end_on_signals():\n    print('begun', flush=True); sys.stdin.read(); print('done')",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate("", timeout=60)[0] == "done\n" and process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_training_notes_the_signal(number: signal.Signals) -> None:
    process = start(
        """
        with signals.note_stop_requests() as asked:
            begin()
            while not asked():
                time.sleep(0.01)
            time.sleep(0.3)
            print("saved by", signal.Signals(asked()).name, flush=True)
        """
    )
    process.send_signal(number)
    out, err, _ = end(process)
    assert out == f"saved by {number.name}\ndone\n" and err == "" and process.returncode == 0


def test_a_second_ctrl_c_ends_training_at_once() -> None:
    process = start("with signals.note_stop_requests() as asked:\n    begin()\n    time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, _, seconds = end(process)
    assert process.returncode == 128 + signal.SIGINT and seconds < LIMIT


def test_workers_that_do_not_answer_do_not_keep_the_program() -> None:
    process = start(
        """
        with signals.note_stop_requests(1.0):
            begin()
            while True:
                time.sleep(0.1)
        """
    )
    process.send_signal(signal.SIGTERM)
    _, err, seconds = end(process)
    assert process.returncode == 128 + signal.SIGTERM and seconds < LIMIT
    assert "The other workers did not answer within 1 seconds." in err


def test_after_the_block_python_handles_signals_again() -> None:
    text = """
        import signal
        from lowlevel_simclr.runtime import signals
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        before = [signal.getsignal(number) for number in signals.WATCHED]
        with signals.end_on_signals():
            with signals.note_stop_requests() as asked:
                signal.raise_signal(signal.SIGTERM)
                assert asked() == signal.SIGTERM
        assert [signal.getsignal(number) for number in signals.WATCHED] == before
        with signals.note_stop_requests() as asked:
            assert asked() is None
            signal.raise_signal(signal.SIGHUP)
            assert asked() == signal.SIGHUP
        assert [signal.getsignal(number) for number in signals.WATCHED] == before
        assert signal.set_wakeup_fd(-1) == -1
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], cwd=ROOT, timeout=60)
    assert done.returncode == 0
