"""Tests how training ends if one of its devices (replicas) fails, or if one of its processes (workers) is lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from lowlevel_simclr.training.replicas import (
    DistributionError,
)
from lowlevel_simclr.training.workers import Workers, choose_strategy, name_lost_workers
from tests.support.worker_processes import ROOT, collect_output, make_cluster

# Only one replica fails


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
    return local[place].add_up(step)

acts = [tf.function(lambda step, place=place: exchange(place, step)) for place in range(devices)]

def act(place):
    if odd[place] and how == "python" and done == 3:
        raise ValueError("no such image")
    return acts[place](tf.constant(done))

for done in range(5):
    w.run_on_each(workers, local, act)
    print("done", done, flush=True)
"""


def run_raising(how: str, devices: int, workers: int = 1) -> list[tuple[int, str]]:
    """Run the program RAISES in each worker, for at most two minutes. Return each worker's exit code and output."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RAISES, how, str(devices)],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in make_cluster(workers)
    ]
    said = collect_output(processes, 120)
    return [(process.returncode, text) for process, text in zip(processes, said)]


def test_a_replica_that_raises_alone_ends_the_run_with_its_error() -> None:
    [(code, said)] = run_raising("python", 3)
    assert code == 1 and "done 2" in said and "done 3" not in said
    assert said.strip().splitlines()[-1] == "ValueError: no such image"


TWICE = """
import tensorflow as tf
from lowlevel_simclr.training import workers as w
for engine, length in [(engine, length) for engine in ("threads", "strategy") for length in (3, 5)]:
    team = w.gather_team("cpu:2", "sync", 0, engine=engine)
    w.check_ranks(team.workers, team.local)
    sums = w.run_on_each(team.workers, team.local, lambda place: team.local[place].add_up(tf.ones([length])))
    print([each.numpy().tolist() for each in sums])
"""


def test_a_process_can_train_several_runs_one_after_the_other() -> None:
    """Test exchanges of other shapes in the second run. TensorFlow refuses them under the keys of the first one."""
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [str([[2.0] * length] * 2) for length in (3, 5, 3, 5)], done.stderr[-2000:]


def test_a_strategy_that_has_other_devices_than_the_replicas_is_refused() -> None:
    """Test two workers whose strategy has one device each, as on a CPU, with two replicas each."""
    connected = Workers(2, 0, ("a:1", "b:1"), SimpleNamespace(num_replicas_in_sync=2))
    with pytest.raises(DistributionError, match="--engine strategy has 2 replicas on these 2 workers, .* asks for 4"):
        choose_strategy(connected, ["/device:CPU:0", "/device:CPU:1"])


@pytest.mark.slow
def test_a_replica_whose_graph_fails_alone_ends_the_run_with_its_error() -> None:
    [(code, said)] = run_raising("graph", 3)
    assert code == 1 and "done 2" in said and "done 3" not in said
    assert "InvalidArgumentError" in said and "assertion failed: [no such image]" in said


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_worker_of_which_one_replica_raises_ends_the_others(devices: int) -> None:
    (first, of_first), (second, of_second) = run_raising("python", devices, workers=2)
    assert second != 0 and "ValueError: no such image" in of_second, of_second
    assert first != 0 and "done 3" not in of_first and "The run lost worker 1" in of_first, of_first


@pytest.mark.slow
def test_a_worker_whose_graph_fails_says_so_and_the_others_name_it() -> None:
    (first, of_first), (second, of_second) = run_raising("graph", 1, workers=2)
    assert second != 0 and "assertion failed: [no such image]" in of_second, of_second
    assert "The run lost" not in of_second, of_second
    assert first != 0 and "done 3" not in of_first and "worker 1 (127.0.0.1:" in of_first, of_first


def test_only_an_exchange_that_was_given_up_is_told_as_a_lost_worker() -> None:
    workers = Workers(2, 0, ("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(tf.errors.InvalidArgumentError), name_lost_workers(workers):
        raise tf.errors.InvalidArgumentError(None, None, "no such image")
    with pytest.raises(DistributionError, match=r"The run lost worker 1 \(127.0.0.1:2\)"):
        with name_lost_workers(workers):
            raise tf.errors.UnavailableError(None, None, "the peer is gone")


def test_the_line_with_the_reason_of_an_aborted_exchange_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowlevel_simclr.training.workers.list_lost", lambda addresses, own: [1])
    text = (
        "Graph execution error:\n\nDetected at node add\n  \nCollective ops is aborted by: task 1 is silent\n\t [[add]]"
    )
    with pytest.raises(DistributionError, match="TensorFlow says: Collective ops is aborted by: task 1 is silent$"):
        with name_lost_workers(Workers(2, 0, ("127.0.0.1:1", "127.0.0.1:2"))):
            raise tf.errors.UnavailableError(None, None, text)


def test_a_worker_that_is_stopped_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a stopped worker. Its operating system still accepts connections, but its program does not answer."""
    monkeypatch.setattr("lowlevel_simclr.training.joining.ANSWERS_WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stopped:
        address = f"127.0.0.1:{stopped.getsockname()[1]}"
        workers = Workers(2, 0, ("127.0.0.1:1", address))
        with pytest.raises(DistributionError, match=f"The run lost worker 1 .{address}"), name_lost_workers(workers):
            raise tf.errors.DeadlineExceededError(None, None, "the exchange took too long")


def test_no_worker_is_blamed_if_all_of_them_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lowlevel_simclr.training.workers.list_lost", lambda addresses, own: [])
    workers = Workers(2, 0, ("127.0.0.1:1", "127.0.0.1:2"))
    with pytest.raises(DistributionError, match="The run lost a worker, although every worker answers."):
        with name_lost_workers(workers):
            raise tf.errors.DeadlineExceededError(None, None, "the exchange took too long")
