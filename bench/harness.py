"""Times alternatives that compute the same answer, and stores and prints the results.

An alternative is one way to compute the answer. A row holds the measurements of one alternative. `time_alternatives`
first computes the answer of every alternative, and raises an error if two answers disagree. Then it times the
alternatives in turns: in each turn, it calls every alternative again and again for 20 ms, but at least once. So other
programs on the machine slow all alternatives alike.

A row has the minimum, the median, and the 10th and 90th percentile of the wall time of a call. A row also has the
processor time of a call: each turn gives the mean processor time of its calls, and the row has the smallest of these
means. `measure_peak_growth` measures memory in a separate process. An alternative that runs out of memory gets a row
with the note "out of memory".
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bench import hardware
from bench.ceiling import Product, find_rate
from lowlevel_simclr.run.environment import measure_peak_resident

RESULTS = Path(__file__).parent / "results"
TURN = 0.02  # seconds; about the time of a training step, and longer than an idle thread stays awake
Call = Callable[[], Sequence[np.ndarray]]
LONG_CALL = 10.0  # seconds; if a call takes longer, one warm-up call and one timed call are enough


class Disagreement(AssertionError):
    """Two alternatives give different answers, so their times cannot be compared."""


@dataclass
class Row:
    """The measurements of one alternative on one problem.

    Times are in seconds, and memory is in bytes. None stands for a value that was not measured.
    """

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
    of_sgemm: float | None = (
        None  # the rate in operations per processor second, divided by that of a float32 matrix product (sgemm)
    )
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def choose_calls_in_a_row() -> int:
    """Return how often one call should run a fast op before it waits for the device: 20 on a GPU, 1 on a CPU.

    A fast op takes less than a millisecond. While a GPU runs one op, the host already sends the next one. So the GPU
    runs 20 ops without gaps, and the call waits only once, which adds little to their mean time.
    """
    return 20 if hardware.find_gpu_name() is not None else 1


@dataclass
class Alternative:
    """One way to compute the answer of a problem.

    Attributes:
        name: the name of the alternative and of its row.
        prepare: builds everything that is not timed, and returns the call to time. The call has no arguments and
            returns the answer as NumPy arrays.
        own_numbers: whether the alternative draws its own random numbers. If so, its answer cannot equal the first
            answer. It must only have the same shape, and its entries must lie within the range of the entries of the
            first answer, up to the tolerance. The note in its row says this.
    """

    name: str
    prepare: Callable[[], Call]
    own_numbers: bool = False


def choose_result_path(file_name: str) -> Path:
    """Return the path where a result of this device is stored by default."""
    return RESULTS / hardware.name_results_folder() / file_name


def time_alternatives(
    problem: dict[str, Any],
    alternatives: Sequence[Alternative],
    *,
    operations: float,
    seconds: float,
    tolerance: float,
    products: Mapping[str, Product] | None = None,
    in_a_row: int = 1,
) -> list[Row]:
    """Time the alternatives of one problem in turns. Return one row for each alternative.

    Args:
        problem: the sizes and settings of the computation. They are stored with every row.
        alternatives: the alternatives. Every answer must agree with the answer of the first alternative.
        operations: the number of floating-point operations of the problem. GFLOP/s are computed from it.
        seconds: about how long to measure each alternative. Each one gets between 5 and 1000 turns. If a call takes
            longer than LONG_CALL, one turn is enough.
        tolerance: the largest allowed difference between two answers, divided by the largest entry of the first answer.
        products: matrix products to time in the same turns. The rate of the fastest one is the ceiling of the machine.
        in_a_row: how often each call computes the answer. The rows give the time of one computation.

    Raises:
        Disagreement: if two alternatives differ by more than the tolerance.
    """
    rows = [Row(problem, alternative.name, operations=operations) for alternative in alternatives]
    calls, answers = map(list, zip(*(_prepare(alternative, row) for alternative, row in zip(alternatives, rows))))
    _refuse_disagreement(rows, answers, tolerance, [alternative.own_numbers for alternative in alternatives])
    del answers  # frees their memory for the timed calls
    ceiling = {name: _Timer(product.call) for name, product in (products or {}).items()}
    timers = [_Timer(call) if call else None for call in calls]
    end = time.perf_counter() + seconds * sum(timer is not None for timer in timers)
    for turn in range(1000):
        least = 1 if any(timer and max(timer.wall, default=0.0) > LONG_CALL for timer in timers) else 5
        if turn >= least and time.perf_counter() > end:
            break
        for timer in (*timers, *ceiling.values()):
            if timer:
                timer.take_turn()
    for row, timer in zip(rows, timers):
        if timer:
            timer.fill_row(row, in_a_row)
            if products:
                rate = find_rate(products, {name: each.processor for name, each in ceiling.items()})
                row.of_sgemm = operations / (min(timer.processor) / in_a_row) / rate
                row.extra["sgemm_gflops_per_processor_second"] = rate / 1e9
    return rows


def _prepare(alternative: Alternative, row: Row) -> tuple[Call | None, Sequence[np.ndarray] | None]:
    """Warm up the alternative, and return its call and its first answer, or None and None if it runs out of memory.

    The harness compares the first answers. Later answers can differ, because some calls change the data that their next
    call starts from, and slow alternatives get fewer warm-up calls than fast ones.
    """
    try:
        call = alternative.prepare()
        started = time.perf_counter()
        answer = call()
        for _ in range(2):
            if time.perf_counter() - started > LONG_CALL:
                break  # in such a long call, the extra time that only a first call needs is negligible
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
            difference = _measure_excess(mine, theirs) if own else float(np.max(np.abs(mine - theirs)))
            difference /= float(np.max(np.abs(mine)))
            if mine.shape != theirs.shape or not difference <= tolerance:
                raise Disagreement(
                    f"The answers of {first.name} and {row.name} differ by {difference:.2g} times the largest entry. "
                    f"At most {tolerance:.2g} is allowed. Make both compute the same before you time them."
                )
        if own:
            row.note = "draws its own random numbers, so only shape and range were compared"


def _measure_excess(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest distance of an entry of `theirs` from the range of `mine`, or 0 if all lie in this range."""
    return max(float(np.max(theirs) - np.max(mine)), float(np.min(mine) - np.min(theirs)), 0.0)


class _Timer:
    """Collects the wall times and the processor times of one call."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.wall: list[float] = []
        self.processor: list[float] = []

    def take_turn(self) -> None:
        """Call again and again until TURN seconds have passed, and time each call. This keeps the caches warm."""
        used, begun, calls = time.process_time(), time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - begun < TURN:
            started = time.perf_counter()
            self.call()
            self.wall.append(time.perf_counter() - started)
            calls += 1
        # The processor time is measured over the whole turn. A reading after each call would miss the time that other
        # threads of the process use after the call has returned.
        self.processor.append((time.process_time() - used) / calls)

    def fill_row(self, row: Row, in_a_row: int) -> None:
        row.repeats = len(self.wall)
        row.minimum, row.processor = min(self.wall) / in_a_row, min(self.processor) / in_a_row
        row.p10, row.median, row.p90 = (float(q) / in_a_row for q in np.percentile(self.wall, (10, 50, 90)))


def measure_peak_growth(measure: Callable[..., None], *arguments: Any, limit: int | None = None) -> int | str:
    """Run `measure` in a new process, and return by how much it raises the process's peak resident memory.

    Args:
        measure: a module-level function with the arguments (started, *arguments). It must call `started()` as soon as
            its inputs exist. Only the growth from that moment on is counted.
        *arguments: further arguments of `measure`, which must be picklable.
        limit: the largest allowed size of the process's address space, in bytes. None means no limit.

    Returns:
        The growth in bytes, or a text that says why it could not be measured.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak_growth, args=(sender, limit, measure, arguments))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = "out of memory"
    process.join()
    return found


def _send_peak_growth(
    sender: Connection, limit: int | None, measure: Callable[..., None], arguments: Sequence[Any]
) -> None:
    baseline = [measure_peak_resident() or 0]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        measure(lambda: baseline.append(measure_peak_resident() or 0), *arguments)
        sender.send((measure_peak_resident() or 0) - baseline[-1])
    except Exception as error:
        sender.send("out of memory" if _is_out_of_memory(error) else f"{type(error).__name__}: {error}")


def store_rows(path: Path, rows: Sequence[Row], versions: dict[str, Any], **more: Any) -> None:
    """Store the rows as JSON, with the device, the date, the machine's load, the versions and the entries of `more`."""
    result = {
        **more,
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "versions": versions,
        "rows": [asdict(row) for row in rows],
    }
    write_result(path, result)


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON. Another process that reads the file sees the complete old or the complete new result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a stored result."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def format_rows(rows: Sequence[Row], old: Sequence[Row] = ()) -> str:
    """Return an aligned text table of the rows.

    Args:
        rows: the rows to show.
        old: rows of an earlier result. If an old row and a new row have the same problem and name, the table also shows
            the old processor time divided by the new one.
    """
    before = {_make_key(row): row for row in old}
    head = f"{'problem':<34}{'name':<22}{'min ms':>10}{'median ms':>10}{'p10 ms':>10}{'p90 ms':>10}{'cpu ms':>10}"
    lines = [head + f"{'GFLOP/s':>9}{'/sgemm':>7}{'peak MB':>9}" + ("  old cpu ms / new" if before else "")]
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
        earlier = before.get(_make_key(row))
        if earlier and earlier.processor and row.processor:
            line += f"  {earlier.processor / row.processor:>7.2f}"
        lines.append(line + (f"  {row.note}" if row.note else ""))
    return "\n".join(lines)


def _make_key(row: Row) -> tuple[str, str]:
    return json.dumps(row.problem, sort_keys=True), row.name
