"""Tries the training program of a run for a few steps, to measure its speed or to see if the memory is large enough."""

from __future__ import annotations

import time
from typing import NamedTuple

import tensorflow as tf

from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.training import learner, loop
from lowlevel_simclr.training.plan import Plan

MEASURED = 1.5  # seconds of steps from which the speed is taken
TRIED = 2  # steps without XLA. In the second one, the optimizer's old and new variables are both in memory


def fits_memory(plan: Plan, images: DataSet) -> bool:
    """Return whether the training program of a run fits into the memory, with the images if they lie on the device.

    The function builds the program, makes a few steps, and throws the program away.

    Args:
        plan: the plan to try.
        images: the data set of the run.
    """
    try:
        pixels = select_training_images(images, plan.train_on)
        fetch = loop.make_fetch(plan, images)
        steps = loop.make_steps(plan, learner.build_learner(plan, pixels.shape[-1]), fetch=fetch)
        tried = max(TRIED, plan.steps_per_program) if plan.jit_compile else TRIED
        batches = iter(make_batches(pixels, plan.batch_size, plan.seed, 0, tried, with_images=fetch is None))
        steps(batches, tf.constant(tried, tf.int32)).loss.numpy()
    except tf.errors.ResourceExhaustedError:
        return False
    return True


class Speed(NamedTuple):
    """The speed of the training program of a run.

    Attributes:
        pairs_per_second: pairs of views a second.
        compile_seconds: the time of the first call, minus the time that its steps take later.
    """

    pairs_per_second: float
    compile_seconds: float


def measure_speed(plan: Plan, images: DataSet) -> Speed:
    """Measure the speed of the training program of a run for MEASURED seconds. Then the program is thrown away.

    Args:
        plan: the plan to measure, with views of its final size.
        images: the data set of the run.
    """
    pixels = select_training_images(images, plan.train_on)
    fetch = loop.make_fetch(plan, images)
    steps = loop.make_steps(plan, learner.build_learner(plan, pixels.shape[-1]), fetch=fetch)
    at_once = plan.steps_per_program if plan.jit_compile else 1
    batches = iter(make_batches(pixels, plan.batch_size, plan.seed, 0, 2**40, with_images=fetch is None))
    before = time.perf_counter()
    steps(batches, tf.constant(at_once, tf.int32)).loss.numpy()
    compiled = begin = time.perf_counter()
    made = 0
    while time.perf_counter() - begin < MEASURED:
        steps(batches, tf.constant(at_once, tf.int32)).loss.numpy()
        made += at_once
    per_step = (time.perf_counter() - begin) / made
    return Speed(plan.batch_size / per_step, max(0.0, compiled - before - at_once * per_step))
