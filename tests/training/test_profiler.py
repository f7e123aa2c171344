"""Profiles: own times of nested operations, their stages, the page, and a real recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from lowlevel_simclr.training import profiler

MICROSECOND = 10**6  # in picoseconds, the unit of traces


def plane(space: Any, name: str, events: list[tuple[str, int, int]], named_by_statistic: bool = False) -> None:
    """Return one thread with events of (name, start, length) in microseconds."""
    made = space.planes.add(name=name)
    made.stat_metadata[1].name = "tf_op"
    line = made.lines.add()
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
        ("while/body/resnet50_1/conv1/Conv2D", "_MklNativeConv2D", "f forward"),
        ("resnet50/conv1/Conv2D", "Conv2D", "f forward"),
        ("projection/dense1/MatMul", "MatMul", "g forward"),
        ("loss/NtXent", "LowlevelSimclr>NtXent", "loss"),
        ("gradient_tape/loss/NtXentGrad", "LowlevelSimclr>NtXentGrad", "gradient"),
        ("gradient_tape/resnet50/conv1/Conv2DBackpropFilter", "Conv2DBackpropFilter", "gradient"),
        ("optimizer/LarsUpdate", "LowlevelSimclr>LarsUpdate", "optimizer"),
        ("while/body/IteratorGetNext", "IteratorGetNext", "input"),
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
