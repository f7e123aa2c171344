"""Builds three parts of training separately, so that a bench can time each of them: the input, the views, the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data import dataset
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.views import Views
from lowlevel_simclr.training import step
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.loop import make_views
from lowlevel_simclr.training.loss import make_loss
from lowlevel_simclr.training.plan import make_plan


def build_parts(
    config: Config, images: np.ndarray, steps: int
) -> tuple[Iterator[step.Batch], Views, Callable[[step.Batch], step.Metrics]]:
    """Return an iterator over batches, a function that makes the views of a batch, and a function that trains on it."""
    split = dataset.Split(images, np.zeros(len(images), np.int32))
    plan = make_plan(config, dataset.DataSet("noise", split, split, ("noise",)))
    learner = build_learner(plan, images.shape[-1])
    views = make_views(plan)
    loss = make_loss(plan.implementation, plan.temperature, plan.loss_reduction)

    def take_step(batch: step.Batch) -> step.Metrics:
        return step.train_step(learner, views, loss, lambda done: tf.constant(1e-3), batch)

    batches = iter(make_batches(images, config.train.batch_size, config.train.seed, 0, steps))
    return batches, views, tf.function(take_step, jit_compile=plan.jit_compile)
