"""Finds the list of the workers (processes) of a run, and the place of this worker in the list.

The list comes from `--hosts` and `--rank`. Without these it comes from TF_CONFIG, and without that from Slurm's
variables (`slurm.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lowlevel_simclr.training.replicas import DistributionError
from lowlevel_simclr.training.slurm import SlurmError, read_addresses

LONGEST_SHOWN = 500  # characters of an unusable value that a message shows


class Cluster(NamedTuple):
    """The workers of a run.

    Attributes:
        addresses: "host:port" of each worker, in the order of the ranks. An IPv6 address is in brackets, as in
            "[fe80::1]:29500".
        rank: the rank of this worker.
        source: where the list came from: "--hosts", "TF_CONFIG" or "Slurm".
    """

    addresses: tuple[str, ...]
    rank: int
    source: str = "TF_CONFIG"


class _Unsound(ValueError):
    """A cluster that TensorFlow cannot use. The message says what is wrong."""


def find_cluster(
    hosts: str | None = None, rank: int | None = None, environment: Mapping[str, str] | None = None
) -> Cluster | None:
    """Return the workers of this run, or None if the program runs alone.

    Args:
        hosts: "host:port" of each worker in the order of the ranks, separated by commas. None: the environment
            variables name the workers.
        rank: the rank of this worker. It must be given if, and only if, `hosts` is given.
        environment: the environment variables. None means those of this process.

    Raises:
        DistributionError: if TensorFlow could not use the given workers.

    Example:
        >>> find_cluster("a:29500,b:29500", rank=1).addresses
        ('a:29500', 'b:29500')
    """
    environment = os.environ if environment is None else environment
    if hosts is not None or rank is not None:
        return _read_hosts(hosts, rank)
    if environment.get("TF_CONFIG"):
        return read_tf_config(environment["TF_CONFIG"])
    try:
        placed = read_addresses(environment)
    except SlurmError as error:
        raise DistributionError(
            f"The variables of Slurm do not say where the tasks run: {error}. Name the workers with --hosts and "
            "--rank, or with TF_CONFIG."
        ) from None
    return None if placed is None else Cluster(*placed, source="Slurm")


def _read_hosts(hosts: str | None, rank: int | None) -> Cluster:
    """Return the cluster of --hosts and --rank.

    Raises:
        DistributionError: if one of them is missing, or if TensorFlow cannot use them.
    """
    if hosts is None:
        raise DistributionError(f"--rank {rank} needs --hosts. Give all workers, such as --hosts a:29500,b:29500.")
    if rank is None:
        raise DistributionError("--hosts needs --rank. Give this worker's place in the list, from 0, such as --rank 0.")
    try:
        return _check_cluster([address.strip() for address in hosts.split(",")], rank, "--hosts")
    except _Unsound as error:
        raise DistributionError(
            f"--hosts {hosts[:LONGEST_SHOWN]} --rank {rank} is not possible: {error}. Use host:port of each worker, "
            "separated by commas, such as --hosts a:29500,b:29500 --rank 0."
        ) from None


def read_tf_config(text: str) -> Cluster:
    """Return the cluster of TF_CONFIG.

    Args:
        text: the content of TF_CONFIG.

    Raises:
        DistributionError: if TensorFlow could not use this content.
    """
    try:
        return _parse_tf_config(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f" ({error})" if isinstance(error, _Unsound) else ""
        raise DistributionError(
            f"TF_CONFIG is not valid{why}: {text[:LONGEST_SHOWN]!r}. It must look like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'
        ) from None


def _parse_tf_config(value: object) -> Cluster:
    """Return the cluster in the JSON value of TF_CONFIG.

    Raises:
        _Unsound: if TensorFlow cannot use the cluster. The message gives the reason.
        KeyError, TypeError: if a part is missing or has the wrong type.
    """
    if not isinstance(value, dict):
        raise _Unsound("it is not a JSON object")
    roles, task = value["cluster"], value["task"]
    if set(roles) != {"worker"}:
        raise _Unsound(f"the cluster has {', '.join(map(str, roles)) or 'no workers'}, but only 'worker' is possible")
    addresses, rank = roles["worker"], task["index"]
    if not isinstance(addresses, list) or not addresses:
        raise _Unsound("the workers must be a list of texts such as 'host:port'")
    if isinstance(rank, str) and rank.isdecimal():  # Kubernetes and others write the index as a string
        rank = int(rank)
    if task["type"] != "worker" or not isinstance(rank, int) or isinstance(rank, bool):
        raise _Unsound("the task must have type 'worker' and a whole number as index")
    return _check_cluster(addresses, rank, "TF_CONFIG")


def _check_cluster(addresses: Sequence[object], rank: int, source: str) -> Cluster:
    """Return the cluster with these addresses.

    Raises:
        _Unsound: if TensorFlow cannot use it.
    """
    texts = [address for address in addresses if isinstance(address, str)]
    problem = next(filter(None, map(_find_problem, texts)), None)
    if len(texts) < len(addresses) or problem:
        raise _Unsound(problem or "the workers must be a list of texts such as 'host:port'")
    twice = next((address for place, address in enumerate(texts) if address in texts[:place]), None)
    if twice is not None:
        raise _Unsound(f"two workers have the same address {twice}")
    if not 0 <= rank < len(texts):
        workers = "1 worker" if len(texts) == 1 else f"{len(texts)} workers"
        raise _Unsound(f"the index is {rank}, but there {'is' if len(texts) == 1 else 'are'} {workers}")
    return Cluster(tuple(texts), rank, source)


def _find_problem(address: str) -> str | None:
    """Return what is wrong with an address, or None if it is "host:port"."""
    host, colon, port = address.rpartition(":")
    if not colon or host.startswith("[") and not host.endswith("]"):
        return f"'{address}' has no port"
    if not host or any(character.isspace() for character in address):
        return f"'{address}' has no host"
    if ":" in host and not host.startswith("["):
        return f"'{address}' is an IPv6 address without brackets, which look like [fe80::1]:29500"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        return f"'{address}' has no port between 1 and 65535"
    return None
