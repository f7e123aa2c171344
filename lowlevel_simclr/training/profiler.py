"""A profile of some training steps: a trace that TensorBoard opens, and a table of where the time goes.

An operation belongs to the stage whose name is part of its own name. The stages `views`, `loss` and `optimizer` are
name scopes. The forward passes have the names of the models f and g, and the whole gradient has `gradient_tape`.

The time of an operation is its own, without that of the operations inside it. Two threads may be busy at once, so the
times can add up to more than the time that passed.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

OTHER = "everything else"
LARGEST = 12  # rows in the table of operations


class Operation(NamedTuple):
    """An operation of the graph.

    Attributes:
        name: its name in the graph.
        kind: its type, such as MatMul.
        seconds: its own time, added up over all its calls.
    """

    name: str
    kind: str
    seconds: float


class Traced(NamedTuple):
    """The contents of a trace.

    Attributes:
        operations: all operations of the profiled steps.
        wall: the seconds that passed.
    """

    operations: list[Operation]
    wall: float


@contextlib.contextmanager
def record_trace(folder: Path, into: list[Traced]) -> Iterator[None]:
    """Profile what runs in the block.

    Args:
        folder: TensorBoard's log folder of the run. The profiler writes the trace below plugins/profile/ in it.
        into: a list. At the end of the block, the contents of the trace are appended to it.
    """
    before = set(_list_traces(folder))
    tf.profiler.experimental.start(str(folder))
    started = time.perf_counter()
    try:
        yield
        wall = time.perf_counter() - started
    finally:
        tf.profiler.experimental.stop()
    into.append(Traced(read_operations(sorted(set(_list_traces(folder)) - before)), wall))


def put_under_scope(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its operations in the name scope of a stage."""

    def call(*arguments: Any) -> Any:
        with tf.name_scope(stage):
            return function(*arguments)

    return call


def _list_traces(folder: Path) -> list[Path]:
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def read_operations(files: Iterable[Path]) -> list[Operation]:
    """Return the operations in trace files, one for each name and kind.

    If a GPU worked, these are the operations of the GPU. Otherwise they are the operations of the host.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # imported here, because only a run with a trace needs it

    planes = []
    for path in files:
        space = xplane_pb2.XSpace()
        space.ParseFromString(path.read_bytes())
        planes += list(space.planes)
    on_gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for plane in on_gpu or planes:
        for line in plane.lines:
            for name, own in _compute_own_times(plane, line):
                label, separator, kind = name.rpartition(":")
                if separator and kind and not label.endswith(":"):  # names like "Class::Method" are not operations
                    seconds[label, kind] += own
    return [Operation(name, kind, own) for (name, kind), own in seconds.items()]


def _compute_own_times(plane: Any, line: Any) -> Iterator[tuple[str, float]]:
    """Yield the name of every event of a thread or stream, and its seconds without the events inside it."""
    open_events: list[list[Any]] = []  # [name, end in ps, own ps] from the outermost to the innermost
    for event in sorted(line.events, key=lambda event: (event.offset_ps, -event.duration_ps)):
        while open_events and open_events[-1][1] <= event.offset_ps:
            name, _, own = open_events.pop()
            yield name, own * 1e-12
        if open_events:
            open_events[-1][2] -= event.duration_ps
        open_events.append([_find_name(plane, event), event.offset_ps + event.duration_ps, event.duration_ps])
    for name, _, own in open_events:
        yield name, own * 1e-12


def _find_name(plane: Any, event: Any) -> str:
    """Return `operation:kind`. The kernel of a GPU has the name of its operation in a statistic."""
    for stat in event.stats:
        if plane.stat_metadata[stat.metadata_id].name == "tf_op":
            return stat.str_value or plane.stat_metadata[stat.ref_value].name
    return plane.event_metadata[event.metadata_id].name


def find_stage(operation: Operation, f: str, g: str) -> str:
    """Return the stage of an operation.

    Args:
        operation: the operation.
        f: the name of the encoder.
        g: the name of the projection head.
    """
    parts = operation.name.split("/")
    if "gradient_tape" in parts:
        return "gradient"
    for name in ("views", "loss", "optimizer"):
        if name in parts:
            return name
    for model, name in ((f, "f forward"), (g, "g forward")):
        if any(part == model or part.rpartition("_")[0] == model for part in parts):
            return name
    return "input" if operation.kind.startswith("IteratorGetNext") else OTHER


def format_trace(traced: Traced, steps: int, f: str, g: str) -> str:
    """Return a page of text: the milliseconds of each stage in a step, then the kinds of operation that take most time.

    Args:
        traced: the contents of the trace.
        steps: the number of steps in the trace.
        f: the name of the encoder.
        g: the name of the projection head.
    """
    by_stage: dict[str, float] = defaultdict(float)
    by_kind: dict[tuple[str, str], float] = defaultdict(float)
    for operation in traced.operations:
        where = find_stage(operation, f, g)
        by_stage[where] += operation.seconds
        by_kind[where, operation.kind] += operation.seconds
    total = sum(by_stage.values()) or 1.0
    lines = [f"{steps} steps, {1e3 * traced.wall / steps:.1f} ms each under the profiler", ""]
    lines += [f"{'stage':<40}{'ms a step':>12}{'share':>9}"]
    lines += [_format_row(name, own, steps, total) for name, own in _sort_largest(by_stage)]
    lines += ["", f"{'operation':<40}{'ms a step':>12}{'share':>9}"]
    lines += [
        _format_row(f"{kind} ({where})", own, steps, total) for (where, kind), own in _sort_largest(by_kind)[:LARGEST]
    ]
    return "\n".join(lines)


def _sort_largest(seconds: dict[Any, float]) -> list[tuple[Any, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _format_row(name: str, seconds: float, steps: int, total: float) -> str:
    return f"{name:<40}{1e3 * seconds / steps:>12.2f}{seconds / total:>9.1%}"
