"""Many training steps in one host call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from lowlevel_simclr.data.batches import Gather, keep_on_device
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.views import Views, compile_views
from lowlevel_simclr.optim.schedule import compute_learning_rate
from lowlevel_simclr.runtime.devices import has_gpu
from lowlevel_simclr.training.gradient_cache import train_cached_step
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.loss import make_loss
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.profiler import put_under_scope
from lowlevel_simclr.training.replicas import ALONE, Replica
from lowlevel_simclr.training.step import Batch, Metrics, train_step

StepsFunction = Callable[[Iterator[Batch], tf.Tensor], Metrics]


def make_fetch(plan: Plan, images: DataSet) -> Gather | None:
    """Put the images on the device and return what gathers a batch there, or None where the batches bring them."""
    if plan.data_on != "device":
        return None
    return keep_on_device(select_training_images(images, plan.train_on), has_gpu())


def make_views(plan: Plan) -> Views:
    """Return (epoch, index, images) -> both views of every image, by the recipe of the run."""
    return compile_views(
        seed=plan.seed,
        recipe=plan.recipe,
        size=plan.model.image_size,
        dtype=tf.as_dtype(plan.precision),
        implementation=plan.implementation,
        scaling=plan.scaling,
        jit_compile=plan.jit_compile_views,
    )


def make_steps(plan: Plan, learner: Learner, replica: Replica = ALONE, fetch: Gather | None = None) -> StepsFunction:
    """Return the compiled loop over the training steps of one replica.

    Args:
        plan: of the run.
        learner: what it trains.
        replica: which one.
        fetch: see `make_fetch`.
    """
    loss = make_loss(plan.implementation, plan.temperature, plan.loss_reduction, replica)
    parts = learner, put_under_scope("views", make_views(plan)), put_under_scope("loss", loss)

    def schedule(done: tf.Tensor) -> tf.Tensor:
        return compute_learning_rate(done, plan.learning_rate, plan.warmup_steps, plan.steps)

    def one_step(batch: Batch) -> Metrics:
        if plan.micro_batches == 1:
            return train_step(*parts, schedule, batch, replica)
        return train_cached_step(*parts, schedule, batch, plan.micro_batches, replica)

    return compile_steps(one_step, plan.jit_compile, fetch, plan.inline_step)


def compile_steps(
    one_step: Callable[[Batch], Metrics],
    jit_compile: bool,
    fetch: Callable[..., Batch] | None = None,
    inline: bool = False,
) -> StepsFunction:
    """`steps(iterator, count)`: `count` steps in one host call, without Python between them.

    Args:
        one_step: a batch -> metrics, as `train_step`.
        jit_compile: compile the step with XLA; the loop and the input stay outside.
        fetch: what makes a batch of what the iterator gives, where that is none yet. Outside the step, so that the
            step is one program, and its numbers the same bits, wherever the images lie. What the iterator gives for all
            steps is read first then: it is small, and a copy to a GPU between two steps waits for the first to end and
            holds up the second.
        inline: make the step's operations the loop's own. Else the loop calls the step as a function, and TensorFlow
            does not keep a frame and an iteration for each of its operations: measured by `bench.step.bench_step_loop`.
            With `jit_compile` the step is a program, and there is no choice.

    Returns:
        A function whose metrics are (count,) each; `count` is a scalar int32 tensor, so that it never retraces.
    """
    # Nothing of a step needs autograph, whose rewriting of all that is called takes a third of the tracing.
    one_step = tf.autograph.experimental.do_not_convert(one_step)
    if jit_compile:
        called = tf.function(one_step, jit_compile=True)
    else:
        called = one_step if inline else tf.function(one_step, experimental_attributes={"_noinline": True})

    @tf.function
    def steps(iterator: Iterator[Batch], count: tf.Tensor) -> Metrics:
        rows = [tf.TensorArray(tf.float32, size=count, element_shape=()) for _ in Metrics._fields]
        ahead = _read_ahead(iterator, count) if fetch else ()
        for place in tf.range(count):
            metrics = called(fetch(*(each[place] for each in ahead)) if fetch else next(iterator))
            rows = [array.write(place, value) for array, value in zip(rows, metrics)]
        return Metrics(*(array.stack() for array in rows))

    return steps


def _read_ahead(iterator: Any, count: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The next `count` elements, stacked in host memory, then copied at once to where the step runs."""
    with tf.device("/CPU:0"):
        specs = iterator.element_spec
        rows = tuple(tf.TensorArray(spec.dtype, size=count, element_shape=spec.shape) for spec in specs)

        def body(place: tf.Tensor, *rows: tf.TensorArray) -> tuple[Any, ...]:
            return place + 1, *(array.write(place, each) for array, each in zip(rows, next(iterator)))

        found = tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *rows))[1:]
        stacked = [array.stack() for array in found]
    return tuple(tf.identity(each) for each in stacked)
