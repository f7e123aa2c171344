"""The training loop of replicas that a strategy of `tf.distribute` runs (`--engine strategy`).

`strategy.run` traces the steps of all replicas of a worker into one function. With the other engine, each replica has a
thread and a function of its own. docs/engine.md compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from lowlevel_simclr.training.replicas import Replica
from lowlevel_simclr.training.step import Batch, Metrics

TogetherFunction = Callable[[Sequence[Iterator[Batch]], tf.Tensor], Metrics]


def compile_together(
    strategy: tf.distribute.Strategy,
    local: Sequence[Replica],
    one_steps: Sequence[Callable[[Batch], Metrics]],
    dtype: tf.DType = tf.float32,
) -> TogetherFunction:
    """Return `steps(iterators, count)`, which makes `count` training steps of all local replicas in one host call.

    Args:
        strategy: TensorFlow's strategy, with a replica for each of `local`.
        local: the replicas of this worker.
        one_steps: the step of each replica, a function from a batch to metrics.
        dtype: the type of the metrics. Tests use float64.

    Returns:
        A function that returns metrics, (count,) each. Its `count` is a scalar int32 tensor, so that it never retraces.
    """
    for replica in local:
        replica.make_ordering_token()  # before the strategy, which would make a variable of its own kind

    def step_together(batches: Sequence[Batch]) -> list[Any]:
        def act() -> Metrics:
            rank = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            place = int(rank) - local[0].rank
            with local[place].enter():
                return Metrics(*(tf.cast(value, dtype) for value in one_steps[place](batches[place])))

        return [strategy.experimental_local_results(each)[0] for each in strategy.run(act)]

    @tf.function(autograph=False)
    def steps(iterators: Sequence[Iterator[Batch]], count: tf.Tensor) -> Metrics:
        def body(place: tf.Tensor, *rows: tf.TensorArray) -> tuple[tf.Tensor | tf.TensorArray, ...]:
            found = step_together([next(iterator) for iterator in iterators])
            return place + 1, *(array.write(place, value) for array, value in zip(rows, found))

        rows = tuple(tf.TensorArray(dtype, size=count, element_shape=()) for _ in Metrics._fields)
        found = tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *rows), parallel_iterations=1)
        return Metrics(*(array.stack() for array in found[1:]))

    return steps
