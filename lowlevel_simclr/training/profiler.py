"""Profiles some training steps: writes a trace that TensorBoard opens, and a table of where the time goes.

A stage is a part of the training step, such as the loss. An operation belongs to a stage if the name of the stage's
scope is part of the operation's name. The views, the loss and the optimizer update have name scopes. The operations of
the forward passes have the names of the models f (encoder) and g (projection head) in their names, and those of the
backward pass have `gradient_tape`. The threads that read the batches have their own names.

The time of an operation excludes the operations that it contains. Two threads may be busy at once, so the sum of all
times can be larger than the time that passed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

OTHER = "everything else"
BACKWARD = "backward pass"
# Maps a part of an operation's name to its stage. The first match counts.
STAGES = {
    "get_next": "waiting for data",
    "tf_data": "preparing data, beside the steps",
    "gradient_tape": BACKWARD,
    "views": "views",
    "loss": "loss",
    "optimizer": "optimizer update",
}
# Maps the beginnings of the names of TensorFlow's input threads to the name that their operations get.
THREADS = {"tf_data_iterator_get_next": "get_next", "tf_data_": "tf_data"}
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
        folder: TensorBoard's log folder of the run. The profiler writes the trace into its subfolder plugins/profile/.
        into: a list. At the end of the block, the contents of the trace are appended to it.
    """
    before = set(_list_traces(folder))
    tf.profiler.experimental.start(os.fsencode(folder))  # bytes, because a name may not be UTF-8
    started = time.perf_counter()
    try:
        yield
        wall = time.perf_counter() - started
    finally:
        tf.profiler.experimental.stop()
    into.append(Traced(read_operations(sorted(set(_list_traces(folder)) - before)), wall))


def put_under_scope(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, but puts all its operations into the name scope of a stage."""

    def call(*arguments: Any) -> Any:
        with tf.name_scope(stage):
            return function(*arguments)

    return call


def _list_traces(folder: Path) -> list[Path]:
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def read_operations(files: Iterable[Path]) -> list[Operation]:
    """Return the operations in trace files, one for each name and type.

    If a GPU was used, these are the operations of the GPU. Otherwise they are the operations of the host.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # imported here, because only a traced run needs it

    planes = []
    for path in files:
        space = xplane_pb2.XSpace()
        space.ParseFromString(path.read_bytes())
        planes += list(space.planes)
    on_gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for plane in on_gpu or planes:
        for line in plane.lines:
            thread = next((part for name, part in THREADS.items() if line.name.startswith(name)), "")
            for name, own in _compute_own_times(plane, line):
                if thread == "get_next":  # "get_next" waits inside "Iterator::Root::Prefetch" and others
                    seconds[thread, "IteratorGetNext"] += own
                    continue
                label, separator, kind = name.rpartition(":")
                # Names like "Class::Method" are not operations. Names like "Execute: __inference_f" are calls.
                if separator and kind and not kind.startswith(" ") and not label.endswith(":"):
                    seconds[f"{thread}/{label}" if thread else label, kind] += own
    return [Operation(name, kind, own) for (name, kind), own in seconds.items()]


def _compute_own_times(plane: Any, line: Any) -> Iterator[tuple[str, float]]:
    """Yield the name of every event of a thread or stream, and its seconds without those of the events inside it."""
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
    """Return the name of an event, such as `operation:type`. For a GPU kernel, that name is stored in a statistic."""
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
    for part, stage in STAGES.items():
        if part in parts:
            return stage
    for model, stage in ((f, "encoder (f), forward pass"), (g, "projection head (g), forward pass")):
        if any(part == model or part.rpartition("_")[0] == model for part in parts):
            return stage
    if operation.kind.startswith("IteratorGetNext"):
        return STAGES["get_next"]
    return BACKWARD if operation.kind == "AddN" else OTHER  # the tape adds the gradients of a tensor that is used twice


def format_trace(traced: Traced, steps: int, f: str, g: str) -> str:
    """Return a text with two tables: the time of each stage in a step, and the operation types that take most time.

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
    lines = [*_explain_times(1e3 * traced.wall / steps, 1e3 * total / steps, steps), ""]
    lines += [_format_heading("stage")]
    lines += [_format_row(name, own, steps, total) for name, own in _sort_largest(by_stage)]
    lines += ["", _format_heading("stage: TensorFlow operation")]
    lines += [
        _format_row(f"{where}: {_shorten(kind)}", own, steps, total)
        for (where, kind), own in _sort_largest(by_kind)[:LARGEST]
    ]
    return "\n".join(lines)


def _explain_times(step: float, total: float, steps: int) -> list[str]:
    """Return two lines: what was recorded, and why the times do not add up to the duration of a step.

    Args:
        step: the duration of a step in milliseconds.
        total: the times of all operations in a step, added up, in milliseconds.
        steps: the number of steps.
    """
    if total > step:
        why = "is more than that, because several threads work at the same time"
    else:
        why = "is less than that, because the rest of the time passes between the operations"
    return [
        f"Recorded {steps} steps, {step:.1f} ms each. Recording makes a step slower.",
        f"The times below add up the work of all threads. Their sum, {total:.1f} ms a step, {why}.",
    ]


def _shorten(kind: str) -> str:
    """Return the type of an operation without the prefixes of oneDNN and of this package."""
    return kind.removeprefix("_MklNative").removeprefix("_Mkl").removeprefix("LowlevelSimclr>")


def _format_heading(name: str) -> str:
    return f"{name:<60}{'ms a step':>12}{'share':>9}"


def _sort_largest(seconds: dict[Any, float]) -> list[tuple[Any, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _format_row(name: str, seconds: float, steps: int, total: float) -> str:
    return f"{name:<60}{1e3 * seconds / steps:>12.2f}{seconds / total:>9.1%}"
