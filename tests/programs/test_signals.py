"""Tests that a signal such as SIGTERM ends each program within seconds, and that the same command then continues."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.small_program import PROGRAM

ROOT = Path(__file__).parents[2]
LIMIT = 8.0  # seconds; a program should end within five seconds, but the machine may be busy
FLAGS = [
    "--image-size",
    "8",
    "--batch-size",
    "64",
    "--steps",
    "400",
    "--knn-every",
    "0",
    "--warmup-epochs",
    "0",
    "--out",
    "run",
]
TRAIN = ["train", *FLAGS]
ROWS = "rows"  # means: wait for metrics.jsonl, because output through a pipe has no progress bar


def start(folder: Path, program: str, *flags: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, program, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for(process: subprocess.Popen[bytes], word: str) -> str:
    """Read the output of a program until `word` appears. Return the output so far."""
    assert process.stdout is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while word.encode() not in said:
            assert selector.select(240), f"no {word!r} in {said!r}"
            part = os.read(process.stdout.fileno(), 2**16)
            assert part, f"no {word!r} in {said!r}"
            said += part
    return said.decode(errors="replace")


def wait_for_rows(path: Path) -> None:
    """Wait until metrics.jsonl has content, which means that training has begun."""
    deadline = time.monotonic() + 240
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> str:
    """Send a signal to a program, and assert that it ends soon, without a traceback. Return the rest of its output."""
    process.send_signal(number)
    started = time.monotonic()
    said = process.communicate(timeout=120)[0].decode(errors="replace")
    assert time.monotonic() - started < LIMIT, said
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said and f"Stopped by {number.name}" in said, said
    return said


@pytest.mark.parametrize(
    ("word", "number", "stage"),
    [
        pytest.param("", signal.SIGTERM, "", marks=pytest.mark.slow),
        pytest.param("compiling  ", signal.SIGINT, "compiling the first step", marks=pytest.mark.slow),
        pytest.param(ROWS, signal.SIGHUP, "saved at step", marks=pytest.mark.slow),
        pytest.param(
            "evaluating the trained",
            signal.SIGTERM,
            "evaluating the encoder (the training is saved)",
            marks=pytest.mark.slow,
        ),
        pytest.param("linear probe", signal.SIGINT, "evaluating the encoder", marks=pytest.mark.slow),
    ],
)
def test_training_ends_soon_and_the_same_command_goes_on(
    tmp_path: Path, word: str, number: signal.Signals, stage: str
) -> None:
    process = start(tmp_path, *TRAIN)
    if word == ROWS:
        wait_for_rows(tmp_path / "run" / "metrics.jsonl")
    elif word:
        wait_for(process, word)
    else:
        time.sleep(1.5)  # by now, the program is importing TensorFlow
    assert stage in stop(process, number)
    again = start(tmp_path, *TRAIN)
    said = again.communicate(timeout=240)[0].decode(errors="replace")
    assert again.returncode == 0 and (tmp_path / "run" / "evaluation.json").exists(), said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_other_programs_end_soon(tmp_path: Path, number: signal.Signals) -> None:
    trained = start(tmp_path, *TRAIN)
    assert trained.communicate(timeout=240) and trained.returncode == 0
    for program, flags, word in (
        ("evaluate", ["run", "--protocol", "knn,linear"], "k-NN"),
        ("evaluate", ["run", "--protocol", "finetune", "--finetune-steps", "500"], ""),
        ("check", [], "native library"),
    ):
        process = start(tmp_path, program, *flags)
        if word:
            wait_for(process, word)
        else:
            time.sleep(12)
        stop(process, number)


@pytest.mark.slow
def test_a_worker_that_waits_for_the_others_ends_soon(tmp_path: Path) -> None:
    config = '{"cluster": {"worker": ["127.0.0.1:29731", "127.0.0.1:29732"]}, "task": {"type": "worker", "index": 0}}'
    process = subprocess.Popen(
        [sys.executable, "-m", "lowlevel_simclr.train", *FLAGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": config},
    )
    time.sleep(15)
    assert process.poll() is None
    stop(process, signal.SIGTERM)


def run_in_shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command, in which the word TRAIN stands for the training command."""
    train = shlex.join([sys.executable, "-c", PROGRAM, *TRAIN])
    return subprocess.run(
        ["bash", "-c", command.replace("TRAIN", train)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_a_reader_that_ends_stops_training_with_one_sentence(tmp_path: Path) -> None:
    done = run_in_shell(tmp_path, "TRAIN 2> errors | head -1; echo ${PIPESTATUS[0]}")
    said = (tmp_path / "errors").read_text()
    assert done.stdout.endswith("\n141\n") and "Traceback" not in said and "(SIGPIPE)" in said, (done.stdout, said)


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["> /dev/full", "2> /dev/full", ">&- 2>&-"])
def test_output_that_cannot_be_written_does_not_stop_training(tmp_path: Path, redirect: str) -> None:
    done = run_in_shell(tmp_path, f"TRAIN {redirect}")
    assert done.returncode == 0 and (tmp_path / "run" / "evaluation.json").exists(), done
