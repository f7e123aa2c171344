"""Several replicas that compute what one would: what each exchanges with the others.

A replica is one thread of one worker process, with its own copy of every variable on its own device. It runs the same
compiled step as a lone device, and meets the others in TensorFlow's collective ops alone.

Rows of all replicas are in canonical order for the loss: all first views by rank, then all second views by rank.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.choices import BATCH_NORMS
from lowlevel_simclr.model.batch_norm import BatchStatistics, use_batch_statistics

MEETING, TRAINING = 7_001, 7_002  # group keys: one device of each worker, all replicas


class DistributionError(RuntimeError):
    """Replicas that cannot be, cannot meet or have lost one another; the text says who and what to do."""


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
            return use_batch_statistics(BatchStatistics(group=self.ghost_size))
        if self.batch_norm == "local" or self.count == 1:
            return use_batch_statistics(BatchStatistics())
        return use_batch_statistics(
            BatchStatistics(gather=lambda x: self.gather(x, "BatchNorm"), total=lambda x: self.total(x, "BatchNorm"))
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


def choose_own_rows(rank: int, replicas: int, batch_size: int, micro_batches: int = 1) -> np.ndarray:
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


def order_canonically(rows: tf.Tensor, replicas: int) -> tf.Tensor:
    """Rows by replica, each its first views and then its second, as all first views and then all second: (2N, d)."""
    total, width = rows.shape
    by_view = tf.transpose(tf.reshape(rows, [replicas, 2, total // 2 // replicas, width]), [1, 0, 2, 3])
    return tf.reshape(by_view, [total, width])


def find_local_devices(devices: str) -> list[str]:
    """The devices of this worker's replicas; [""] is whatever TensorFlow takes. To be called before its runtime starts.

    Args:
        devices: all (every GPU, or the processor where there is none), a number of GPUs, 1 being any single device, or
            cpu:R for R virtual devices of the processor.

    Raises:
        DistributionError: there are not so many, or the runtime has started with another number of virtual devices.
    """
    if devices.startswith("cpu:"):
        return _make_virtual_processors(int(devices.removeprefix("cpu:")))
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


def _make_virtual_processors(count: int) -> list[str]:
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
