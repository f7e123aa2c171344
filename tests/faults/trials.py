"""One trial of the fault campaign: a program of this package in a process of its own, on a run that takes seconds."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.support.small_runs import draw_few_shapes, narrow_resnet20

LIMIT = 60.0  # seconds. A trial that takes longer counts as a hang
SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--steps-per-call", "2"]
SMALL += ["--warmup-epochs", "0", "--knn-every", "0", "--steps", "6", "--checkpoint-every", "2", "--xla", "off"]
SMALL += ["--precision", "float32", "--keep-checkpoints", "2"]


class Ended(NamedTuple):
    """How a trial ended.

    Attributes:
        code: the exit code, or minus the number of the signal that killed it.
        said: the last 4,000 characters of its output.
        seconds: the time that it took.
        changes: the changes of files that the shim counted.
    """

    code: int
    said: str
    seconds: float
    changes: int


def load_programs() -> None:
    """Import TensorFlow and the programs once, so that a trial is a fork that costs no import.

    TensorFlow must not start its runtime here, because its threads do not survive a fork.
    """
    import lowlevel_simclr.embed  # noqa: F401
    import lowlevel_simclr.evaluate  # noqa: F401
    import lowlevel_simclr.train  # noqa: F401
    from lowlevel_simclr.api import session, subject  # noqa: F401


def run_trial(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    fault: tuple[Path, int, int] | None = None,
    stop_after: Callable[[], float] | None = None,
) -> Ended:
    """Run a program in a forked process.

    Args:
        program: train, evaluate or embed.
        arguments: its arguments.
        folder: the working folder of the process. Its output is kept there, in output.txt.
        fault: what the shim does, see `fault_arm` in shim.c: the folder, the number of the change, and the kind.
        stop_after: returns after how many seconds the process is killed with SIGKILL.
    """
    output = folder / "output.txt"
    counted = folder / "changes.txt"
    counted.unlink(missing_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_act(program, arguments, folder, output, counted, fault))
    limit = LIMIT if stop_after is None else min(LIMIT, stop_after())
    code = _wait(child, started + limit)
    if code is None:
        os.kill(child, signal.SIGKILL)
        code = _wait(child, started + limit + LIMIT)
    said = output.read_text(errors="replace")[-4000:] if output.exists() else ""
    changes = int(counted.read_text()) if counted.exists() else -1
    assert code is not None
    return Ended(code, said, time.monotonic() - started, changes)


def _wait(child: int, deadline: float) -> int | None:
    """Return how a process ended, or None if it still runs at the deadline."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


def _act(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    output: Path,
    counted: Path,
    fault: tuple[Path, int, int] | None,
) -> int:
    """Run the program in this process, which was just forked; return the exit code."""
    os.chdir(folder)
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    shim = ctypes.CDLL(None)
    if fault is not None:
        shim.fault_arm(os.fsencode(fault[0].absolute()), ctypes.c_long(fault[1]), fault[2])
    patch = pytest.MonkeyPatch()
    draw_few_shapes(patch)
    narrow_resnet20(patch)
    try:
        main = sys.modules[f"lowlevel_simclr.{program}"].main
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001, an error that a user would see
        traceback.print_exc()
        code = 1
    if fault is not None:
        shim.fault_count.restype = ctypes.c_long
        counted.write_text(str(shim.fault_count()))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def read_final_state(run: Path) -> dict[str, bytes] | None:
    """Return the bytes of every array of the last checkpoint, or None if there is no checkpoint of the last step."""
    path = run / "checkpoints" / "step-00000006.npz"
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name != "__meta__"}
