"""The worker processes of a run: who they are, how they meet, and what happens when one is lost.

`MultiWorkerMirroredStrategy` provides the cluster of TF_CONFIG: servers, heartbeats, and an end to every collective
when a worker is gone. Nothing else of it is used. MirroredStrategy is not used within one process: on virtual CPU
devices TensorFlow 2.15 and 2.21 refuse the reduction of its replica context inside a tf.while_loop, where synchronised
BatchNorm over micro-batches needs one (tests/training/test_replicas.py). On GPUs, and in MultiWorkerMirroredStrategy,
that has not been tried.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.runtime import collectives
from lowlevel_simclr.training.replicas import ALONE, MEETING, DistributionError, Replica, find_local_devices

LONGEST_STATEMENT = 16_384  # bytes that a worker may say of itself


# What a worker's own work raises; of an exchange that is given up TensorFlow says something else.
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
    """The processes of a run: how many, and which this is; worker 0 is the chief, which writes the run folder."""

    count: int = 1
    rank: int = 0
    addresses: tuple[str, ...] = ()
    strategy: Any = None  # kept alive: it owns the server and the heartbeats

    @property
    def chief(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0


@dataclasses.dataclass(frozen=True)
class Team:
    """Who trains: the workers, and the replicas of this one, each of which knows how many there are in all."""

    workers: Workers = Workers()
    local: tuple[Replica, ...] = (ALONE,)

    @property
    def count(self) -> int:
        """Replicas of all workers."""
        return self.local[0].count


LONE = Team()


def join_workers() -> Workers:
    """The workers of TF_CONFIG, once all of them are there; a lone worker where it is not set.

    Raises:
        DistributionError: TF_CONFIG is not what TensorFlow reads, or the others did not come.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return Workers()
    try:
        found = json.loads(text)
        addresses, task = tuple(found["cluster"]["worker"]), found["task"]
        rank = int(task["index"])
        sound = task["type"] == "worker" and 0 <= rank < len(addresses)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise DistributionError(
            f"TF_CONFIG is {text!r}: give "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        )
    if len(addresses) == 1:
        return Workers()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise DistributionError(
            f"worker {rank} of {', '.join(addresses)} did not meet the others ({str(error).splitlines()[0][:200]}): "
            "start every worker, each with its own index, and see that no other program has its port"
        ) from error
    return Workers(len(addresses), rank, addresses, strategy)


def _meet(workers: Workers, values: np.ndarray, ways: str) -> np.ndarray:
    """One exchange between the workers, a device each: the sum (`total`) or the rows by rank (`gather`)."""
    replica = _meeting_places.setdefault(workers.rank, Replica(workers.rank, workers.count, group=MEETING))
    with tf.device("/device:CPU:0"), name_lost_workers(workers):
        return getattr(replica, ways)(tf.constant(values)).numpy()


_meeting_places: dict[int, Replica] = {}  # its keys count on from one exchange to the next


def ask_any(workers: Workers, asked: bool) -> bool:
    """Whether it is so on any worker: the same answer on all."""
    return bool(_meet(workers, np.array([int(asked)], np.int32), "total")[0]) if workers.count > 1 else asked


def agree_on_statement(workers: Workers, statement: dict[str, Any]) -> None:
    """Every worker says what it is about to do.

    Args:
        workers: who.
        statement: names and values that must be the same everywhere, JSON values.

    Raises:
        DistributionError: they differ; the text says where.
    """
    if workers.count == 1:
        return
    text = json.dumps(statement, sort_keys=True).encode()
    if len(text) > LONGEST_STATEMENT:
        raise DistributionError(
            f"a worker has {len(text)} bytes to say of itself: at most {LONGEST_STATEMENT} are read"
        )
    padded = np.frombuffer(text.ljust(LONGEST_STATEMENT), np.int32)[None]
    heard = [json.loads(row.tobytes()) for row in _meet(workers, padded, "gather")]
    for rank, other in enumerate(heard):
        unlike = [name for name in sorted({*heard[0], *other}) if heard[0].get(name) != other.get(name)]
        if unlike:
            what = "; ".join(f"{name}: {heard[0].get(name)} there, {other.get(name)} here" for name in unlike)
            raise DistributionError(
                f"worker {rank} is not like worker 0 ({what}): start all with the same command and versions"
            )


def make_replicas(workers: Workers, devices: Sequence[str], batch_norm: str, ghost_size: int) -> list[Replica]:
    """The replicas of this worker; those of all workers are ranked worker by worker."""
    first, count = workers.rank * len(devices), workers.count * len(devices)
    return [Replica(first + place, count, device, batch_norm, ghost_size) for place, device in enumerate(devices)]


def spread_arrays(workers: Workers, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The chief's arrays, to the bit, on every worker; all have them under the same names, shapes and types."""
    if workers.count == 1:
        return arrays
    sizes = [array.nbytes for array in arrays.values()]
    packed = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    packed += b"\0" * (-len(packed) % 4)
    words = np.frombuffer(packed, np.int32)
    # A sum with zeros of integers: no bit is lost, whatever number it is part of.
    words = _meet(workers, words if workers.chief else np.zeros_like(words), "total")
    ends = np.cumsum(sizes)
    parts = [words.tobytes()[end - size : end] for end, size in zip(ends, sizes)]
    return {
        name: np.frombuffer(part, array.dtype).reshape(array.shape).copy()
        for part, (name, array) in zip(parts, arrays.items())
    }


@contextlib.contextmanager
def name_lost_workers(workers: Workers) -> Iterator[None]:
    """Within it, an exchange that TensorFlow gives up is told by the name of the worker that is gone.

    Raises:
        DistributionError: instead of TensorFlow's own error, where there are several workers.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if workers.count == 1 or isinstance(error, OWN_ERRORS):
            raise
        lost = [
            f"worker {rank} ({address})"
            for rank, address in enumerate(workers.addresses)
            if rank != workers.rank and not _does_answer(address)
        ]
        who = " and ".join(lost) if lost else "a worker that still answers"
        raise DistributionError(
            f"{who} left the run: start every worker again with the same command, it goes on from the last checkpoint "
            f"({str(error).splitlines()[0][:200]})"
        ) from error


def _does_answer(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def run_on_each(workers: Workers, local: Sequence[Replica], act: Callable[[int], Any]) -> list[Any]:
    """`act(place)` for every local replica, each in a thread of its own on its device, all at the same time.

    One that raises ends the others: they would wait for its part of an exchange for ever. No exchange of this process
    works afterwards, so the run must end.

    Raises:
        DistributionError: a worker is gone.
        Exception: the first that one of them raised.
    """
    raised: list[Exception] = []  # in the order of time: the cause before what it caused

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
    """`act(iterators, *arguments)`: each local replica's function on its own iterator; gives what the first returns."""

    def act(iterators: Sequence[Any], *arguments: Any) -> Any:
        return run_on_each(team.workers, team.local, lambda place: functions[place](iterators[place], *arguments))[0]

    return act


def gather_team(devices: str, batch_norm: str, ghost_size: int) -> Team:
    """The devices of this worker, the other workers, and all of their replicas. Before TensorFlow's runtime starts.

    Raises:
        DistributionError: see `local_devices` and `join`.
    """
    places = find_local_devices(devices)
    workers = join_workers()
    if workers.count > 1 and places == [""] and not tf.config.list_physical_devices("GPU"):
        places = ["/device:CPU:0"]
    return Team(workers, tuple(make_replicas(workers, places, batch_norm, ghost_size)))


def check_ranks(workers: Workers, local: Sequence[Replica]) -> None:
    """The first exchange: TensorFlow must number the replicas as we do, or rows would change places.

    Raises:
        DistributionError: it does not.
    """
    found = run_on_each(
        workers, local, lambda place: local[place].gather(tf.constant([local[place].rank])).numpy().tolist()
    )
    if any(ranks != list(range(local[0].count)) for ranks in found):
        raise DistributionError(f"TensorFlow numbers the replicas {found[0]}: give each worker fewer devices")
