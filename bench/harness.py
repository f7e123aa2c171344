"""Times alternatives that agree: the one way in which this project measures.

`compare` first asks every alternative for its answer and refuses to time any two that disagree. Then it alternates
them, a call or 20 ms of calls each in turn, so that a neighbour's load falls on all alike, and reports minimum, median,
10th and 90th percentile of wall time and the least processor time of a turn. `peak_memory` measures the growth of peak
memory in a process of its own. Running out of memory is a row of the result.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import utilisation
from lowlevel_simclr.run.environment import measure_peak_resident

RESULTS = Path(__file__).parent / "results"
TURN = 0.02  # seconds: a training step's own rhythm, and longer than a thread pool spins for more work
Call = Callable[[], Sequence[np.ndarray]]
LONG_CALL = 10.0  # seconds; calls as long as this are warmed up once and timed once at least


class Disagreement(AssertionError):
    """Two alternatives give different answers: comparing their times would mean nothing."""


@dataclass
class Row:
    """One alternative on one problem. Times in seconds, memory in bytes; None where it did not run."""

    problem: dict[str, Any]
    name: str
    repeats: int = 0
    minimum: float | None = None
    median: float | None = None
    p10: float | None = None
    p90: float | None = None
    processor: float | None = None
    peak_memory: int | None = None
    operations: float | None = None
    of_sgemm: float | None = None  # by processor time, against the sgemm measured in the same minutes
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def in_a_row() -> int:
    """How often a call of an op that takes less than a millisecond computes it: on a GPU, which works while the next
    one is sent to it, many times, and waits once; on a processor once."""
    return 20 if utilisation.gpu_name() is not None else 1


@dataclass
class Alternative:
    """A way to compute the problem: `prepare` returns a call without arguments, the call NumPy arrays.

    One that draws random numbers of its own cannot give the same answer (`own_numbers`): of it only the shape is
    compared, and that it stays within the range of the first answer, give or take the tolerance. Its row says so.
    """

    name: str
    prepare: Callable[[], Call]
    own_numbers: bool = False


def device_name() -> str:
    """The GPU's name, or else the processor's, for the folder of its results.

    Virtual machines name processors of several generations alike, so that family and model stand behind the name.
    """
    gpu = utilisation.gpu_name()
    if gpu is not None:
        return "-".join(gpu.split()).replace("/", "-")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.machine()
    name = f"{facts['model name']} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return "-".join(name.split()).replace("/", "-") + f"-{len(os.sched_getaffinity(0))}-cores"


def compare(
    problem: dict[str, Any],
    alternatives: Sequence[Alternative],
    *,
    operations: float,
    seconds: float,
    tolerance: float,
    sgemm: Callable[[], Any] | None = None,
    sgemm_operations: float = 0.0,
    in_a_row: int = 1,
) -> list[Row]:
    """Time alternatives of one problem, alternating.

    Args:
        problem: what is computed; stored with every row.
        alternatives: the first is what the others must agree with.
        operations: floating-point operations of the problem, for GFLOP/s.
        seconds: how long to measure each alternative, about; five turns at least (one where a
            call takes more than LONG_CALL), a thousand at most.
        tolerance: largest difference of answers, relative to the largest entry.
        sgemm: a matrix product timed in the same turns, the machine's ceiling of the day.
        sgemm_operations: its floating-point operations.
        in_a_row: how often each call computes its answer; the times are of one.

    Raises:
        Disagreement: two alternatives differ by more than the tolerance.
    """
    rows = [Row(problem, alternative.name, operations=operations) for alternative in alternatives]
    calls, answers = map(list, zip(*(_prepared(alternative, row) for alternative, row in zip(alternatives, rows))))
    _refuse_disagreement(rows, answers, tolerance, [alternative.own_numbers for alternative in alternatives])
    del answers  # no memory beside what is timed
    ceiling = _Timer(sgemm) if sgemm else None
    timers = [_Timer(call) if call else None for call in calls]
    end = time.perf_counter() + seconds * sum(timer is not None for timer in timers)
    for turn in range(1000):
        least = 1 if any(timer and max(timer.wall, default=0.0) > LONG_CALL for timer in timers) else 5
        if turn >= least and time.perf_counter() > end:
            break
        for timer in (*timers, ceiling):
            if timer:
                timer.turn()
    for row, timer in zip(rows, timers):
        if timer:
            timer.fill(row, in_a_row)
            if ceiling:
                rate = sgemm_operations / min(ceiling.processor)
                row.of_sgemm = operations / (min(timer.processor) / in_a_row) / rate
                row.extra["sgemm_gflops_per_processor_second"] = rate / 1e9
    return rows


def _prepared(alternative: Alternative, row: Row) -> tuple[Call | None, Sequence[np.ndarray] | None]:
    """The alternative's call, warmed up, and what it gave first; both None, and a note in the row, without memory.

    What it gave first, for a call may go on from where the one before it ended, and not all are warmed up as often.
    """
    try:
        call = alternative.prepare()
        started = time.perf_counter()
        answer = call()
        for _ in range(2):
            if time.perf_counter() - started > LONG_CALL:
                break  # nothing of a first call is left in the times of calls as long as this
            started = time.perf_counter()
            call()
        return call, answer
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        row.note = "out of memory"
        return None, None


def _is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return any(sign in text for sign in ("memoryerror", "out of memory", "resourceexhausted", "oom", "bad_alloc"))


def _refuse_disagreement(
    rows: Sequence[Row], answers: Sequence[Sequence[np.ndarray] | None], tolerance: float, own_numbers: list[bool]
) -> None:
    given = [(row, answer, own) for row, answer, own in zip(rows, answers, own_numbers) if answer is not None]
    if len(given) < 2:
        return
    first, expected, _ = given[0]
    for row, answer, own in given[1:]:
        for mine, theirs in zip(expected, answer):
            mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
            difference = _beyond_range(mine, theirs) if own else float(np.max(np.abs(mine - theirs)))
            difference /= float(np.max(np.abs(mine)))
            if mine.shape != theirs.shape or not difference <= tolerance:
                raise Disagreement(
                    f"{first.name} and {row.name} differ by {difference:.2g} of the largest entry, "
                    f"more than {tolerance:.2g}: make them compute the same before timing them."
                )
        if own:
            row.note = "numbers of its own: shape and range compared"


def _beyond_range(mine: np.ndarray, theirs: np.ndarray) -> float:
    """How far `theirs` leaves the range of `mine`."""
    return max(float(np.max(theirs) - np.max(mine)), float(np.min(mine) - np.min(theirs)), 0.0)


class _Timer:
    """Wall and processor times of one call."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.wall: list[float] = []
        self.processor: list[float] = []

    def turn(self) -> None:
        """One call, or as many in a row as a turn is long: short ones are timed as in a loop, code and data warm."""
        used, begun, calls = time.process_time(), time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - begun < TURN:
            started = time.perf_counter()
            self.call()
            self.wall.append(time.perf_counter() - started)
            calls += 1
        # Of the whole turn: between two calls other threads' time is not yet in the process's.
        self.processor.append((time.process_time() - used) / calls)

    def fill(self, row: Row, in_a_row: int) -> None:
        row.repeats = len(self.wall)
        row.minimum, row.processor = min(self.wall) / in_a_row, min(self.processor) / in_a_row
        row.p10, row.median, row.p90 = (float(q) / in_a_row for q in np.percentile(self.wall, (10, 50, 90)))


def peak_memory(measure: Callable[..., None], *arguments: Any, limit: int | None = None) -> int | str:
    """Growth of peak resident memory during the second of two calls made by `measure`, in a fresh process.

    Args:
        measure: module-level function (started, *arguments); calls started() once its inputs exist.
        *arguments: picklable.
        limit: bytes of address space that the process may have; beyond it, it is out of memory.

    Returns:
        Bytes, or why there are none.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_memory, args=(sender, limit, measure, arguments))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = "out of memory"
    process.join()
    return found


def _measure_memory(sender: Any, limit: int | None, measure: Callable[..., None], arguments: Sequence[Any]) -> None:
    baseline = [measure_peak_resident()]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        measure(lambda: baseline.append(measure_peak_resident()), *arguments)
        sender.send(measure_peak_resident() - baseline[-1])
    except Exception as error:
        sender.send("out of memory" if _is_out_of_memory(error) else f"{type(error).__name__}: {error}")


def store(path: Path, rows: Sequence[Row], versions: dict[str, Any], **more: Any) -> None:
    """Write a result: who measured, with what, `more` about it, and every row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {
        **more,
        "device": device_name(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "versions": versions,
        "rows": [asdict(row) for row in rows],
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def load(path: Path) -> list[Row]:
    """The rows of a stored result."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def text(rows: Sequence[Row], old: Sequence[Row] = ()) -> str:
    """An aligned table; with old rows, the ratio old / new of processor time."""
    before = {_key(row): row for row in old}
    head = f"{'problem':<34}{'name':<22}{'min ms':>10}{'median':>10}{'p10':>10}{'p90':>10}{'cpu ms':>10}"
    lines = [head + f"{'GFLOP/s':>9}{'sgemm':>7}{'MB':>9}" + ("  old/new" if before else "")]
    for row in rows:
        problem = " ".join(f"{key}={value}" for key, value in row.problem.items())
        if row.minimum is None:
            lines.append(f"{problem:<33} {row.name:<22}  {row.note}")
            continue
        times = "".join(
            f"{1e3 * (value or 0):>10.3f}" for value in (row.minimum, row.median, row.p10, row.p90, row.processor)
        )
        rate = f"{row.operations / row.minimum / 1e9:>9.1f}" if row.operations else " " * 9
        share = f"{row.of_sgemm:>7.0%}" if row.of_sgemm else " " * 7
        memory = f"{row.peak_memory / 2**20:>9.1f}" if row.peak_memory is not None else " " * 9
        line = f"{problem:<33} {row.name:<22}{times}{rate}{share}{memory}"
        earlier = before.get(_key(row))
        if earlier and earlier.processor and row.processor:
            line += f"  {earlier.processor / row.processor:>7.2f}"
        lines.append(line + (f"  {row.note}" if row.note else ""))
    return "\n".join(lines)


def _key(row: Row) -> tuple[str, str]:
    return json.dumps(row.problem, sort_keys=True), row.name
