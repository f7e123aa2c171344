"""How workers find each other, what a worker says while it waits, and when it gives up."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lowlevel_simclr.training import joining
from lowlevel_simclr.training.joining import Cluster, read_cluster, wait_for_workers
from lowlevel_simclr.training.replicas import DistributionError

TASK = {"type": "worker", "index": 0}


def make_config(cluster: object, task: object = TASK) -> str:
    return json.dumps({"cluster": cluster, "task": task})


def test_the_cluster_is_read() -> None:
    text = make_config({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 1})
    assert read_cluster(text) == Cluster(("a:1", "b:2"), 1)
    assert read_cluster(text.replace("1}", '"1"}')) == Cluster(("a:1", "b:2"), 1)  # as some schedulers write it


def test_without_a_cluster_there_is_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert read_cluster() is None
    monkeypatch.setenv("TF_CONFIG", "")
    assert read_cluster() is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "5",
        "null",
        "[]",
        "[" * 100_000,
        "{}",
        '{"cluster": 5, "task": 5}',
        '{"cluster": null, "task": null}',
        make_config([]),
        make_config({}),
        make_config({"worker": []}),
        make_config({"worker": "a:1"}),
        make_config({"worker": {"a:1": 0}}),
        make_config({"worker": [1, 2]}),
        make_config({"worker": ["a"]}),
        make_config({"worker": ["a:b"]}),
        make_config({"worker": ["a:0"]}),
        make_config({"worker": ["a:65536"]}),
        make_config({"worker": [":1"]}),
        make_config({"worker": ["a:1", "a:1"]}),
        make_config({"worker": ["a:1"], "ps": ["b:1"]}),
        make_config({"worker": ["a:1"]}, 0),
        make_config({"worker": ["a:1"]}, {"type": "worker"}),
        make_config({"worker": ["a:1"]}, {"type": "ps", "index": 0}),
        make_config({"worker": ["a:1"]}, {"type": "worker", "index": 1}),
        make_config({"worker": ["a:1"]}, {"type": "worker", "index": -1}),
        make_config({"worker": ["a:1"]}, {"type": "worker", "index": True}),
        make_config({"worker": ["a:1"]}, {"type": "worker", "index": 0.0}),
        make_config({"worker": ["a:1"]}, {"type": "worker", "index": None}),
        make_config({"worker": ["a:1"]}, {"type": "worker", "index": "first"}),
    ],
)
def test_a_cluster_that_tensorflow_cannot_use_is_refused(text: str) -> None:
    with pytest.raises(DistributionError, match="TF_CONFIG is not valid"):
        read_cluster(text)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """This worker, one that listens and one that does not."""
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as gone:
        addresses = ["127.0.0.1:1", *(f"127.0.0.1:{each.getsockname()[1]}" for each in (there, gone))]
        gone.close()
        yield Cluster(tuple(addresses), 0)


def test_a_worker_that_waits_names_whom_it_waits_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joining, "TOLD_EVERY", 0.05)
    come = threading.Event()
    threading.Timer(0.5, come.set).start()
    assert wait_for_workers(cluster, lambda: come.wait(60), 60.0) is True
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert all(f"worker 2 ({cluster.addresses[2]}) does not answer" in line for line in lines)


def test_a_worker_gives_up(cluster: Cluster) -> None:
    never = threading.Event()
    started = time.monotonic()
    with pytest.raises(DistributionError, match=r"worker 2 \(127.0.0.1:\d+\) does not answer.*--worker-timeout"):
        wait_for_workers(cluster, never.wait, 0.3)
    assert time.monotonic() - started < 30
    never.set()


def test_an_error_of_tensorflow_is_raised(cluster: Cluster) -> None:
    def fail() -> None:
        raise ValueError("no such port")

    with pytest.raises(ValueError, match="no such port"):
        wait_for_workers(cluster, fail, 60.0)


def test_workers_that_answer_and_have_not_joined_are_no_lost_ones(cluster: Cluster) -> None:
    assert joining.describe_missing(Cluster(cluster.addresses[:2], 0)).startswith("every worker answers")
