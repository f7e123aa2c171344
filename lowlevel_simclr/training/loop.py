"""The training loop: many training steps in one host call (a call from Python).

With XLA, the steps and the loop over them are one compiled program (`program.py`). Otherwise TensorFlow runs the loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import tensorflow as tf

from lowlevel_simclr.data.batches import Gather, keep_on_device
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.views import Views, compile_views
from lowlevel_simclr.model.encoder import give_other_size
from lowlevel_simclr.optim.schedule import compute_learning_rate
from lowlevel_simclr.runtime.devices import has_gpu
from lowlevel_simclr.training.calendar import is_checkup_due
from lowlevel_simclr.training.gradient_cache import train_cached_step
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.loss import make_loss
from lowlevel_simclr.training.pace import Pace
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.profiler import put_under_scope
from lowlevel_simclr.training.program import StepsFunction, compile_program, read_ahead
from lowlevel_simclr.training.replicas import ALONE, Replica
from lowlevel_simclr.training.step import Batch, Metrics, train_step


def make_fetch(plan: Plan, images: DataSet) -> Gather | None:
    """Put the images on the device and return the function that gathers a batch there.

    Args:
        plan: the plan of the run.
        images: the data set of the run.

    Returns:
        The function, or None if the images stay on the host. In that case the batches hold the images themselves.
    """
    if plan.data_on != "device":
        return None
    return keep_on_device(select_training_images(images, plan.train_on), has_gpu())


def take_side(plan: Plan, learner: Learner, side: int) -> tuple[Plan, Learner]:
    """Return the plan and the learner for views of another size. The new learner shares the variables of the old one.

    Args:
        plan: the plan of the run.
        learner: the learner that the run trains.
        side: the side of a view in pixels (S).
    """
    if side == plan.model.image_size:
        return plan, learner
    plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, image_size=side))
    return plan, dataclasses.replace(learner, encoder=give_other_size(learner.encoder, side))


def make_views(plan: Plan) -> Views:
    """Return a function (epoch, index, images, sizes) -> both views of every image. It has the settings of the run."""
    return compile_views(
        seed=plan.seed,
        recipe=plan.recipe,
        size=plan.model.image_size,
        dtype=tf.as_dtype(plan.precision),
        implementation=plan.implementation,
        scaling=plan.scaling,
        jit_compile=plan.jit_compile_views,
    )


def make_steps(
    plan: Plan,
    learner: Learner,
    replica: Replica = ALONE,
    fetch: Gather | None = None,
    pace: Pace | None = None,
) -> StepsFunction:
    """Return the compiled training loop of one replica (a copy of the model on one device).

    Args:
        plan: the plan of the run.
        learner: the learner that the loop trains.
        replica: the replica that runs the loop.
        fetch: see `make_fetch`.
        pace: see `make_step`.
    """
    one_step = make_step(plan, learner, replica, pace)
    if plan.jit_compile:
        return compile_program(one_step, plan.steps_per_program, fetch)
    return compile_steps(one_step, False, fetch, plan.inline_step)


def make_step(
    plan: Plan, learner: Learner, replica: Replica = ALONE, pace: Pace | None = None
) -> Callable[[Batch], Metrics]:
    """Return a function that takes a batch, makes one training step and returns its metrics. It is not compiled yet.

    Args:
        plan: the plan of the run.
        learner: the learner that the step trains.
        replica: the replica that makes the step.
        pace: the learning rate and the last step of a run with a time limit (--budget). None: the plan has both.
    """
    loss = make_loss(plan.implementation, plan.temperature, plan.loss_reduction, replica)
    parts = learner, put_under_scope("views", make_views(plan)), put_under_scope("loss", loss)

    def compute_rate(done: tf.Tensor) -> tf.Tensor:
        if pace is not None:
            return pace.compute_rate(done)
        return compute_learning_rate(done, plan.learning_rate, plan.warmup_steps, plan.steps)

    def is_measured(done: tf.Tensor) -> tf.Tensor:
        last = plan.steps if pace is None else pace.last.read_value()
        return is_checkup_due(done + 1, plan.checkup_every, last)

    due = is_measured if plan.checkup_every else None

    def take_step(batch: Batch) -> Metrics:
        if plan.micro_batches == 1:
            return train_step(*parts, compute_rate, batch, replica, due)
        return train_cached_step(*parts, compute_rate, batch, plan.micro_batches, replica, due)

    return take_step


def compile_steps(
    one_step: Callable[[Batch], Metrics],
    jit_compile: bool,
    fetch: Callable[..., Batch] | None = None,
    inline: bool = False,
) -> StepsFunction:
    """Return `steps(iterator, count)`, which makes `count` training steps in one host call, without Python in between.

    Args:
        one_step: a function that takes a batch and returns metrics, such as `train_step` with its other arguments
            filled in.
        jit_compile: whether XLA compiles the step. The loop and the input stay outside XLA. Training always passes
            False. Benches and tests pass True, to compare the result with `compile_program`.
        fetch: optional function that turns an iterator element into a batch. The loop calls it outside the step. So the
            step is the same program, and gives the same bits, whether the images lie on the host or on the device. With
            `fetch`, `steps` first reads the elements of all `count` steps, which are small. If it read them one by one,
            there would be a copy to the GPU between two steps. The copy would wait for the first step to end, and the
            second step would wait for the copy.
        inline: whether the operations of the step become operations of the loop. Otherwise the loop calls the step as a
            function. The call spares TensorFlow the work of tracking the loop's iterations for each operation of the
            step (measured by `bench.step.bench_step_loop`). With `jit_compile` the step is one program, and `inline`
            has no effect.

    Returns:
        A function that returns metrics, (count,) each. Its `count` is a scalar int32 tensor, so that TensorFlow never
            traces it again.
    """
    # A step does not need autograph. Autograph rewrites every function that is called, which takes a third of the
    # tracing time.
    one_step = tf.autograph.experimental.do_not_convert(one_step)
    if jit_compile:
        called = tf.function(one_step, jit_compile=True)
    else:
        called = one_step if inline else tf.function(one_step, experimental_attributes={"_noinline": True})

    @tf.function
    def steps(iterator: Iterator[Batch], count: tf.Tensor) -> Metrics:
        rows = [tf.TensorArray(tf.float32, size=count, element_shape=()) for _ in Metrics._fields]
        ahead = read_ahead(iterator, count) if fetch else ()
        for place in tf.range(count):
            metrics = called(fetch(*(each[place] for each in ahead)) if fetch else next(iterator))
            rows = [array.write(place, value) for array, value in zip(rows, metrics)]
        return Metrics(*(array.stack() for array in rows))

    return steps
