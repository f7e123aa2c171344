"""Tests that several devices that train together (replicas) compute what a single device computes for the same batch.

Also plants bugs that other implementations are known to have. The comparison must find each of them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lowlevel_simclr import ops
from lowlevel_simclr.data import encoded
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.training import gradient_cache, step
from lowlevel_simclr.training.replicas import (
    DistributionError,
    Replica,
    choose_own_rows,
    find_local_devices,
    order_canonically,
)
from tests.support import replicated
from tests.support.replicated import Case
from tests.support.worker_processes import ROOT, make_cluster, run_to_the_end

EXACT = 1e-9  # of a tensor's norm; in float64 a rounding error is 1e-16, but BatchNorm amplifies it in five steps
Found = dict[str, Any]


def compute_outcomes(cases: Sequence[Case], workers: int = 1) -> dict[str, Found]:
    """Return the results of each case. Assert that all workers (processes) have the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "cases.json"
        asked.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
        command = [sys.executable, "-m", "tests.support.replicated", str(asked), folder]
        run_to_the_end([command] * workers, make_cluster(workers))
        found = {
            case.name: [dict(np.load(Path(folder) / f"{case.name}-{rank}.npz")) for rank in range(workers)]
            for case in cases
        }
    for every in found.values():
        for other in every:
            assert all(other[name].tobytes() == every[0][name].tobytes() for name in other)
    return {name: every[0] for name, every in found.items()}


def one_device(precision: str, micro: int = 1, steps: int = 5) -> Found:
    """Return the results of training on one device, without any code of the module `replicas`."""
    learner, table = replicated.build_learner(precision), tf.constant(replicated.make_table_of_views(precision))

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        return tf.concat(tf.unstack(tf.gather(table, index), axis=1), axis=0)

    loss = functools.partial(ops.nt_xent_and_top1, temperature=replicated.TEMPERATURE)
    parts = (learner, views, loss, replicated.compute_rate)
    act = tf.function(
        lambda *batch: (
            step.train_step(*parts, batch) if micro == 1 else gradient_cache.train_cached_step(*parts, batch, micro)
        )
    )
    losses, top1 = [], []
    for done in range(steps):
        order = np.random.default_rng(done).permutation(replicated.IMAGES)[: replicated.BATCH]
        images = tf.zeros([len(order), replicated.SIZE, replicated.SIZE, 3], tf.uint8)
        metrics = act(tf.constant(1, tf.int64), tf.constant(order), images)
        losses.append(float(metrics.loss))
        top1.append(float(metrics.top1))
        if done == 0:
            gradients = {f"gradient/{i:02d}": seen.numpy() for i, seen in enumerate(learner.optimizer.seen)}
    numbers = {"losses": np.array(losses), "top1": np.array(top1)}
    return {**numbers, **gradients, **{f"state/{k}": v for k, v in learner.read_arrays().items()}}


wanted = functools.cache(one_device)


def norm_of_gradients(found: Found) -> float:
    return float(np.sqrt(sum(np.sum(np.square(found[name])) for name in found if name.startswith("gradient"))))


def assert_exactly(found: Found, one: Found) -> None:
    """Assert that all results are equal up to rounding in float64.

    A difference is divided by the norm of the result, or, for a gradient of almost zero, by the norm of all gradients.
    """
    assert found["alike"]
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=EXACT)
    for name in one:
        size = np.linalg.norm(one[name])
        if name.startswith("gradient") and size < 1e-6 * norm_of_gradients(one):
            size = norm_of_gradients(one)
        assert np.linalg.norm(found[name] - one[name]) <= EXACT * size, name


def assert_nearly(found: Found, one: Found) -> None:
    """Assert that the losses and the gradients of the first step are equal up to rounding in float32.

    Later gradients and states are not compared, because BatchNorm amplifies rounding errors.
    """
    assert found["alike"]
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=0, atol=1e-4)
    for name in one:
        if name.startswith("gradient"):
            assert np.linalg.norm(found[name] - one[name]) <= 1e-4 * norm_of_gradients(one), name


DEFAULT = (
    Case("one"),
    Case("three", 3),
    Case("three by 2", 3, micro=2),
    Case("two by 2 in a strategy", 2, micro=2, steps=2, engine="strategy"),
    *(Case(bug, 2, implementation="stock", steps=2, bug=bug, compiled=False) for bug in replicated.BUGS),
    Case("no bug", 2, implementation="stock", steps=2, compiled=False),
)


@pytest.fixture(scope="module")
def default_outcomes() -> dict[str, Found]:
    """Run all cases in one process, because each process needs more time to start than to run a case."""
    return compute_outcomes(DEFAULT)


def test_one_replica_is_one_device_to_the_bit(default_outcomes: dict[str, Found]) -> None:
    found, one = default_outcomes["one"], wanted("float64")
    assert [name for name in one if np.asarray(found[name]).tobytes() != one[name].tobytes()] == []


@pytest.mark.parametrize(("name", "micro"), [("three", 1), ("three by 2", 2)])
def test_three_replicas_are_one_device(default_outcomes: dict[str, Found], name: str, micro: int) -> None:
    assert_exactly(default_outcomes[name], wanted("float64", micro))


def test_two_replicas_in_a_strategy_are_one_device(default_outcomes: dict[str, Found]) -> None:
    assert_exactly(default_outcomes["two by 2 in a strategy"], wanted("float64", 2, 2))


def test_two_replicas_without_a_bug_are_one_device(default_outcomes: dict[str, Found]) -> None:
    assert_exactly(default_outcomes["no bug"], wanted("float64", 1, 2))


@pytest.mark.parametrize("bug", replicated.BUGS)
def test_a_known_bug_is_caught(default_outcomes: dict[str, Found], bug: str) -> None:
    with pytest.raises(AssertionError):
        assert_exactly(default_outcomes[bug], wanted("float64", 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_every_number_of_replicas_is_one_device(workers: int) -> None:
    """Test native and stock ops, with and without micro-batches, in float64 and float32, in one process and in two."""
    cases = [
        Case(f"{implementation}-{precision}-{count}-{micro}", count, micro, implementation, precision)
        for implementation in ("native", "stock")
        for precision in ("float64", "float32")
        for count in ((1, 2, 3, 4) if workers == 1 else (1, 2))
        for micro in (1, 2)
    ]
    for case, found in zip(cases, compute_outcomes(cases, workers).values()):
        one = wanted(case.precision, case.micro)
        if case.precision == "float64":
            assert_exactly(found, one)
        else:
            assert_nearly(found, one)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_strategy_gives_the_numbers_of_one_device_and_a_known_bug_is_caught(workers: int) -> None:
    """Test the engine "strategy": MirroredStrategy in one process, MultiWorkerMirroredStrategy in two."""
    cases = [
        Case(f"{precision}-{micro}", 2 // workers, micro, precision=precision, engine="strategy")
        for precision in ("float64", "float32")
        for micro in (1, 2)
    ]
    if workers == 1:
        bugs = ("gradients averaged instead of summed", "local statistics", "no gradient through the gather")
        cases += [Case(bug, 2, 1, "stock", steps=2, bug=bug, engine="strategy") for bug in bugs]
    for case, found in zip(cases, compute_outcomes(cases, workers).values()):
        one = wanted(case.precision, case.micro, case.steps)
        if case.bug:
            with pytest.raises(AssertionError):
                assert_exactly(found, one)
        elif case.precision == "float64":
            assert_exactly(found, one)
        else:
            assert_nearly(found, one)


@pytest.mark.slow
def test_ghost_groups_do_not_depend_on_replicas_or_micro_batches() -> None:
    """Test BatchNorm over groups of four images ("ghost"). The numbers of replicas and micro-batches must not matter.

    BatchNorm over the images of each replica ("local") gives other numbers than BatchNorm on one device. But even with
    it, all replicas must have equal weights.
    """
    cases = [
        Case("one", 1, 6, batch_norm="ghost"),
        Case("three", 3, 2, batch_norm="ghost"),
        Case("local", 3, batch_norm="local"),
    ]
    found = compute_outcomes(cases)
    assert found["one"].pop("alike")
    assert_exactly(found["three"], found["one"])
    with pytest.raises(AssertionError):
        assert_exactly(found["local"], wanted("float64"))


# Exchanges between replicas (collective ops, for example a sum over all replicas) must keep their order


Nodes = Sequence[tf.compat.v1.NodeDef]


def list_unordered(nodes: Nodes, graphs: dict[str, Nodes]) -> list[tuple[str, str]]:
    """Return each pair of exchanges, one traced right after the other, that may start in the other order.

    A loop over exchanges counts as one exchange.

    Args:
        nodes: the operations of one graph, as they were traced.
        graphs: the operations of each function that the graph may call, by name.
    """
    exchanges = [node.name for node in nodes if exchanges_data(node, graphs)]
    waits_for = {node.name: [name.lstrip("^").split(":")[0] for name in node.input] for node in nodes}
    return [pair for pair in itertools.pairwise(exchanges) if not comes_before(*pair, waits_for)]


def exchanges_data(node: tf.compat.v1.NodeDef, graphs: dict[str, Nodes]) -> bool:
    """Return whether an operation is an exchange, or calls a function that has one."""
    called = [value.func.name for value in node.attr.values() if value.WhichOneof("value") == "func"]
    return is_exchange(node) or any(exchanges_data(inner, graphs) for name in called for inner in graphs[name])


def is_exchange(node: tf.compat.v1.NodeDef) -> bool:
    return node.op.startswith("Collective")


def comes_before(one: str, other: str, waits_for: dict[str, list[str]]) -> bool:
    """Return whether TensorFlow starts `other` only after `one` has ended."""
    waiting, seen = [other], set[str]()
    while waiting:
        name = waiting.pop()
        if name == one:
            return True
        if name not in seen:
            seen.add(name)
            waiting += waits_for.get(name, [])
    return False


@pytest.fixture(scope="module", params=[1, 2])
def graphs_of_step(request: pytest.FixtureRequest) -> dict[str, Nodes]:
    """Return the graph of the step of one of two replicas, under "", and those of its functions, by name.

    The step has one or two micro-batches. It is only traced and never runs.
    """
    replica, learner = Replica(0, 2), replicated.build_learner("float32")
    case = Case("traced", 2, request.param)
    act = tf.function(replicated.make_step(case, replica, learner, replicated.make_table_of_views("float32")))
    graph = act.get_concrete_function(replicated.make_batch(np.arange(12))).graph.as_graph_def()
    return {"": graph.node, **{each.signature.name: each.node_def for each in graph.library.function}}


def test_every_exchange_of_a_step_waits_for_the_one_before_it(graphs_of_step: dict[str, Nodes]) -> None:
    assert sum(is_exchange(node) for nodes in graphs_of_step.values() for node in nodes) > 10
    assert [pair for nodes in graphs_of_step.values() for pair in list_unordered(nodes, graphs_of_step)] == []


def test_every_exchange_of_a_step_takes_the_ordering_token_and_asks_for_nccl(graphs_of_step: dict[str, Nodes]) -> None:
    """Test what no run on a CPU shows: tf.function orders the exchanges without a token too, and CPUs have no NCCL."""
    exchanges = [node for nodes in graphs_of_step.values() for node in nodes if is_exchange(node)]
    assert [node.name for node in exchanges if node.attr["Nordering_token"].i != 1] == []
    assert {node.attr["communication_hint"].s for node in exchanges} == {b"nccl"}


def test_exchanges_without_an_order_are_noticed() -> None:
    """Put exchanges into a plain `tf.Graph`, which does not order them. (A `tf.function` would order them.)"""
    with tf.Graph().as_default() as graph:
        replica = Replica(0, 2)
        for _ in range(4):
            replica.add_up(tf.zeros([3]))
    assert len(list_unordered(graph.as_graph_def().node, {})) == 3


# Which images of a batch each replica gets


def test_rows_of_all_replicas_are_the_batch_and_micro_batches_hold_the_same_images() -> None:
    for replicas, micro in ((1, 1), (3, 1), (2, 3), (4, 2)):
        shares = [choose_own_rows(rank, replicas, 24, micro) for rank in range(replicas)]
        assert sorted(np.concatenate(shares)) == list(range(24))
        for place in range(micro):
            held = np.concatenate([share.reshape(micro, -1)[place] for share in shares])
            assert sorted(held) == list(range(place * 24 // micro, (place + 1) * 24 // micro))


def test_each_replica_decodes_only_its_own_share_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the image files that two replicas open in one epoch. Together they must open each file exactly once."""
    for place in range(20):
        image = np.random.default_rng(place).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"{place:02d}.png")
    images = load_dataset(f"folder:{tmp_path}", None, 0, largest_side=12, memory_limit=0, splits="none").train.images
    opened, read = [], encoded.Files.read
    monkeypatch.setattr(encoded.Files, "read", lambda files, row: opened.append(files.name(row)) or read(files, row))
    steps, by_rank = len(images) // 4, []
    for rank in range(2):
        list(make_batches(images, 4, 0, 0, steps, choose_own_rows(rank, 2, 4)))
        by_rank.append(sorted(opened))
        opened.clear()
    list(make_batches(images, 4, 0, 0, steps))
    assert [len(names) for names in by_rank] == [2 * steps, 2 * steps]
    assert sorted(by_rank[0] + by_rank[1]) == sorted(opened) and len(set(opened)) == len(opened) == 4 * steps


def test_a_batch_without_equal_shares_is_refused() -> None:
    with pytest.raises(
        ValueError, match="24 images cannot be split into 1 micro-batches with equal shares for 5 replicas"
    ):
        choose_own_rows(0, 5, 24)


def test_canonical_order_is_all_first_views_and_then_all_second() -> None:
    rows = tf.constant(
        [[0], [1], [10], [11], [2], [3], [12], [13]]
    )  # two replicas, each with two first and two second views
    assert order_canonically(rows, 2).numpy()[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]


# Settings that are refused


def test_more_gpus_than_there_are_is_refused() -> None:
    count = len(tf.config.list_physical_devices("GPU")) + 2
    with pytest.raises(DistributionError, match=f"asks for {count} GPUs, .* or --devices cpu:{count}"):
        find_local_devices(str(count))


def test_an_unknown_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no BatchNorm 'both'"):
        Replica(batch_norm="both").use_batch_norm()


# Why a `StrategyReplica` calls some collective ops itself: see the table in docs/engine.md

MIRRORED = """
import tensorflow as tf
from lowlevel_simclr.training import replicas
strategy = tf.distribute.MirroredStrategy(replicas.find_local_devices("cpu:2"))

def number():  # 1 and 2, because TensorFlow takes a tensor that the replicas share for a sum
    return 1 + tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)

def add_up(x):
    return tf.distribute.get_replica_context().all_reduce("sum", x)

def gather(x):
    return tf.distribute.get_replica_context().all_gather(x, axis=0)

@tf.custom_gradient
def loss(x):
    return tf.reduce_sum(gather(x)), lambda cotangent: cotangent * tf.reduce_sum(gather(x)) * tf.ones_like(x)

def differentiate():
    x = number() * tf.ones([1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = loss(x)
    return tape.gradient(y, x)[0, 0]

def repeat(act):
    return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x + act()), (tf.constant(0), tf.constant(0.0)))[1]

nested = tf.function(lambda: add_up(number()))
cases = {
    "reduction": lambda: add_up(number()),
    "gather in float64": lambda: tf.reduce_sum(gather(tf.cast([number()], tf.float64))),
    "custom gradient": differentiate,
    "reduction in a loop": lambda: repeat(lambda: add_up(number())),
    "gather in a loop": lambda: repeat(lambda: tf.reduce_sum(gather(number()[None]))),
    "reduction in a function": lambda: nested(),
}

def run(case, loops):
    @tf.function(autograph=False)
    def act():
        if not loops:
            return strategy.experimental_local_results(strategy.run(case))[0]
        found = lambda i, x: (i + 1, strategy.experimental_local_results(strategy.run(case))[0])
        return tf.while_loop(lambda i, x: i < 3, found, (tf.constant(0), tf.constant(0.0)))[1]
    try:
        return float(act())
    except RuntimeError as error:
        return "merge_call" if "`merge_call` called while defining a new graph" in str(error) else repr(error)

for name, case in cases.items():
    print(f"{name}: {run(case, False)}")
print(f"run in a loop: {run(cases['reduction'], True)}")
"""


@pytest.mark.slow
def test_what_mirrored_strategy_can_do_of_a_step() -> None:
    """Test what the replica context of TensorFlow's MirroredStrategy can and cannot do.

    If this fails because it supports exchanges in loops and functions, `StrategyReplica` needs no exchanges of its own.
    """
    command = [sys.executable, "-W", "ignore", "-c", MIRRORED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines() == [
        "reduction: 3.0",
        "gather in float64: 3.0",
        "custom gradient: 6.0",
        "reduction in a loop: merge_call",
        "gather in a loop: merge_call",
        "reduction in a function: merge_call",
        "run in a loop: 3.0",
    ]
