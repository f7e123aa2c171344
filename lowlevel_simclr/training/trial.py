"""A trial of a run's own program for a few steps. It shows whether the memory is large enough."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.training import learner, loop
from lowlevel_simclr.training.plan import Plan

TRIED = 2  # steps without XLA. In the second one, the optimizer's new slots lie beside the old ones


def fits_memory(plan: Plan, images: DataSet) -> bool:
    """Return whether the run's own program fits into the memory, with the images if they lie on the device.

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
