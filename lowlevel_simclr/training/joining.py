"""How the workers of a run find each other: the cluster in TF_CONFIG, and the wait until all of them are there."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from lowlevel_simclr.runtime.signals import tell_stage
from lowlevel_simclr.training.replicas import DistributionError

TOLD_EVERY = 30.0  # seconds between two lines of a worker that waits
ANSWERS_WITHIN = 5.0  # seconds for a connection to another worker
Made = TypeVar("Made")


class Cluster(NamedTuple):
    """The workers that TF_CONFIG lists.

    Attributes:
        addresses: "host:port" of each worker by rank.
        rank: the rank of this worker.
    """

    addresses: tuple[str, ...]
    rank: int


def read_cluster(text: str | None = None) -> Cluster | None:
    """Return the cluster of TF_CONFIG, or None if it is not set.

    Args:
        text: the content of TF_CONFIG. None means that of the environment.

    Raises:
        DistributionError: if it is not what TensorFlow reads.
    """
    text = os.environ.get("TF_CONFIG", "") if text is None else text
    if not text:
        return None
    try:
        return _parse_cluster(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f" ({error})" if isinstance(error, _Unsound) else ""
        raise DistributionError(
            f"TF_CONFIG is not valid{why}: {text[:500]!r}. It must look like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'
        ) from None


class _Unsound(ValueError):
    """A cluster that TensorFlow cannot use. The message says what is wrong."""


def _parse_cluster(value: object) -> Cluster:
    """Return the cluster in the JSON value of TF_CONFIG.

    Raises:
        _Unsound: with the reason.
        KeyError, TypeError: if a part is missing or has another type.
    """
    if not isinstance(value, dict):
        raise _Unsound("it is not a JSON object")
    roles, task = value["cluster"], value["task"]
    if set(roles) != {"worker"}:
        raise _Unsound(f"the cluster has {', '.join(map(str, roles)) or 'no workers'}, but only 'worker' is possible")
    addresses, rank = roles["worker"], task["index"]
    if not isinstance(addresses, list) or not addresses or not all(map(_is_address, addresses)):
        raise _Unsound("the workers must be a list of texts such as 'host:port'")
    if len(set(addresses)) < len(addresses):
        raise _Unsound("two workers have the same address")
    if isinstance(rank, str) and rank.isdecimal():
        rank = int(rank)
    if task["type"] != "worker" or not isinstance(rank, int) or isinstance(rank, bool):
        raise _Unsound("the task must have type 'worker' and a whole number as index")
    if not 0 <= rank < len(addresses):
        raise _Unsound(f"the index is {rank}, but there are {len(addresses)} workers")
    return Cluster(tuple(addresses), rank)


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    host, _, port = value.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def wait_for_workers(cluster: Cluster, join: Callable[[], Made], timeout: float) -> Made:
    """Call `join`, which waits inside TensorFlow until every worker is there, and return its result.

    TensorFlow waits silently and cannot be interrupted. Therefore `join` runs in a thread of its own. Every half minute
    this function prints which workers do not answer.

    Args:
        cluster: the workers.
        join: connects to the others.
        timeout: seconds to wait.

    Raises:
        DistributionError: if a worker is missing after `timeout` seconds.
        Exception: if `join` raises.
    """
    made: list[Made] = []
    raised: list[BaseException] = []

    def act() -> None:
        try:
            made.append(join())
        except BaseException as error:  # noqa: BLE001, raised again below
            raised.append(error)

    tell_stage("waiting for the other workers")
    thread = threading.Thread(target=act, name="joining", daemon=True)
    thread.start()
    started = time.monotonic()
    while thread.is_alive():
        left = started + timeout - time.monotonic()
        thread.join(max(0.0, min(TOLD_EVERY, left)))
        waited = time.monotonic() - started
        if thread.is_alive() and waited >= timeout:
            raise DistributionError(
                f"After {waited:.0f} seconds {describe_missing(cluster)}. Start every worker with the same command and "
                "its own index, or wait longer with --worker-timeout."
            )
        if thread.is_alive():
            print(f"Waiting for {waited:.0f} seconds: {describe_missing(cluster)}.", file=sys.stderr, flush=True)
    if raised:
        raise raised[0]
    return made[0]


def describe_missing(cluster: Cluster) -> str:
    """Return which workers do not answer at their addresses, as the end of a sentence."""
    missing = list_silent(cluster.addresses, cluster.rank)
    names = [f"worker {rank} ({cluster.addresses[rank]})" for rank in missing]
    if not names:
        return "every worker answers at its address, but not all of them have joined"
    return f"{' and '.join(names)} {'does' if len(names) == 1 else 'do'} not answer"


def list_silent(addresses: Sequence[str], own: int) -> list[int]:
    """Return the ranks of the other workers whose ports accept no connection.

    A worker that is stopped (SIGSTOP) is not among them, because its operating system still accepts connections.
    """
    return [rank for rank, address in enumerate(addresses) if rank != own and not _does_answer(address)]


def _does_answer(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN):
            return True
    except OSError:
        return False
