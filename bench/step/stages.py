"""Splits a training step into its stages, by steps that end after each of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bench.step.job import Job
from bench.step.turns import Steps, repeat_call, take_turns
from lowlevel_simclr.training.learner import list_trainable_variables
from lowlevel_simclr.training.loop import make_views

STAGES = ("views", "f forward", "g forward", "loss", "backward", "optimizer")
REST = "input, loop and metrics"


def measure_stages(job: Job, turns: int) -> dict[str, float]:
    """Return the seconds of each stage: the median of steps that end after it, less that of the stage before.

    Steps that end before the update change only BatchNorm's statistics.
    """
    ends = make_partial_steps(job) | {REST: job.run}
    medians = [np.median(times["wall"]) for times in take_turns(ends, turns, settle=1).values()]
    return {name: float(value) for name, value in zip(ends, np.diff([0.0, *medians]))}


def make_partial_steps(job: Job) -> dict[str, Steps]:
    """Return, by stage, steps on one batch that end after that stage."""
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
