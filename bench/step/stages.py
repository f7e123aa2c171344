"""Splits the time of a training step into stages, such as the views, the forward pass of the encoder, and the loss.

A partial step begins like the training step and ends after one of the stages. The time of a stage is the difference
between the times of two partial steps: the one that ends after the stage, and the one that ends before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bench.step.job import Job
from bench.step.turns import Steps, repeat_call, take_turns
from lowlevel_simclr.training.learner import list_trainable_variables
from lowlevel_simclr.training.loop import make_views

STAGES = ("views", "f forward", "g forward", "loss", "backward", "optimizer")  # f: encoder, g: projection head
REST = "input, loop and metrics"
P10_TO_P90 = 2.563  # standard deviations between the 10th and the 90th percentile of a normal distribution
MEDIAN_ERROR = 1.253  # the standard error of a median divided by that of a mean


class Stages(NamedTuple):
    """The time of each stage of a step, and the noise of that time.

    Attributes:
        seconds: the time of each stage, in seconds. It is a difference of two medians, so it can be negative on a busy
            machine.
        noise: two standard errors of that difference, in seconds. If the time of a stage is less than its noise, the
            measurement does not show how long the stage takes.
    """

    seconds: dict[str, float]
    noise: dict[str, float]


def measure_stages(job: Job, turns: int) -> Stages:
    """Time the partial steps of a job in turns, and return the time of each stage.

    In a turn each partial step is timed once. A partial step that ends before the update changes no weight. It changes
    only the moving statistics of BatchNorm.
    """
    ends = make_partial_steps(job) | {REST: job.run}
    times = take_turns(ends, turns, settle=1)
    return subtract_stages({name: each["wall"] for name, each in times.items()})


def subtract_stages(wall: Mapping[str, Sequence[float]]) -> Stages:
    """Compute the time of each stage from the times of the partial steps.

    The time of a stage is the median time of the partial step that ends after the stage, minus the median time of the
    partial step that ends before it. The noise is computed from the differences within each turn, because all partial
    steps of one turn ran under about the same load.

    Args:
        wall: for each stage, the seconds of the partial step that ends after it, one value for each turn. The stages
            are in the order in which a step runs them.
    """
    taken = np.array([np.zeros(len(next(iter(wall.values())))), *wall.values()])  # (1 + stages, turns)
    differences = np.diff(taken, axis=0)  # (stages, turns)
    p10, p90 = np.percentile(differences, (10, 90), axis=1)
    errors = MEDIAN_ERROR * (p90 - p10) / P10_TO_P90 / np.sqrt(differences.shape[1])
    seconds = np.diff(np.median(taken, axis=1))
    return Stages(dict(zip(wall, map(float, seconds))), dict(zip(wall, map(float, 2 * errors))))


def make_partial_steps(job: Job) -> dict[str, Steps]:
    """Return, for each stage, the partial step that ends after it. All partial steps use the same batch."""
    learner, plan, config = job.learner, job.plan, job.config
    views, batch = make_views(plan), job.take_batch()

    def make_steps_until(last: int) -> Steps:
        @tf.function(jit_compile=plan.jit_compile)
        def run_part() -> tf.Tensor | list[tf.Tensor]:
            x = views(*batch)
            with tf.GradientTape() as tape:
                h = learner.encoder(x, training=True) if last >= 1 else x
                z = learner.projection(h, training=True) if last >= 2 else h
                if last < 3:
                    return tf.reduce_sum(tf.cast(z[0], tf.float32))
                losses, _ = plan.implementation.nt_xent_and_top1(z, temperature=config.loss.temperature)
                scaled = learner.loss_scale.scale_loss(tf.reduce_mean(losses))
            if last == 3:
                return scaled
            found = tape.gradient(scaled, list_trainable_variables(learner.encoder, learner.projection))
            if last == 5:
                learner.optimizer.apply(found, tf.constant(1e-3))
                return scaled
            return found

        return repeat_call(lambda: tf.nest.flatten(run_part())[0])

    return {name: make_steps_until(last) for last, name in enumerate(STAGES)}
