"""Times steps with three ways to update the weights: python -m bench.step.bench_step_updates [--out FILE] [job flags].

LARS is the optimizer of SimCLR's paper. The bench compares three ways to compute its update of the variables:

    all      `ops.lars_update_all` updates all variables in a few kernel launches; this is the default on a GPU
    each     `ops.lars_update` is called once for each variable; this is the default on a CPU
    stock    TensorFlow's own ops compute the update, as with `--ops stock`; XLA fuses them if it compiles the step

The bench times four things in turns: a step of the training job (job.py) with each of the three updates, and the
encoder alone. It does this in several processes (see step_ways.py). The flags of the job set the encoder, the batch
size and the precision.

The bench times whole steps, because the time of the update alone would miss one effect: an encoder has many small
variables, and on a GPU a step can wait until the host has launched the kernels for all of them.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from bench.step import step_ways
from bench.step.job import Job
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.optim.optimizers import LarsUpdateAll
from lowlevel_simclr.training.implementation import Implementation


def update_each(
    weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor], velocities: Sequence[tf.Tensor], **choices: Any
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Call the native op once for each variable. Arguments and results are the same as in `ops.lars_update_all`."""
    pairs = [ops.lars_update(*variable, **choices) for variable in zip(weights, gradients, velocities)]
    return [weight for weight, _ in pairs], [velocity for _, velocity in pairs]


def make_way(update: LarsUpdateAll) -> Callable[[Config], Job]:
    """Return a function that builds the training job with this update. The loss and the views are native ops."""
    native = Implementation.of("native", ops)
    return lambda config: Job(config, implementation=native._replace(lars_update_all=update))


WAYS: step_ways.Ways = {
    "all": make_way(ops.lars_update_all),
    "each": make_way(update_each),
    "stock": make_way(stock.lars_update_all),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the three updates, store the result and print it."""
    step_ways.run_bench("bench.step.bench_step_updates", __doc__, WAYS, "step_updates.json", arguments)


if __name__ == "__main__":
    main()
