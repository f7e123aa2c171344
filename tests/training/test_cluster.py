"""Tests how a process finds the other processes (workers) of its run: by --hosts and --rank, TF_CONFIG, or Slurm."""

from __future__ import annotations

import json

import pytest

from lowlevel_simclr.training.cluster import Cluster, find_cluster, read_tf_config
from lowlevel_simclr.training.replicas import DistributionError

TASK = {"type": "worker", "index": 0}


def make_config(cluster: object, task: object = TASK) -> str:
    return json.dumps({"cluster": cluster, "task": task})


def test_the_cluster_is_read() -> None:
    text = make_config({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 1})
    assert read_tf_config(text) == Cluster(("a:1", "b:2"), 1)
    assert read_tf_config(text.replace("1}", '"1"}')) == Cluster(
        ("a:1", "b:2"), 1
    )  # some schedulers write the index as a string


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
        make_config({"worker": ["a b:1"]}),
        make_config({"worker": ["fe80::1:29500"]}),
        make_config({"worker": ["[fe80::1]"]}),
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
        read_tf_config(text)


@pytest.mark.parametrize(
    ("hosts", "rank", "addresses"),
    [
        ("a:1,b:2", 1, ("a:1", "b:2")),
        ("a:1, b:2", 0, ("a:1", "b:2")),
        ("a:1,a:2", 0, ("a:1", "a:2")),
        ("[fe80::1]:29500,10.0.0.2:29500", 0, ("[fe80::1]:29500", "10.0.0.2:29500")),
        ("a:1", 0, ("a:1",)),
    ],
)
def test_hosts_are_read_by_hand(hosts: str, rank: int, addresses: tuple[str, ...]) -> None:
    assert find_cluster(hosts, rank, {}) == Cluster(addresses, rank, "--hosts")


@pytest.mark.parametrize(
    ("hosts", "rank", "said"),
    [
        ("a:1,b", 0, "'b' has no port"),
        ("a:1,b:", 0, "'b:' has no port between 1 and 65535"),
        ("a:1,b:x", 0, "'b:x' has no port between 1 and 65535"),
        ("a:1,b:70000", 0, "'b:70000' has no port between 1 and 65535"),
        ("a:1,b:\N{ARABIC-INDIC DIGIT ONE}", 0, "has no port between 1 and 65535"),
        ("a:1,:2", 0, "':2' has no host"),
        ("a:1,,b:2", 0, "'' has no port"),
        ("", 0, "'' has no port"),
        ("fe80::1:29500,b:1", 0, "'fe80::1:29500' is an IPv6 address without brackets"),
        ("[fe80::1],b:1", 0, r"'\[fe80::1\]' has no port"),
        ("a:1,b:2,a:1", 0, "two workers have the same address a:1"),
        ("a:1,b:2", 2, "the index is 2, but there are 2 workers"),
        ("a:1,b:2", -1, "the index is -1, but there are 2 workers"),
        ("a:1", 1, "the index is 1, but there is 1 worker"),
        ("a:1,b:2", None, "--hosts needs --rank"),
        (None, 1, "--rank 1 needs --hosts"),
    ],
)
def test_other_hosts_are_refused_with_a_sentence(hosts: str | None, rank: int | None, said: str) -> None:
    with pytest.raises(DistributionError, match=said) as caught:
        find_cluster(hosts, rank, {})
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


STEP = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
}


def test_what_the_user_says_comes_before_the_environment() -> None:
    config = {"TF_CONFIG": make_config({"worker": ["c:1", "d:2"]})}
    slurm = find_cluster(environment=STEP)
    assert slurm is not None and slurm.rank == 1 and slurm.source == "Slurm"
    assert [address.partition(":")[0] for address in slurm.addresses] == ["n1", "n2"]
    assert find_cluster(environment={**STEP, **config}) == Cluster(("c:1", "d:2"), 0, "TF_CONFIG")
    assert find_cluster("a:1,b:2", 1, {**STEP, **config}) == Cluster(("a:1", "b:2"), 1, "--hosts")


def test_without_a_list_the_program_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cluster(environment={}) is None
    assert find_cluster(environment={"TF_CONFIG": ""}) is None
    monkeypatch.setenv("TF_CONFIG", make_config({"worker": ["c:1"]}))
    assert find_cluster() == Cluster(("c:1",), 0, "TF_CONFIG")


def test_variables_of_slurm_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(DistributionError, match="The variables of Slurm do not say .* Name the workers with --hosts"):
        find_cluster(environment={**STEP, "SLURM_STEP_NODELIST": "n1"})
