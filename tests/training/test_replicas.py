"""One device or many, the same numbers: R replicas against one, in float64, bugs planted, workers on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench import harness
from lowlevel_simclr import ops
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.training import gradient_cache, step
from lowlevel_simclr.training.loss import make_nt_xent_and_top1
from lowlevel_simclr.training.replicas import (
    DistributionError,
    Replica,
    choose_own_rows,
    find_local_devices,
    order_canonically,
)
from lowlevel_simclr.training.workers import Workers, join_workers, make_replicas, name_lost_workers, run_on_each
from tests.support import replicated
from tests.support.replicated import Case

ROOT = Path(__file__).parents[2]
FOUR, WIDTH, COPIES = 4, 64, 6
EXACT = 1e-9  # of a tensor's norm; float64 rounds by 1e-16, and five steps of BatchNorm enlarge it
Found = dict[str, Any]


def finished(commands: Sequence[Sequence[str]], environments: Sequence[dict[str, str]]) -> None:
    """Programs side by side, to their end."""
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for command, more in zip(commands, environments)
    ]
    said = [process.communicate(timeout=900)[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * len(running), "\n".join(said)[-4000:]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def cluster(count: int) -> list[dict[str, str]]:
    """TF_CONFIG of each of `count` workers on loopback; nothing for one."""
    if count == 1:
        return [{"TF_CONFIG": ""}]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})}
        for rank in range(count)
    ]


def outcomes(cases: Sequence[Case], workers: int = 1) -> dict[str, Found]:
    """What each case came to, on worker 0; all workers must have come to the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "cases.json"
        asked.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
        command = [sys.executable, "-m", "tests.support.replicated", str(asked), folder]
        finished([command] * workers, cluster(workers))
        found = {
            case.name: [dict(np.load(Path(folder) / f"{case.name}-{rank}.npz")) for rank in range(workers)]
            for case in cases
        }
    for every in found.values():
        for other in every:
            assert all(other[name].tobytes() == every[0][name].tobytes() for name in other)
    return {name: every[0] for name, every in found.items()}


def one_device(precision: str, micro: int = 1, steps: int = 5) -> Found:
    """The run of a lone device, by the step alone: nothing of `distribute` is in it."""
    learner, table = replicated.learner_of(precision), tf.constant(replicated.table_of_views(precision))

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        return tf.concat(tf.unstack(tf.gather(table, index), axis=1), axis=0)

    loss = functools.partial(ops.nt_xent_and_top1, temperature=replicated.TEMPERATURE)
    parts = (learner, views, loss, replicated.schedule)
    act = tf.function(
        lambda *batch: (
            step.train_step(*parts, batch) if micro == 1 else gradient_cache.train_cached_step(*parts, batch, micro)
        )
    )
    losses = []
    for done in range(steps):
        order = np.random.default_rng(done).permutation(replicated.IMAGES)[: replicated.BATCH]
        images = tf.zeros([len(order), replicated.SIZE, replicated.SIZE, 3], tf.uint8)
        losses.append(float(act(tf.constant(1, tf.int64), tf.constant(order), images).loss))
        if done == 0:
            gradients = {f"gradient/{i:02d}": seen.numpy() for i, seen in enumerate(learner.optimizer.seen)}
    return {"losses": np.array(losses), **gradients, **{f"state/{k}": v for k, v in learner.arrays().items()}}


wanted = functools.cache(one_device)


def norm_of_gradients(found: Found) -> float:
    return float(np.sqrt(sum(np.sum(np.square(found[name])) for name in found if name.startswith("gradient"))))


def assert_exactly(found: Found, one: Found) -> None:
    """Loss, gradients, statistics, slots and weights, each against its own norm; a gradient of zero against all."""
    assert found["alike"]
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=EXACT)
    for name in one:
        size = np.linalg.norm(one[name])
        if name.startswith("gradient") and size < 1e-6 * norm_of_gradients(one):
            size = norm_of_gradients(one)
        assert np.linalg.norm(found[name] - one[name]) <= EXACT * size, name


def assert_nearly(found: Found, one: Found) -> None:
    """In float32: BatchNorm networks enlarge the last bit within a few steps, so gradients are those of the first."""
    assert found["alike"]
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=0, atol=1e-4)
    for name in one:
        if name.startswith("gradient"):
            assert np.linalg.norm(found[name] - one[name]) <= 1e-4 * norm_of_gradients(one), name


DEFAULT = (
    Case("one"),
    Case("three", 3),
    Case("three by 2", 3, micro=2),
    *(Case(bug, 2, implementation="stock", steps=2, bug=bug, compiled=False) for bug in replicated.BUGS),
    Case("no bug", 2, implementation="stock", steps=2, compiled=False),
)


@pytest.fixture(scope="module")
def default_outcomes() -> dict[str, Found]:
    """All of them from one process: most of the time of a small one is its start."""
    return outcomes(DEFAULT)


def test_one_replica_is_one_device_to_the_bit(default_outcomes: dict[str, Found]) -> None:
    found, one = default_outcomes["one"], wanted("float64")
    assert [name for name in one if np.asarray(found[name]).tobytes() != one[name].tobytes()] == []


@pytest.mark.parametrize(("name", "micro"), [("three", 1), ("three by 2", 2)])
def test_three_replicas_are_one_device(default_outcomes: dict[str, Found], name: str, micro: int) -> None:
    assert_exactly(default_outcomes[name], wanted("float64", micro))


def test_two_replicas_without_a_bug_are_one_device(default_outcomes: dict[str, Found]) -> None:
    assert_exactly(default_outcomes["no bug"], wanted("float64", 1, 2))


@pytest.mark.parametrize("bug", replicated.BUGS)
def test_a_known_bug_is_caught(default_outcomes: dict[str, Found], bug: str) -> None:
    with pytest.raises(AssertionError):
        assert_exactly(default_outcomes[bug], wanted("float64", 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_every_number_of_replicas_is_one_device(workers: int) -> None:
    """Native and stock, with micro-batches and without, in float64 and in float32; with two workers twice as many."""
    cases = [
        Case(f"{implementation}-{precision}-{count}-{micro}", count, micro, implementation, precision)
        for implementation in ("native", "stock")
        for precision in ("float64", "float32")
        for count in ((1, 2, 3, 4) if workers == 1 else (1, 2))
        for micro in (1, 2)
    ]
    for case, found in zip(cases, outcomes(cases, workers).values()):
        one = wanted(case.precision, case.micro)
        if case.precision == "float64":
            assert_exactly(found, one)
        else:
            assert_nearly(found, one)


@pytest.mark.slow
def test_ghost_groups_do_not_depend_on_replicas_or_micro_batches() -> None:
    """Groups of four images, whoever computes them; local statistics differ, and all replicas keep the same ones."""
    cases = [
        Case("one", 1, 6, batch_norm="ghost"),
        Case("three", 3, 2, batch_norm="ghost"),
        Case("local", 3, batch_norm="local"),
    ]
    found = outcomes(cases)
    assert found["one"].pop("alike")
    assert_exactly(found["three"], found["one"])
    with pytest.raises(AssertionError):
        assert_exactly(found["local"], wanted("float64"))


# What is refused, and the rows


def test_rows_of_all_replicas_are_the_batch_and_micro_batches_hold_the_same_images() -> None:
    for replicas, micro in ((1, 1), (3, 1), (2, 3), (4, 2)):
        shares = [choose_own_rows(rank, replicas, 24, micro) for rank in range(replicas)]
        assert sorted(np.concatenate(shares)) == list(range(24))
        for place in range(micro):
            held = np.concatenate([share.reshape(micro, -1)[place] for share in shares])
            assert sorted(held) == list(range(place * 24 // micro, (place + 1) * 24 // micro))


def test_a_batch_without_equal_shares_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 24 images in 1 micro-batches has no equal shares for 5 replicas"):
        choose_own_rows(0, 5, 24)


def test_canonical_order_is_all_first_views_and_then_all_second() -> None:
    rows = tf.constant(
        [[0], [1], [10], [11], [2], [3], [12], [13]]
    )  # two replicas: two first and two second views each
    assert order_canonically(rows, 2).numpy()[:, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]


def test_more_gpus_than_there_are_is_refused() -> None:
    count = len(tf.config.list_physical_devices("GPU")) + 2
    with pytest.raises(DistributionError, match=f"give at most that, or cpu:{count}"):
        find_local_devices(str(count))


@pytest.mark.parametrize(
    "text", ["{", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}']
)
def test_a_cluster_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(DistributionError, match="TF_CONFIG is"):
        join_workers()


def test_an_unknown_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no BatchNorm 'both'"):
        Replica(batch_norm="both").batch_norm_scope()


# Why the replicas are not those of MirroredStrategy

MIRRORED = """
import tensorflow as tf
from lowlevel_simclr.training import replicas
strategy = tf.distribute.MirroredStrategy(replicas.find_local_devices("cpu:2"))

def total():
    return tf.distribute.get_replica_context().all_reduce("sum", tf.constant(1.0))

def total_in_a_loop():
    done, zero = tf.constant(0), tf.constant(0.0)
    return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x + total()), (done, zero))[1]

print(tf.function(lambda: strategy.run(total))().values[0].numpy())
try:
    tf.function(lambda: strategy.run(total_in_a_loop))()
except RuntimeError as error:
    print(error)
"""


@pytest.mark.slow
def test_mirrored_strategy_refuses_a_reduction_inside_a_loop() -> None:
    """Where it no longer does, `distribute` can be built on it: its docstring says so."""
    command = [sys.executable, "-c", MIRRORED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("2.0") and "synchronization point" in done.stdout, done.stdout


# Memory of the loss


def loss_of_four(started: Callable[[], None], pairs: int, implementation: str) -> None:
    """Loss and gradient of `pairs` pairs on four replicas of this process, after those of a few."""
    local = make_replicas(Workers(), find_local_devices(f"cpu:{FOUR}"), "sync", 0)
    chosen = replicated.implementation(implementation)

    def act_of(replica: Replica) -> Callable[[tf.Tensor], tf.Tensor]:
        losses = make_nt_xent_and_top1(replica, chosen, replicated.TEMPERATURE)

        @tf.function
        def act(z: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = tf.reduce_mean(losses(z)[0])
            return tape.gradient(loss, z)

        return act

    acts = [act_of(replica) for replica in local]
    for count in (64, pairs):
        z = np.random.default_rng(0).normal(size=(FOUR, 2 * count // FOUR, WIDTH)).astype(np.float32)
        if count == pairs:
            started()
        found = run_on_each(Workers(), local, lambda place, z=z: acts[place](tf.constant(z[place])))
        assert np.isfinite(found[0]).all()


def grown_by_z_of_all(pairs: int, implementation: str) -> float:
    """Growth of the process's peak memory for each of four replicas, in copies of the (2N, d) rows of all."""
    grown = harness.measure_peak_growth(loss_of_four, pairs, implementation)
    assert isinstance(grown, int), grown
    copies = grown / FOUR / (2 * pairs * WIDTH * 4)
    print(f"{implementation}, {pairs} pairs: {grown / 2**20:.1f} MiB, each replica {copies:.2f} copies of all z")
    return copies


@pytest.mark.slow
def test_memory_of_the_loss_is_linear_on_each_replica() -> None:
    """Gathered, in canonical order, once more and a gradient; own rows against all columns would be 2N / R / d = 128.

    The stock formulas, which hold own rows against all columns, show at a smaller batch that the measure would see it.
    """
    assert grown_by_z_of_all(16_384, "native") <= COPIES
    assert grown_by_z_of_all(4_096, "stock") > 2 * COPIES


# A replica that raises alone

RAISES = """
import sys
import tensorflow as tf
from lowlevel_simclr.training import replicas, workers as w
how, devices = sys.argv[1], int(sys.argv[2])
replicas.find_local_devices(f"cpu:{devices}")
workers = w.join_workers()
local = w.make_replicas(workers, [f"/device:CPU:{place}" for place in range(devices)], "sync", 0)
w.check_ranks(workers, local)
odd = [replica.rank == replica.count - 1 for replica in local]

def exchange(place, step):
    if odd[place] and how == "graph":
        with tf.control_dependencies([tf.debugging.assert_less(step, 3, "no such image")]):
            step = tf.identity(step)
    return local[place].total(step)

acts = [tf.function(lambda step, place=place: exchange(place, step)) for place in range(devices)]

def act(place):
    if odd[place] and how == "python" and done == 3:
        raise ValueError("no such image")
    return acts[place](tf.constant(done))

for done in range(5):
    w.run_on_each(workers, local, act)
    print("done", done, flush=True)
"""


def ends(how: str, devices: int, workers: int = 1) -> list[tuple[int, str]]:
    """Exit code and words of each worker; none may take longer than two minutes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RAISES, how, str(devices)],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in cluster(workers)
    ]
    said = said_at_the_end(processes, 120)
    return [(process.returncode, text) for process, text in zip(processes, said)]


def test_a_replica_that_raises_alone_ends_the_run_with_its_error() -> None:
    [(code, said)] = ends("python", 3)
    assert code == 1 and "done 2" in said and "done 3" not in said
    assert said.strip().splitlines()[-1] == "ValueError: no such image"


@pytest.mark.slow
def test_a_replica_whose_graph_fails_alone_ends_the_run_with_its_error() -> None:
    [(code, said)] = ends("graph", 3)
    assert code == 1 and "done 2" in said and "done 3" not in said
    assert "InvalidArgumentError" in said and "assertion failed: [no such image]" in said


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_worker_of_which_one_replica_raises_ends_the_others(devices: int) -> None:
    (first, of_first), (second, of_second) = ends("python", devices, workers=2)
    assert second != 0 and "ValueError: no such image" in of_second, of_second
    assert first != 0 and "done 3" not in of_first and "left the run" in of_first, of_first


@pytest.mark.slow
def test_a_worker_whose_graph_fails_says_so_and_the_others_name_it() -> None:
    (first, of_first), (second, of_second) = ends("graph", 1, workers=2)
    assert second != 0 and "assertion failed: [no such image]" in of_second, of_second
    assert "left the run" not in of_second, of_second
    assert first != 0 and "done 3" not in of_first and "worker 1 (127.0.0.1:" in of_first, of_first


def test_only_an_exchange_that_was_given_up_is_told_as_a_lost_worker() -> None:
    workers = Workers(2, 0, ("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(tf.errors.InvalidArgumentError), name_lost_workers(workers):
        raise tf.errors.InvalidArgumentError(None, None, "no such image")
    with pytest.raises(DistributionError, match=r"worker 1 \(127.0.0.1:2\) left the run"):
        with name_lost_workers(workers):
            raise tf.errors.UnavailableError(None, None, "the peer is gone")


# Two workers train a run, as a user starts them

TRAIN = """
import sys
from lowlevel_simclr import train
from lowlevel_simclr.data import catalog
catalog.SHAPES_TRAIN, catalog.SHAPES_TEST = 60, 40
sys.exit(train.main(sys.argv[1:]))
"""
SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--steps-per-call", "2"]
SMALL += ["--warmup-epochs", "0", "--knn-every", "0", "--precision", "float32"]


def start(out: Path, *flags: str, of_second: Sequence[str] = ()) -> list[subprocess.Popen[str]]:
    """Both workers, in their order."""
    return [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, *SMALL, "--out", str(out), *flags, *(of_second if rank else ())],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, environment in enumerate(cluster(2))
    ]


def wait_for_steps(out: Path, processes: Sequence[subprocess.Popen[str]], count: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        rows = out / "metrics.jsonl"
        if rows.exists() and rows.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.1)
    for process in processes:
        process.kill()
    raise AssertionError("\n".join(process.communicate()[0][-2000:] for process in processes))


def said_at_the_end(processes: Sequence[subprocess.Popen[str]], seconds: float) -> list[str]:
    """What each said; none may take longer."""
    try:
        return [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def final_state(out: Path) -> dict[str, np.ndarray]:
    saved = checkpoint.load_latest(out / "checkpoints")
    assert saved is not None
    return saved.arrays


@pytest.mark.slow
def test_workers_with_other_settings_refuse_to_start_and_say_which(tmp_path: Path) -> None:
    processes = start(tmp_path / "run", "--steps", "4", of_second=["--temperature", "0.5"])
    said = said_at_the_end(processes, 300)
    assert all(process.returncode not in (0, None) for process in processes)
    assert any("worker 1 is not like worker 0 (temperature: 0.1 there, 0.5 here)" in text for text in said), said


@pytest.mark.slow
def test_a_worker_killed_ends_the_other_and_the_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    flags = ["--steps", "60", "--checkpoint-every", "10"]
    whole = start(tmp_path / "whole", *flags)
    said = said_at_the_end(whole, 600)
    assert [process.returncode for process in whole] == [0, 0], said
    processes = start(tmp_path / "run", *flags)
    wait_for_steps(tmp_path / "run", processes, 24)
    processes[1].kill()
    started = time.monotonic()
    chief = said_at_the_end(processes[:1], 120)[0]
    processes[1].communicate()  # closes its pipe
    print(f"the chief ended {time.monotonic() - started:.1f} s after worker 1 was killed")
    assert processes[0].returncode not in (0, None) and "worker 1 (127.0.0.1:" in chief and "left the run" in chief, (
        chief
    )
    again = start(tmp_path / "run", *flags)
    said = said_at_the_end(again, 600)
    assert [process.returncode for process in again] == [0, 0], said
    one, other = final_state(tmp_path / "whole"), final_state(tmp_path / "run")
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []
