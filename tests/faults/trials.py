"""Makes one trial of the tests of faults: starts train, evaluate or embed in its own process, with a tiny network.

The shim (shim.c) is a library that counts the changes of files in a process. At a chosen change, it can kill the
process, or make the change fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

LIMIT = 60.0  # seconds; a longer trial counts as a hang, see `_measure_waiting`
SIGNAL_LIMIT = 5.0  # seconds that a program may need to end after a signal
LAST_MOMENT = 1.0  # seconds; if a program ends with exit code 0 later than this after a signal, it ignored the signal
SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--steps-per-call", "2"]
SMALL += ["--warmup-epochs", "0", "--knn-every", "0", "--steps", "6", "--checkpoint-every", "2", "--xla", "off"]
SMALL += ["--precision", "float32", "--keep-checkpoints", "2"]


class Ended(NamedTuple):
    """How a trial ended.

    Attributes:
        code: the exit code of the process, or the negative number of the signal that killed it.
        said: the last 4,000 characters of its output.
        seconds: the time that the trial took. If it took longer than the limit, or received a signal, the time for
            which it waited for a processor is subtracted.
        changes: the number of changes of files, counted by the shim.
        processor: the processor time that the trial took, in seconds.
        after_signal: the seconds from the signal of `Stop` to the end, without the time for which the process waited
            for a processor; 0 if there was no signal.
    """

    code: int
    said: str
    seconds: float
    changes: int
    processor: float = 0.0
    after_signal: float = 0.0


class Stop(NamedTuple):
    """A signal that is sent to a trial.

    Attributes:
        after: the processor time after which the signal is sent, in seconds. It is not wall time, because on a busy
            machine every trial would then get the signal near its beginning.
        number: the signal.
    """

    after: float
    number: signal.Signals


def load_programs() -> None:
    """Import TensorFlow and the programs once. A trial then only forks this process, and imports nothing.

    TensorFlow must not start its runtime here, because its threads do not survive a fork. It is not imported at the top
    of this file, because the process that only compiles the shim would then import it too.
    """
    import lowlevel_simclr.embed  # noqa: F401
    import lowlevel_simclr.evaluate  # noqa: F401
    import lowlevel_simclr.train  # noqa: F401
    import tests.support.small_runs  # noqa: F401
    from lowlevel_simclr.api import session, subject  # noqa: F401


def run_trial(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    fault: tuple[Path, int, int] | None = None,
    stop: Stop | None = None,
    sample: Callable[[int], None] | None = None,
    limit: float | None = None,
) -> Ended:
    """Run a program in a forked process.

    Args:
        program: train, evaluate or embed.
        arguments: its arguments.
        folder: the working folder of the process. Its output is kept there, in output.txt.
        fault: the fault that the shim makes, or None: (the folder in which the shim counts changes, the number of the
            change at which it acts, the kind of fault). See `fault_arm` in shim.c.
        stop: a signal that is sent to the process.
        sample: a function that is called with the process id, 50 times a second.
        limit: the seconds after which the process is killed. None means LIMIT.
    """
    output = folder / "output.txt"
    counted = folder / "changes.txt"
    counted.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        os._exit(_act(program, arguments, folder, output, counted, fault))
    code, seconds, after_signal = _Watch(child, stop, sample, LIMIT if limit is None else limit).wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = output.read_text(errors="replace")[-4000:] if output.exists() else ""
    changes = int(counted.read_text()) if counted.exists() else -1
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(code, said, seconds, changes, processor, after_signal)


class _Watch:
    """Waits until a process ends. Sends it the signal `stop`, and kills it if it takes too long."""

    def __init__(
        self, child: int, stop: Stop | None, sample: Callable[[int], None] | None, limit: float = LIMIT
    ) -> None:
        self.child, self.stop, self.sample, self.limit = child, stop, sample, limit
        self.started = time.monotonic()
        self.signalled: float | None = None  # the time at which the signal was sent
        self.waited_before = 0.0  # for how many seconds the process had waited for a processor before the signal

    def wait(self) -> tuple[int, float, float]:
        """Wait for the end of the process. Return the values `code`, `seconds` and `after_signal` of `Ended`."""
        waited = 0.0
        while True:
            found, status = os.waitpid(self.child, os.WNOHANG)
            now = time.monotonic()
            if found:
                seconds, after = now - self.started, 0.0 if self.signalled is None else now - self.signalled
                return (
                    os.waitstatus_to_exitcode(status),
                    seconds - waited,
                    max(0.0, after - waited + self.waited_before),
                )
            self._send_signal(now)
            if self.sample is not None:
                self.sample(self.child)
            if now - self.started >= self.limit or self.signalled is not None:
                waited = max(waited, _measure_waiting(self.child))
            if now - self.started - waited >= self.limit:
                os.kill(self.child, signal.SIGKILL)
            time.sleep(0.02)

    def _send_signal(self, now: float) -> None:
        if self.stop is not None and self.signalled is None and _measure_processor(self.child) >= self.stop.after:
            self.waited_before = _measure_waiting(self.child)
            self.signalled = now
            os.kill(self.child, self.stop.number)


def _measure_processor(process: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _measure_waiting(process: int) -> float:
    """Return for how many seconds a process has waited for a processor: the longest such time of its threads.

    On a busy machine, a trial can be slow although nothing is wrong, because it waits for a processor. A process that
    hangs does not wait for a processor: it sleeps, or it computes. Linux counts the waiting time of each thread in the
    thread's file `schedstat`.
    """
    waits = [0]
    with contextlib.suppress(OSError):  # the process, or one of its threads, has just ended
        for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError):
                waits.append(int(path.read_text().split()[1]))
    return max(waits) / 1e9


def _act(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    output: Path,
    counted: Path,
    fault: tuple[Path, int, int] | None,
) -> int:
    """Run the program in this process, which was just forked. Return the exit code."""
    _restore_signals()
    os.chdir(folder)
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    shim = ctypes.CDLL(None)
    if fault is not None:
        shim.fault_arm(os.fsencode(fault[0].absolute()), ctypes.c_long(fault[1]), fault[2])
    from tests.support.small_runs import draw_few_shapes, narrow_resnet20

    patch = pytest.MonkeyPatch()
    draw_few_shapes(patch)
    narrow_resnet20(patch)
    try:
        main = sys.modules[f"lowlevel_simclr.{program}"].main
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001, a user would see this error, so the trial prints it
        traceback.print_exc()
        code = 1
    if fault is not None:
        shim.fault_count.restype = ctypes.c_long
        counted.write_text(str(shim.fault_count()))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _restore_signals() -> None:
    """Give SIGINT, SIGTERM and SIGHUP the effect that they have in a program that a user starts on a terminal.

    If the campaign runs under nohup or in the background of a shell, it ignores SIGHUP or SIGINT. A forked trial
    inherits this. The programs under test leave an ignored signal ignored, so the signal of a trial would do nothing.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def read_final_state(run: Path) -> dict[str, bytes] | None:
    """Return the bytes of every array in the checkpoint of the last step, or None if it is missing or unreadable."""
    path = run / "checkpoints" / "step-00000006.npz"
    if not path.is_file():  # reading a FIFO or a device might never end
        return None
    try:
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files if name != "__meta__"}
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
