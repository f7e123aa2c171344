"""Several replicas that compute what one would: who they are, what they exchange, and the loss over all their rows.

A replica is one thread of one worker process, with its own copy of every variable on its own device; it runs the same
compiled step as a lone device, and meets the others in TensorFlow's collective ops alone. `MultiWorkerMirroredStrategy`
gives the cluster of TF_CONFIG: servers, heartbeats, an end to every collective when a worker is gone; no more of it is
used. Within one process MirroredStrategy is not used: on virtual CPU devices TensorFlow 2.15 and 2.21 refuse the
reduction of its replica context inside a tf.while_loop, where synchronised BatchNorm over micro-batches needs one
(tests/test_distribute.py). On GPUs, and in MultiWorkerMirroredStrategy, that has not been tried.

Rows of all replicas are in canonical order for the loss: all first views by rank, then all second views by rank.

Not here: the step (`step.py`), the configuration.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr import compat

MEETING, TRAINING = 7_001, 7_002  # group keys: one device of each worker, all replicas
LONGEST_STATEMENT = 16_384  # bytes that a worker may say of itself
BATCH_NORMS = ("sync", "local", "ghost")


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


class DistributionError(RuntimeError):
    """Replicas that cannot be, cannot meet or have lost one another; the text says who and what to do."""


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


@dataclasses.dataclass
class Replica:
    """One of the replicas, and its way to the others. Alone, every exchange is the identity.

    rank: 0 .. count - 1. device: where it computes. batch_norm: sync, local or ghost. ghost_size: images of a ghost
    group. group: the collectives' key. moved: (what, bytes that a ring sends from here) of each exchange, as traced.
    """

    rank: int = 0
    count: int = 1
    device: str = ""
    batch_norm: str = "sync"
    ghost_size: int = 0
    group: int = TRAINING
    moved: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    _keys: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    def gather(self, x: tf.Tensor, what: str = "gather") -> tf.Tensor:
        """(n, ...) of each replica -> (count n, ...) by rank; no gradient. Half floats travel as float32: exactly."""
        if self.count == 1:
            return x
        carried = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
        found = tf.raw_ops.CollectiveGatherV2(input=carried, **self._meeting(what, carried, self.count - 1))
        found = tf.ensure_shape(found, [x.shape[0] and x.shape[0] * self.count, *x.shape[1:]])
        return tf.cast(found, x.dtype)

    def total(self, x: tf.Tensor, what: str = "total") -> tf.Tensor:
        """The sum over replicas, the same bits on each; no gradient."""
        if self.count == 1:
            return x
        ways = 2 * (self.count - 1) / self.count
        found = tf.raw_ops.CollectiveReduceV2(input=x, merge_op="Add", final_op="Id", **self._meeting(what, x, ways))
        return tf.ensure_shape(found, x.shape)

    def totals(self, tensors: Sequence[tf.Tensor], what: str) -> list[tf.Tensor]:
        """`total` of each, in one exchange; they are of one type."""
        if self.count == 1:
            return list(tensors)
        flat = self.total(tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0), what)
        parts = tf.split(flat, [int(np.prod(tensor.shape)) for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]

    def batch_norm_scope(self) -> contextlib.AbstractContextManager[None]:
        """Within it the layers normalise as --batch-norm asks.

        Raises:
            ValueError: there is no such BatchNorm.
        """
        if self.batch_norm not in BATCH_NORMS:
            raise ValueError(f"there is no BatchNorm '{self.batch_norm}': give one of {', '.join(BATCH_NORMS)}")
        if self.batch_norm == "ghost":
            return compat.batch_statistics(compat.BatchStatistics(group=self.ghost_size))
        if self.batch_norm == "local" or self.count == 1:
            return compat.batch_statistics(compat.BatchStatistics())
        return compat.batch_statistics(
            compat.BatchStatistics(
                gather=lambda x: self.gather(x, "BatchNorm"), total=lambda x: self.total(x, "BatchNorm")
            )
        )

    def agree_on(self, moving: Sequence[Any]) -> None:
        """Gives the moving statistics their mean over the replicas, where BatchNorm is not synchronised."""
        if self.count == 1 or self.batch_norm == "sync":
            return
        sums = self.totals([tf.convert_to_tensor(variable) for variable in moving], "moving statistics")
        for variable, value in zip(moving, sums):
            variable.assign(value / self.count)

    def _meeting(self, what: str, x: tf.Tensor, ways: float) -> dict[str, Any]:
        """Where the others find this exchange: every replica traces the same ones in the same order."""
        self.moved.append((what, int(ways * int(np.prod(x.shape)) * x.dtype.size)))
        return {
            "group_size": self.count,
            "group_key": self.group,
            "instance_key": next(self._keys),
            "ordering_token": [],
            "communication_hint": "auto",
        }


ALONE = Replica()


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


# Rows


def own_rows(rank: int, replicas: int, batch_size: int, micro_batches: int = 1) -> np.ndarray:
    """Places in the global batch of a replica's images, (N / R,) int64: its share of each micro-batch, in their order.

    So micro-batch j of all replicas together holds the same images as micro-batch j of one.

    Raises:
        ValueError: the micro-batches have no equal shares.
    """
    if batch_size % (replicas * micro_batches):
        raise ValueError(
            f"a batch of {batch_size} images in {micro_batches} micro-batches has no equal shares for {replicas} "
            f"replicas: give a --batch-size that {replicas * micro_batches} divides"
        )
    places = np.arange(batch_size, dtype=np.int64).reshape(micro_batches, replicas, -1)
    return places[:, rank].reshape(-1)


def canonical(rows: tf.Tensor, replicas: int) -> tf.Tensor:
    """Rows by replica, each its first views and then its second, as all first views and then all second: (2N, d)."""
    total, width = rows.shape
    by_view = tf.transpose(tf.reshape(rows, [replicas, 2, total // 2 // replicas, width]), [1, 0, 2, 3])
    return tf.reshape(by_view, [total, width])


# Loss


def nt_xent_and_top1(
    replica: Replica, implementation: Any, temperature: float
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """The loss of own rows against all replicas' columns: z (2n, d) -> losses (2n,), top1 (2n,).

    Forward gathers z; backward gathers each row's normaliser and cotangent, three numbers. With those of the others
    known, the gradient of the global loss to the own rows is complete: nothing travels back through the gather.

    Args:
        replica: whose rows these are; alone it computes `implementation.nt_xent_and_top1`.
        implementation: whose formulas, a `step.Implementation`.
        temperature: tau > 0.
    """
    if replica.count == 1:
        return lambda z: implementation.nt_xent_and_top1(z, temperature)

    def losses(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pairs = z.shape[0] // 2
        own = (replica.rank * pairs, pairs, temperature)
        top1s: list[tf.Tensor] = []

        @tf.custom_gradient
        def rows(z: tf.Tensor) -> tuple[tf.Tensor, Any]:
            z_all = canonical(replica.gather(z, "z"), replica.count)  # (2N, d)
            loss, top1, state = implementation.nt_xent_rows_forward_and_top1(z_all, *own)
            top1s.append(top1)

            def gradient(cotangent: tf.Tensor) -> tf.Tensor:
                columns = tf.concat([state.normaliser, tf.cast(cotangent, loss.dtype)[:, None]], axis=1)  # (2n, 3)
                columns = canonical(replica.gather(columns, "normalisers and cotangents"), replica.count)
                everywhere = state._replace(normaliser=columns[:, :2])
                return implementation.nt_xent_rows_backward(z_all, everywhere, columns[:, 2], *own)[0]

            return loss, gradient

        return rows(z), top1s[0]

    return losses


# Devices and workers


def local_devices(devices: str) -> list[str]:
    """The devices of this worker's replicas; [""] is whatever TensorFlow takes. To be called before its runtime starts.

    Args:
        devices: all (every GPU, or the processor where there is none), a number of GPUs, 1 being any single device, or
            cpu:R for R virtual devices of the processor.

    Raises:
        DistributionError: there are not so many, or the runtime has started with another number of virtual devices.
    """
    if devices.startswith("cpu:"):
        return _virtual_processors(int(devices.removeprefix("cpu:")))
    gpus = len(tf.config.list_physical_devices("GPU"))
    count = max(gpus, 1) if devices == "all" else int(devices)
    if count == 1:
        return [""]
    if count > gpus:
        raise DistributionError(
            f"--devices is {devices} and there are {gpus} GPUs: give at most that, or cpu:{devices} for replicas on "
            "the processor"
        )
    return [f"/device:GPU:{place}" for place in range(count)]


def _virtual_processors(count: int) -> list[str]:
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    try:
        tf.config.set_logical_device_configuration(processor, parts)
    except RuntimeError as error:  # the runtime has started
        if len(tf.config.list_logical_devices("CPU")) != count:
            raise DistributionError(
                f"--devices cpu:{count} came after TensorFlow had started: give it to a fresh process"
            ) from error
    return [f"/device:CPU:{place}" for place in range(count)]


def join() -> Workers:
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
    with tf.device("/device:CPU:0"), naming_the_lost(workers):
        return getattr(replica, ways)(tf.constant(values)).numpy()


_meeting_places: dict[int, Replica] = {}  # its keys count on from one exchange to the next


def anyone(workers: Workers, asked: bool) -> bool:
    """Whether it is so on any worker: the same answer on all."""
    return bool(_meet(workers, np.array([int(asked)], np.int32), "total")[0]) if workers.count > 1 else asked


def agree(workers: Workers, statement: dict[str, Any]) -> None:
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


def replicas(workers: Workers, devices: Sequence[str], batch_norm: str, ghost_size: int) -> list[Replica]:
    """The replicas of this worker; those of all workers are ranked worker by worker."""
    first, count = workers.rank * len(devices), workers.count * len(devices)
    return [Replica(first + place, count, device, batch_norm, ghost_size) for place, device in enumerate(devices)]


def spread(workers: Workers, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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
def naming_the_lost(workers: Workers) -> Iterator[None]:
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
            if rank != workers.rank and not _answers(address)
        ]
        who = " and ".join(lost) if lost else "a worker that still answers"
        raise DistributionError(
            f"{who} left the run: start every worker again with the same command, it goes on from the last checkpoint "
            f"({str(error).splitlines()[0][:200]})"
        ) from error


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def on_each(workers: Workers, local: Sequence[Replica], act: Callable[[int], Any]) -> list[Any]:
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
                compat.abort_collectives(f"replica {local[place].rank} raised {type(error).__name__}")
            raise

    with naming_the_lost(workers):
        if len(local) == 1:
            return [place_and_act(0)]
        with concurrent.futures.ThreadPoolExecutor(len(local)) as pool:
            found = [pool.submit(place_and_act, place) for place in range(len(local))]
        if raised:
            raise raised[0]
        return [each.result() for each in found]


def everywhere(team: Team, functions: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """`act(iterators, *arguments)`: each local replica's function on its own iterator; gives what the first returns."""

    def act(iterators: Sequence[Any], *arguments: Any) -> Any:
        return on_each(team.workers, team.local, lambda place: functions[place](iterators[place], *arguments))[0]

    return act


def gather_team(devices: str, batch_norm: str, ghost_size: int) -> Team:
    """The devices of this worker, the other workers, and all of their replicas. Before TensorFlow's runtime starts.

    Raises:
        DistributionError: see `local_devices` and `join`.
    """
    places = local_devices(devices)
    workers = join()
    if workers.count > 1 and places == [""] and not tf.config.list_physical_devices("GPU"):
        places = ["/device:CPU:0"]
    return Team(workers, tuple(replicas(workers, places, batch_norm, ghost_size)))


def check_ranks(workers: Workers, local: Sequence[Replica]) -> None:
    """The first exchange: TensorFlow must number the replicas as we do, or rows would change places.

    Raises:
        DistributionError: it does not.
    """
    found = on_each(
        workers, local, lambda place: local[place].gather(tf.constant([local[place].rank])).numpy().tolist()
    )
    if any(ranks != list(range(local[0].count)) for ranks in found):
        raise DistributionError(f"TensorFlow numbers the replicas {found[0]}: give each worker fewer devices")
