"""Times whole steps by their LARS: python -m bench.step.bench_step_updates [--out FILE] [flags of bench_step].

    all      every variable in a few launches, `ops.lars_update_all`: what a GPU takes
    each     a call for every variable, `ops.lars_update`: what a processor takes
    stock    TensorFlow's ops, fused by XLA where it compiles the step: what `--ops stock` takes

and the encoder alone, in several processes (`step_ways.py`). On a GPU a step of many small variables can wait
for the host to launch their kernels, which no timing of the update alone shows.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Callable, Sequence
from typing import Any

from bench.step import bench_step, step_ways
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.training import implementation


def each(weights: Any, gradients: Any, velocities: Any, **choices: Any) -> Any:
    """A call of the native op for every variable."""
    return tuple(zip(*(ops.lars_update(*variable, **choices) for variable in zip(weights, gradients, velocities))))


def by(update: Any) -> Callable[[Config], bench_step.Job]:
    """What makes the job with this update."""
    native = implementation.Implementation.of("native", ops)
    return lambda config: bench_step.Job(config, implementation=native._replace(lars_update_all=update))


WAYS = {"all": by(ops.lars_update_all), "each": by(each), "stock": by(stock.lars_update_all)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    step_ways.main("bench.step.bench_step_updates", __doc__, WAYS, "step_updates.json", arguments)


if __name__ == "__main__":
    main()
