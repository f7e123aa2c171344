"""Connects the worker processes of a run, exchanges data between them, and reports lost workers.

TensorFlow's `MultiWorkerMirroredStrategy` provides the servers and heartbeats of the cluster. It also ends every
collective op when a worker is gone. docs/engine.md says which of its other parts the two engines use, and why.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.runtime import collectives
from lowlevel_simclr.training.cluster import Cluster, find_cluster
from lowlevel_simclr.training.joining import let_signals_kill, list_lost, wait_for_workers
from lowlevel_simclr.training.replicas import (
    ALONE,
    MEETING,
    TRAINING,
    DistributionError,
    Replica,
    StrategyReplica,
    find_local_devices,
)

LONGEST_STATEMENT = 16_384  # bytes of the JSON text in which a worker describes itself


LONGEST_REFUSAL = 1000  # characters of the reason why a worker does not start
REFUSAL = "refusal"  # the key of that reason in a worker's description
WORKER_TIMEOUT = 600.0  # seconds that a worker waits for the others to start

# Errors that a worker's own work raises. A collective op that is aborted raises another type of error.
OWN_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.ResourceExhaustedError,
    tf.errors.OutOfRangeError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
)


@dataclasses.dataclass(frozen=True)
class Workers:
    """The worker processes of a run. Worker 0 is the chief, which writes the run folder.

    Attributes:
        count: the number of workers.
        rank: the number of this worker, from 0.
        addresses: "host:port" of each worker, in the order of the ranks. The tuple is empty if there is only one
            worker.
        strategy: TensorFlow's strategy, if there are several workers.
    """

    count: int = 1
    rank: int = 0
    addresses: tuple[str, ...] = ()
    strategy: Any = None  # kept alive, because it owns the server and the heartbeats

    @property
    def chief(self) -> bool:
        """Whether this worker is the chief, which writes the run folder."""
        return self.rank == 0


@dataclasses.dataclass(frozen=True)
class Team:
    """The workers (processes) of a run, and the replicas of this worker (copies of the model, one for each device).

    Attributes:
        workers: the workers of the run.
        local: the replicas of this worker. Each knows the number of replicas of all workers.
        strategy: TensorFlow's strategy that runs the replicas, or None if each has a thread of its own.
    """

    workers: Workers = Workers()
    local: tuple[Replica, ...] = (ALONE,)
    strategy: tf.distribute.Strategy | None = None

    @property
    def count(self) -> int:
        """The number of replicas of all workers."""
        return self.local[0].count


LONE = Team()


def join_workers(timeout: float = WORKER_TIMEOUT, cluster: Cluster | None = None, replicas: int = 1) -> Workers:
    """Return the workers of a cluster once all of them have started. Without a cluster, return a single worker.

    Args:
        timeout: seconds to wait for the others.
        cluster: the workers. None: those that the environment names, see `find_cluster`.
        replicas: the number of replicas of this worker. It must be the same on every worker.

    Raises:
        DistributionError: if TensorFlow cannot use the cluster, if the others did not start in time, or if they have
            another number of replicas.
    """
    cluster = cluster or find_cluster()
    if cluster is None or len(cluster.addresses) == 1:
        return Workers()
    wait_for_workers(cluster, timeout, replicas)
    try:
        with let_signals_kill(timeout):
            strategy = tf.distribute.MultiWorkerMirroredStrategy(_make_resolver(cluster), _choose_communication())
    except tf.errors.OpError as error:
        raise DistributionError(
            f"Worker {cluster.rank} of {', '.join(cluster.addresses)} could not connect to the others "
            f"({str(error).splitlines()[0][:200]}). Start every worker with its own index, and check that no other "
            "program uses its port."
        ) from error
    return Workers(len(cluster.addresses), cluster.rank, cluster.addresses, strategy)


def _choose_communication() -> tf.distribute.experimental.CommunicationOptions:
    """Return options that ask for NCCL if there are GPUs. By default, the strategy uses TensorFlow's own ring."""
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = kinds.NCCL if tf.config.list_physical_devices("GPU") else kinds.AUTO
    return tf.distribute.experimental.CommunicationOptions(implementation=kind)


def _make_resolver(cluster: Cluster) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Return the cluster in the form that TensorFlow's strategy takes."""
    spec = tf.train.ClusterSpec({"worker": list(cluster.addresses)})
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type="worker", task_id=cluster.rank, rpc_layer="grpc"
    )


def _meet(workers: Workers, values: np.ndarray, ways: str) -> np.ndarray:
    """Exchange an array between the workers. Each worker takes part with one device.

    Args:
        workers: the workers of the run.
        values: the array of this worker. It has the same shape on every worker.
        ways: the method of `Replica` to call: "add_up" for the sum, "gather" for the rows by rank.
    """
    own = Replica(workers.rank, workers.count, "/device:CPU:0", group=MEETING)
    replica = _meeting_places.setdefault(workers.rank, own)
    with tf.device(replica.device), name_lost_workers(workers):
        return getattr(replica, ways)(tf.constant(values)).numpy()


_meeting_places: dict[int, Replica] = {}  # kept, because a replica counts its exchanges, and each needs a new key


def ask_any(workers: Workers, asked: bool) -> bool:
    """Return whether `asked` is true on any worker. All workers get the same answer.

    Args:
        workers: the workers of the run. All of them must call this function.
        asked: the answer of this worker.
    """
    return bool(_meet(workers, np.array([int(asked)], np.int32), "add_up")[0]) if workers.count > 1 else asked


def agree_on_statement(workers: Workers, statement: dict[str, Any]) -> None:
    """Check that every worker has the same settings, and that every worker is willing to start.

    Args:
        workers: the workers of the run. All of them must call this function.
        statement: a dict of JSON values, which must be the same on every worker.

    Raises:
        DistributionError: if the statements of two workers differ, or if a statement is too long. The message names
            what differs.
    """
    if workers.count == 1:
        return
    text = json.dumps(statement, sort_keys=True).encode()
    if len(text) > LONGEST_STATEMENT:
        raise DistributionError(
            f"The settings of this worker take {len(text)} bytes as JSON, but at most {LONGEST_STATEMENT} can be "
            "compared. Use shorter paths or names."
        )
    padded = np.frombuffer(text.ljust(LONGEST_STATEMENT), np.int32)[None]
    heard = [json.loads(row.tobytes()) for row in _meet(workers, padded, "gather")]
    for rank, other in enumerate(heard):
        if rank != workers.rank and REFUSAL in other:
            raise DistributionError(f"Worker {rank} refused to start: {other[REFUSAL]}")
    for rank, other in enumerate(heard):
        unlike = [name for name in sorted({*heard[0], *other}) if heard[0].get(name) != other.get(name)]
        if unlike:
            what = "; ".join(
                f"{name}: {heard[0].get(name)} on worker 0, {other.get(name)} on worker {rank}" for name in unlike
            )
            raise DistributionError(
                f"Worker {rank} differs from worker 0 ({what}). Start all workers with the same command, the same "
                "versions and the same images."
            )


@contextlib.contextmanager
def pass_refusal_on(workers: Workers) -> Iterator[None]:
    """If the block raises an error, send it to the other workers, which wait for this worker in `agree_on_statement`.

    Args:
        workers: the workers of the run.
    """
    try:
        yield
    except Exception as error:
        if workers.count > 1 and not isinstance(error, DistributionError):
            with contextlib.suppress(DistributionError):  # the others refuse as well
                agree_on_statement(workers, {REFUSAL: f"{type(error).__name__}: {error}"[:LONGEST_REFUSAL]})
        raise


def make_replicas(
    workers: Workers, devices: Sequence[str], batch_norm: str, ghost_size: int, kind: type[Replica] = Replica
) -> list[Replica]:
    """Return the replicas of this worker.

    Rank 0 is the first replica of worker 0, and the ranks continue worker by worker.

    Args:
        workers: the workers of the run.
        devices: the devices of this worker, one for each replica. Every worker has the same number of them.
        batch_norm: "sync", "local" or "ghost".
        ghost_size: with "ghost", the number of images that BatchNorm normalises together.
        kind: the class of the replicas.
    """
    first, count = workers.rank * len(devices), workers.count * len(devices)
    # TensorFlow remembers the shape of every exchange of a group. So each run of a process needs a group of its own. A
    # process can join other workers only once.
    group = TRAINING if workers.count > 1 else next(_groups)
    return [kind(first + place, count, device, batch_norm, ghost_size, group) for place, device in enumerate(devices)]


_groups = itertools.count(TRAINING)


def spread_arrays(workers: Workers, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of worker 0 (the chief) on every worker, with the same bits.

    Args:
        workers: the workers of the run. All of them must call this function.
        arrays: a dict from names to arrays. Names, shapes and types are the same on every worker.
    """
    if workers.count == 1:
        return arrays
    sizes = [array.nbytes for array in arrays.values()]
    packed = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    packed += b"\0" * (-len(packed) % 4)
    words = np.frombuffer(packed, np.int32)
    # The bytes are sent as integers, and the other workers add zeros. So no bit is lost, whatever the type of the
    # array.
    words = _meet(workers, words if workers.chief else np.zeros_like(words), "add_up")
    ends = np.cumsum(sizes)
    parts = [words.tobytes()[end - size : end] for end, size in zip(ends, sizes)]
    return {
        name: np.frombuffer(part, array.dtype).reshape(array.shape).copy()
        for part, (name, array) in zip(parts, arrays.items())
    }


@contextlib.contextmanager
def name_lost_workers(workers: Workers) -> Iterator[None]:
    """Within the block, name the lost worker if TensorFlow aborts an exchange.

    Args:
        workers: the workers of the run.

    Raises:
        DistributionError: in place of TensorFlow's own error, if there are several workers.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if workers.count == 1 or isinstance(error, OWN_ERRORS):
            raise
        lost = list_lost(workers.addresses, workers.rank)
        names = " and ".join(f"worker {rank} ({workers.addresses[rank]})" for rank in lost)
        who = names or "a worker, although every worker answers. One may be very slow, or may have started again"
        raise DistributionError(
            f"The run lost {who}. Start every worker again with the same command, and the run resumes from the last "
            f"checkpoint. TensorFlow says: {_find_reason(str(error))}"
        ) from error


def _find_reason(message: str) -> str:
    """Return the line of a TensorFlow error that says why an exchange was aborted, otherwise its first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line for line in lines if "abort" in line.lower()), lines[0] if lines else "nothing")[:200]


def run_on_each(workers: Workers, local: Sequence[Replica], act: Callable[[int], Any]) -> list[Any]:
    """Call `act(place)` for every local replica, all at the same time, each in its own thread and on its own device.

    If a replica raises an error, this function aborts the exchanges of the others. Otherwise they would wait for ever
    for that replica. After that, no exchange of this process works, so the run must end.

    Args:
        workers: the workers of the run.
        local: the replicas of this worker.
        act: a function whose argument is the position of a replica in `local`.

    Returns:
        What `act` returned for each replica.

    Raises:
        DistributionError: if a worker is gone.
        Exception: the first error that a replica raised.
    """
    raised: list[Exception] = []  # in order of time, so that the cause comes before its effects

    def place_and_act(place: int) -> Any:
        try:
            with tf.device(local[place].device or None):
                return act(place)
        except Exception as error:
            raised.append(error)
            if local[place].count > 1:
                collectives.abort_collectives(f"replica {local[place].rank} raised {type(error).__name__}")
            raise

    with name_lost_workers(workers):
        if len(local) == 1:
            return [place_and_act(0)]
        with concurrent.futures.ThreadPoolExecutor(len(local)) as pool:
            found = [pool.submit(place_and_act, place) for place in range(len(local))]
        if raised:
            raise raised[0]
        return [each.result() for each in found]


def run_everywhere(team: Team, functions: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Return `act(iterators, *arguments)`, which calls each local replica's function on its own iterator.

    `act` returns what the function of the first replica returned.
    """

    def act(iterators: Sequence[Any], *arguments: Any) -> Any:
        return run_on_each(team.workers, team.local, lambda place: functions[place](iterators[place], *arguments))[0]

    return act


def run_together(team: Team, steps: Callable[..., Any]) -> Callable[..., Any]:
    """Return `steps`, which makes the steps of all local replicas, so that it names the worker that was lost."""

    def act(iterators: Sequence[Any], *arguments: Any) -> Any:
        with name_lost_workers(team.workers):
            return steps(iterators, *arguments)

    return act


def gather_team(
    devices: str,
    batch_norm: str,
    ghost_size: int,
    timeout: float = WORKER_TIMEOUT,
    cluster: Cluster | None = None,
    engine: str = "threads",
) -> Team:
    """Return the workers, and the replicas of this worker on its devices. Call it before TensorFlow's runtime starts.

    Args:
        devices: see `find_local_devices`.
        batch_norm: "sync", "local" or "ghost".
        ghost_size: with "ghost", the number of images that BatchNorm normalises together.
        timeout: seconds to wait for the other workers.
        cluster: the workers. None: those that the environment names, see `find_cluster`.
        engine: "threads" or "strategy". A single replica needs neither.

    Raises:
        DistributionError: see `find_local_devices`, `join_workers` and `choose_strategy`.
    """
    places = find_local_devices(devices)
    workers = join_workers(timeout, cluster, len(places))
    if workers.count > 1 and places == [""] and not tf.config.list_physical_devices("GPU"):
        places = ["/device:CPU:0"]
    strategy = choose_strategy(workers, places) if engine == "strategy" else None
    kind = StrategyReplica if strategy else Replica
    return Team(workers, tuple(make_replicas(workers, places, batch_norm, ghost_size, kind)), strategy)


def choose_strategy(workers: Workers, places: Sequence[str]) -> tf.distribute.Strategy | None:
    """Return the strategy of TensorFlow that runs the replicas, or None if there is only one replica.

    Args:
        workers: the workers of the run.
        places: the devices of this worker's replicas.

    Raises:
        DistributionError: if the strategy that connects the workers has other devices.
    """
    count = workers.count * len(places)
    if count == 1:
        return None
    if workers.count == 1:
        return _make_mirrored_strategy(tuple(places))
    strategy: tf.distribute.Strategy = workers.strategy
    if strategy.num_replicas_in_sync != count:
        raise DistributionError(
            f"--engine strategy has {strategy.num_replicas_in_sync} replicas on these {workers.count} workers, but "
            f"--devices asks for {count}. Use --devices all, or --engine threads."
        )
    return strategy


@functools.cache  # a second strategy on the same devices would use the keys of the first one for its exchanges
def _make_mirrored_strategy(places: tuple[str, ...]) -> tf.distribute.Strategy:
    """Return a strategy for devices of this process. TensorFlow would also read TF_CONFIG, and refuse an empty one."""
    kept = os.environ.pop("TF_CONFIG", None)
    try:
        return tf.distribute.MirroredStrategy(list(places))
    finally:
        if kept is not None:
            os.environ["TF_CONFIG"] = kept


def check_ranks(workers: Workers, local: Sequence[Replica]) -> None:
    """Check with a first exchange that TensorFlow numbers the replicas in the same order as this package.

    Otherwise rows would be mixed up.

    Args:
        workers: the workers of the run.
        local: the replicas of this worker.

    Raises:
        DistributionError: if TensorFlow numbers them in another order.
    """
    found = run_on_each(
        workers, local, lambda place: local[place].gather(tf.constant([local[place].rank])).numpy().tolist()
    )
    if any(ranks != list(range(local[0].count)) for ranks in found):
        raise DistributionError(
            f"TensorFlow numbers the replicas {found[0]}, but this package needs ascending order. Use fewer devices on "
            "each worker."
        )
