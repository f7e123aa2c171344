"""Tests --profile, which records how much time each TensorFlow operation of a training step takes.

The time of an operation does not include the operations that it calls. Most tests use an imitated recording. One test
makes a real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from lowlevel_simclr.training import profiler

MICROSECOND = 10**6  # picoseconds, the unit of TensorFlow's traces


def plane(
    space: Any, name: str, events: list[tuple[str, int, int]], named_by_statistic: bool = False, thread: str = ""
) -> None:
    """Add one thread to a trace. Each event of the thread is a tuple (name, start, length); times in microseconds."""
    made = space.planes.add(name=name)
    made.stat_metadata[1].name = "tf_op"
    line = made.lines.add(name=thread)
    for place, (label, start, length) in enumerate(events):
        event = line.events.add(metadata_id=place, offset_ps=start * MICROSECOND, duration_ps=length * MICROSECOND)
        made.event_metadata[place].name = "some_kernel" if named_by_statistic else label
        if named_by_statistic:
            event.stats.add(metadata_id=1, str_value=label)


def found(tmp_path: Path, space: Any) -> dict[str, float]:
    path = tmp_path / "some.xplane.pb"
    path.write_bytes(space.SerializeToString())
    return {operation.name: round(1e6 * operation.seconds, 3) for operation in profiler.read_operations([path])}


def test_an_operation_does_not_count_what_it_calls(tmp_path: Path) -> None:
    space = xplane_pb2.XSpace()
    events = [("while:While", 0, 100), ("a:MatMul", 10, 30), ("b:Relu", 20, 5), ("c:Conv2D", 50, 40), ("d:Add", 100, 7)]
    plane(space, "/host:CPU", [*events, ("ExecutorState::Process", 200, 50), ("a thread's name", 300, 9)])
    assert found(tmp_path, space) == {"while": 30.0, "a": 25.0, "b": 5.0, "c": 40.0, "d": 7.0}


def test_where_a_gpu_worked_its_kernels_count_by_their_operation(tmp_path: Path) -> None:
    space = xplane_pb2.XSpace()
    plane(space, "/host:CPU", [("a:MatMul", 0, 1)])
    plane(space, "/device:GPU:0", [("a:MatMul", 0, 40), ("a:MatMul", 50, 2)], named_by_statistic=True)
    assert found(tmp_path, space) == {"a": 42.0}


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("while/body/views/MakeViews", "LowlevelSimclr>MakeViews", "views"),
        ("while/body/resnet50_1/conv1/Conv2D", "_MklNativeConv2D", "encoder (f), forward pass"),
        ("resnet50/conv1/Conv2D", "Conv2D", "encoder (f), forward pass"),
        ("projection/dense1/MatMul", "MatMul", "projection head (g), forward pass"),
        ("loss/NtXent", "LowlevelSimclr>NtXent", "loss"),
        ("gradient_tape/loss/NtXentGrad", "LowlevelSimclr>NtXentGrad", profiler.BACKWARD),
        ("gradient_tape/resnet50/conv1/Conv2DBackpropFilter", "Conv2DBackpropFilter", profiler.BACKWARD),
        ("optimizer/LarsUpdate", "LowlevelSimclr>LarsUpdate", "optimizer update"),
        ("while/body/IteratorGetNext", "IteratorGetNext", "waiting for data"),
        ("get_next", "IteratorGetNext", "waiting for data"),
        ("tf_data/GatherV2", "GatherV2", "preparing data, beside the steps"),
        ("AddN_3", "AddN", profiler.BACKWARD),
        ("while/resnet50er/x", "Mul", profiler.OTHER),
    ],
)
def test_an_operation_belongs_to_the_stage_in_its_name(name: str, kind: str, expected: str) -> None:
    assert profiler.find_stage(profiler.Operation(name, kind, 1.0), "resnet50", "projection") == expected


def test_a_recording_finds_the_operations_of_its_block(tmp_path: Path) -> None:
    function = tf.function(profiler.put_under_scope("views", lambda x: tf.linalg.expm(x)))
    x = tf.eye(64)
    function(x)
    into: list[profiler.Traced] = []
    with profiler.record_trace(tmp_path, into):
        function(x).numpy()
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    kinds = {each.kind for each in into[0].operations if profiler.find_stage(each, "f", "g") == "views"}
    assert any("MatMul" in kind for kind in kinds) and into[0].wall > 0
    page = profiler.format_trace(into[0], 1, "f", "g")
    assert "views" in page and "MatMul" in page


def test_calls_are_no_operations_and_threads_of_the_input_have_stages(tmp_path: Path) -> None:
    space = xplane_pb2.XSpace()
    plane(space, "/host:CPU", [("EagerLocalExecute: __inference_views_5", 0, 9), ("a:MatMul", 20, 3)])
    waited = [("IteratorGetNextOp::DoCompute", 0, 10), ("Iterator::Root", 2, 7)]
    plane(space, "/host:CPU", waited, thread="tf_data_iterator_get_next/11")
    plane(space, "/host:CPU", [("GatherV2:GatherV2", 0, 4)], thread="tf_data_private_threadpool/12")
    assert found(tmp_path, space) == {"a": 3.0, "get_next": 10.0, "tf_data/GatherV2": 4.0}


@pytest.mark.parametrize(("wall", "why"), [(0.010, "several threads work at the same time"), (0.040, "is less than")])
def test_the_page_says_why_its_times_are_not_the_time_of_a_step(wall: float, why: str) -> None:
    operations = [
        profiler.Operation("gradient_tape/x", "_MklNativeConv2DBackpropFilter", 0.020),
        profiler.Operation("loss/x", "LowlevelSimclr>NtXent", 0.004),
    ]
    lines = profiler.format_trace(profiler.Traced(operations, wall), 2, "f", "g").splitlines()
    assert lines[0] == f"Recorded 2 steps, {500 * wall:.1f} ms each. Recording makes a step slower."
    assert "Their sum, 12.0 ms a step, " in lines[1] and why in lines[1]
    assert "backward pass: Conv2DBackpropFilter" in lines[8] and "loss: NtXent" in lines[9]
