"""Replicas, which together compute what one device would compute, and the exchanges of data between them.

A replica is one thread of one worker process, with its own copy of every variable on its own device. It runs the same
compiled step as a replica that trains alone. It exchanges data with the others only through TensorFlow's collective
ops, in which all replicas of a group take part.

For the loss, the rows of all replicas are in canonical order: all first views by rank, then all second views by rank.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.choices import BATCH_NORMS
from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.model.batch_norm import BatchStatistics, use_batch_statistics

Result = TypeVar("Result")

MEETING, TRAINING = 7_001, 7_002  # keys of two groups of devices: one device of each worker; those of all replicas


class DistributionError(OneLineError, RuntimeError):
    """Replicas cannot start, cannot connect, or have lost one another. The message names them and says what to do."""


@dataclasses.dataclass
class Replica:
    """A replica, and its exchanges with the other replicas. If it is the only one, every exchange returns its input.

    Attributes:
        rank: the number of the replica, from 0 to count - 1.
        count: the number of replicas of all workers.
        device: the device on which it computes.
        batch_norm: "sync", "local" or "ghost".
        ghost_size: with "ghost", the number of images that are normalised together (a ghost group).
        group: the group key of its collective ops.
        moved: for each traced exchange, its name and the number of bytes that this replica sends if TensorFlow makes
            the exchange as a ring.
    """

    rank: int = 0
    count: int = 1
    device: str = ""
    batch_norm: str = "sync"
    ghost_size: int = 0
    group: int = TRAINING
    moved: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    _keys: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    _order: list[tf.Variable] = dataclasses.field(default_factory=list)

    def gather(self, x: tf.Tensor, what: str = "gather") -> tf.Tensor:
        """Return the tensors (n, ...) of all replicas, in the order of the ranks, as one tensor (count n, ...).

        No gradient flows through it. float16 and bfloat16 are sent as float32, which is exact.
        """
        if self.count == 1:
            return x
        carried = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
        self._note_exchange(what, carried, self.count - 1)
        found = self._call_gather(carried)
        found = tf.ensure_shape(found, [x.shape[0] and x.shape[0] * self.count, *x.shape[1:]])
        return tf.cast(found, x.dtype)

    def add_up(self, x: tf.Tensor, what: str = "total") -> tf.Tensor:
        """Return the sum over the replicas, with the same bits on each replica. The sum has no gradient."""
        if self.count == 1:
            return x
        self._note_exchange(what, x, 2 * (self.count - 1) / self.count)
        return tf.ensure_shape(self._call_reduce(x), x.shape)

    def add_up_each(self, tensors: Sequence[tf.Tensor], what: str) -> list[tf.Tensor]:
        """Return the sum of each tensor over the replicas, in one exchange. All tensors must have the same type."""
        if self.count == 1:
            return list(tensors)
        flat = self.add_up(tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0), what)
        parts = tf.split(flat, [int(np.prod(tensor.shape)) for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]

    def use_batch_norm(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the layers normalise as --batch-norm says.

        Raises:
            ValueError: if there is no such BatchNorm.
        """
        if self.batch_norm not in BATCH_NORMS:
            raise ValueError(f"There is no BatchNorm '{self.batch_norm}'. Use one of {', '.join(BATCH_NORMS)}.")
        if self.batch_norm == "ghost":
            return use_batch_statistics(BatchStatistics(group=self.ghost_size))
        if self.batch_norm == "local" or self.count == 1:
            return use_batch_statistics(BatchStatistics())
        return use_batch_statistics(
            BatchStatistics(gather=lambda x: self.gather(x, "BatchNorm"), add_up=lambda x: self.add_up(x, "BatchNorm"))
        )

    def enter(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which `strategy.run` traces the step of this replica."""
        return contextlib.nullcontext()

    def call_loop(self, act: Callable[[], Result]) -> Result:
        """Return what a function with a `tf.while_loop` returns, in whose body replicas exchange data."""
        return act()

    def average_moving_statistics(self, moving: Sequence[Any]) -> None:
        """Set the moving statistics to their mean over the replicas, unless BatchNorm is synchronised.

        Args:
            moving: the variables that hold the moving statistics.
        """
        if self.count == 1 or self.batch_norm == "sync":
            return
        sums = self.add_up_each([tf.convert_to_tensor(variable) for variable in moving], "moving statistics")
        for variable, value in zip(moving, sums):
            variable.assign(value / self.count)

    def _note_exchange(self, what: str, x: tf.Tensor, ways: float) -> None:
        """Note the bytes of an exchange in `moved`. This replica sends `ways` times the bytes of x."""
        self.moved.append((what, int(ways * int(np.prod(x.shape)) * x.dtype.size)))

    def _call_gather(self, x: tf.Tensor) -> tf.Tensor:
        """Return the rows of all replicas, by rank."""
        return tf.raw_ops.CollectiveGatherV2(input=x, **self._make_arguments())

    def _call_reduce(self, x: tf.Tensor) -> tf.Tensor:
        """Return the sum over the replicas."""
        return tf.raw_ops.CollectiveReduceV2(input=x, merge_op="Add", final_op="Id", **self._make_arguments())

    def _make_arguments(self) -> dict[str, Any]:
        """Return the arguments of a collective op by which the other replicas recognise this exchange.

        Exchanges get their numbers during tracing. So every replica must trace the same exchanges in the same order.
        """
        return {
            "group_size": self.count,
            "group_key": self.group,
            "instance_key": next(self._keys),
            "ordering_token": [self.make_ordering_token()],
            # On GPUs, "auto" is TensorFlow's own ring unless the session's config asks for NCCL, and eager TensorFlow
            # does not ask. On CPUs, "nccl" is the ring.
            "communication_hint": "nccl",
        }

    def make_ordering_token(self) -> tf.Tensor:
        """Return the resource that every exchange of this replica gets as an argument.

        If several operations of a function take the same resource, TensorFlow runs them one after the other, in the
        order in which they were traced. So all replicas start their exchanges in the same order. Otherwise NCCL can
        deadlock: each of two GPUs may wait for the other one in a different exchange. TensorFlow's own strategies order
        their exchanges in this way too. The functions of TensorFlow 2.15 and 2.21 keep the order even without this
        token.
        """
        if not self._order:
            with tf.init_scope(), tf.device(self.device or None):
                self._order.append(tf.Variable(0.0, trainable=False))
        return self._order[0].handle


@dataclasses.dataclass
class StrategyReplica(Replica):
    """A replica that exchanges data through the replica context of `tf.distribute`, where TensorFlow allows it.

    TensorFlow allows it only in the graph in which `strategy.run` was called, not in a loop or a function inside this
    graph. There, as over micro-batches with synchronised BatchNorm, the replica calls the collective ops itself.
    """

    _graph: tf.Graph | None = None

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Within the block, exchange data through the replica context. Call this in `strategy.run`."""
        self._graph = tf.compat.v1.get_default_graph()
        try:
            yield
        finally:
            self._graph = None

    def call_loop(self, act: Callable[[], Result]) -> Result:
        """See `Replica.call_loop`. The loop is put into a function that TensorFlow does not inline.

        Replicas recognise an exchange by the name of the loop around it. In one graph, the loops of two replicas have
        two names, and both replicas would wait for ever. In a function of its own, the loop of each has the same name.
        """
        called: Result = tf.function(act, autograph=False, experimental_attributes={"_noinline": True})()
        return called

    def _call_gather(self, x: tf.Tensor) -> tf.Tensor:
        """Return the rows of all replicas, as the sum of arrays that hold one replica's rows and zeros.

        The context's own `all_gather` makes two exchanges, because it gathers the shapes first.
        """
        if not self._has_context():
            return super()._call_gather(x)
        rows = [[self.rank * x.shape[0], (self.count - 1 - self.rank) * x.shape[0]]]
        return self._call_reduce(tf.pad(x, rows + [[0, 0]] * (x.shape.rank - 1)))

    def _call_reduce(self, x: tf.Tensor) -> tf.Tensor:
        if not self._has_context():
            return super()._call_reduce(x)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)

    def _has_context(self) -> bool:
        """Return whether the replica context can exchange data at this point of the program."""
        return self._graph is tf.compat.v1.get_default_graph()


ALONE = Replica()


def choose_own_rows(rank: int, replicas: int, batch_size: int, micro_batches: int = 1) -> np.ndarray:
    """Return the positions of a replica's images in the batch of all replicas, (N / R,) int64.

    A replica has an equal share of each micro-batch, in the order of the micro-batches. So micro-batch j of all
    replicas together has the same images as micro-batch j of a replica that trains alone.

    Args:
        rank: the rank of the replica.
        replicas: R, the number of replicas.
        batch_size: N, the number of images in a batch, over all replicas.
        micro_batches: the number of micro-batches in the batch.

    Raises:
        ValueError: if the replicas cannot have equal shares of a micro-batch.

    Example:
        >>> choose_own_rows(rank=1, replicas=2, batch_size=8, micro_batches=2)
        array([2, 3, 6, 7])
    """
    if batch_size % (replicas * micro_batches):
        raise ValueError(
            f"A batch of {batch_size} images cannot be split into {micro_batches} micro-batches with equal shares for "
            f"{replicas} replicas. Use a --batch-size that is a multiple of {replicas * micro_batches}."
        )
    places = np.arange(batch_size, dtype=np.int64).reshape(micro_batches, replicas, -1)
    return places[:, rank].reshape(-1)


def order_canonically(rows: tf.Tensor, replicas: int) -> tf.Tensor:
    """Return the rows of all replicas (2N, d) in canonical order.

    That order is all first views by rank, then all second views by rank.

    Args:
        rows: (2N, d), replica by replica. The rows of a replica are its first views, then its second views.
        replicas: the number of replicas.
    """
    total, width = rows.shape
    by_view = tf.transpose(tf.reshape(rows, [replicas, 2, total // 2 // replicas, width]), [1, 0, 2, 3])
    return tf.reshape(by_view, [total, width])


def find_local_devices(devices: str) -> list[str]:
    """Return the devices of this worker's replicas. Call this function before TensorFlow's runtime starts.

    Args:
        devices: "all" means every GPU, or the CPU if there is no GPU. A number N means N GPUs, except that "1" means
            one device of any kind. "cpu:R" means R virtual devices of the CPU.

    Returns:
        The names of the devices. [""] leaves the choice to TensorFlow.

    Raises:
        DistributionError: if there are not enough GPUs, or if the runtime has started with another number of virtual
            devices.
    """
    if devices.startswith("cpu:"):
        return _make_virtual_processors(int(devices.removeprefix("cpu:")))
    gpus = len(tf.config.list_physical_devices("GPU"))
    count = max(gpus, 1) if devices == "all" else int(devices)
    if count == 1:
        return [""]
    if count > gpus:
        raise DistributionError(
            f"--devices asks for {devices} GPUs, but TensorFlow finds {gpus}. Use --devices {max(gpus, 1)}, or "
            f"--devices cpu:{devices} for virtual devices of the CPU."
        )
    return [f"/device:GPU:{place}" for place in range(count)]


def _make_virtual_processors(count: int) -> list[str]:
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    try:
        tf.config.set_logical_device_configuration(processor, parts)
    except RuntimeError as error:  # raised if the runtime has already started
        if len(tf.config.list_logical_devices("CPU")) != count:
            raise DistributionError(
                f"--devices cpu:{count} has no effect after TensorFlow has started. Use it in a new process."
            ) from error
    return [f"/device:CPU:{place}" for place in range(count)]
