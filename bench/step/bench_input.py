"""Times what a training step waits for: python -m bench.step.bench_input [--encoder resnet20 --stem cifar --batch 64].

Runs the steps of a training on noise of the data set's size and measures in the same loop, one after another: the wait
for the next batch, drawing the parameters and making the views, and the rest of the step. Wait and views are stored as
shares of the whole step. The views are made once by themselves and once inside the step, which is why their time is
measured apart.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import harness
from bench.ops.bench_make_views import use_cores, versions
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data import dataset
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.training import step
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.loop import make_views
from lowlevel_simclr.training.loss import make_loss
from lowlevel_simclr.training.plan import make_plan

PIXELS = 32
PARTS = ("wait for input", "views, drawing included", "whole step")


def settings(arguments: argparse.Namespace) -> Config:
    """A training of the given encoder and batch, everything else as by default."""
    flags = {
        "--encoder": arguments.encoder,
        "--stem": arguments.stem,
        "--batch-size": arguments.batch,
        "--image-size": PIXELS,
        "--precision": arguments.precision,
        "--ops": arguments.ops,
    }
    return parse_run([str(word) for flag in flags.items() for word in flag], __doc__.splitlines()[0])[0]


def parts(config: Config, images: np.ndarray, steps: int) -> tuple[Iterator[step.Batch], Callable, Callable]:
    """The batches, a function that makes the views of one, and a function that trains on one."""
    split = dataset.Split(images, np.zeros(len(images), np.int32))
    plan = make_plan(config, dataset.DataSet("noise", split, split, ("noise",)))
    learner = build_learner(plan, images.shape[-1])
    views = make_views(plan)
    loss = make_loss(plan.implementation, plan.temperature, plan.loss_reduction)

    def one_step(batch: step.Batch) -> step.Metrics:
        return step.train_step(learner, views, loss, lambda done: tf.constant(1e-3), batch)

    batches = iter(make_batches(images, config.train.batch_size, config.train.seed, 0, steps))
    return batches, views, tf.function(one_step, jit_compile=plan.jit_compile)


def measure(config: Config, steps: int, warm_up: int = 2) -> list[harness.Row]:
    """Wall and processor time of the parts of a step, as rows; shares are of the whole step."""
    count = max(4 * config.train.batch_size, 2048)
    images = np.random.default_rng(0).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8)
    batches, views, one_step = parts(config, images, steps + warm_up)
    taken: list[list[tuple[float, float]]] = [[] for _ in PARTS]
    for number in range(steps + warm_up):
        wait, batch = timed(lambda: next(batches))
        making, _ = timed(lambda: views(*batch).numpy())  # noqa: B023
        training, _ = timed(lambda: one_step(batch).loss.numpy())  # noqa: B023
        for part, times in zip(taken, (wait, making, training), strict=True):
            part += [times] if number >= warm_up else []
    problem = {"encoder": config.model.encoder, "stem": config.model.stem, "N": config.train.batch_size}
    rows = [row_of({**problem, "ops": config.train.ops}, name, times) for name, times in zip(PARTS, taken)]
    whole = rows[-1]
    for row in rows[:-1]:
        row.extra["share_of_wall"] = (row.median or 0) / ((whole.median or 1) + (row is rows[0]) * (row.median or 0))
        row.extra["share_of_processor"] = (row.processor or 0) / (whole.processor or 1)
        row.note = (
            f"{row.extra['share_of_wall']:.2%} of the step's wall time, {row.extra['share_of_processor']:.2%} cpu"
        )
    return rows


def timed(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Wall and processor seconds of a call, and what it returned."""
    used, started = time.process_time(), time.perf_counter()
    result = call()
    return (time.perf_counter() - started, time.process_time() - used), result


def row_of(problem: dict[str, Any], name: str, times: list[tuple[float, float]]) -> harness.Row:
    """Minimum, quantiles and least processor time of one part."""
    wall = [wall for wall, _ in times]
    p10, median, p90 = (float(q) for q in np.percentile(wall, (10, 50, 90)))
    processor = min(processor for _, processor in times)
    return harness.Row(problem, name, len(wall), min(wall), median, p10, p90, processor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--batch", type=int, default=256, help="N, images a step")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ops", default="native", choices=("native", "stock"))
    parser.add_argument("--steps", type=int, default=10, help="measured, after two to warm up")
    parser.add_argument("--cores", type=int, help="keep to so many cores; by default all")
    parser.add_argument("--out", type=Path, help="by default input.json in the folder of this device and cores")
    parser.add_argument("--compare", type=Path, help="an older result to set beside this one")
    chosen = parser.parse_args(arguments)
    use_cores(chosen.cores)
    rows = measure(settings(chosen), chosen.steps)
    harness.store(chosen.out or harness.RESULTS / harness.device_name() / "input.json", rows, versions())
    print(harness.text(rows, harness.load(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
