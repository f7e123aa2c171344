"""Times the input of a training step: python -m bench.step.bench_input [--encoder resnet20 --stem cifar --batch 64].

The bench trains on noise images of 32 x 32 pixels. A view is a randomly changed version of an image. For every batch
the bench measures three times (in the code: parts), one after another:

1. how long training waits for the batch;
2. how long it takes to make the views of the batch: to draw their parameters and to compute their pixels;
3. how long the whole step takes. The step makes the same views again.

The result gives the processor times of 1 and 2 as shares of the processor time of 3. It gives the wall time of 2 as a
share of the wall time of 3, and the wall time of 1 as a share of the sum of 1 and 3.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench import hardware, harness, versions
from bench.step.input_parts import build_parts
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.settings import Config

PIXELS = 32
T = TypeVar("T")
PARTS = ("wait for input", "draw and make views", "whole step")


def configure_training(arguments: argparse.Namespace) -> Config:
    """Return the configuration: the settings from the flags, and every other setting at its default."""
    flags = {
        "--encoder": arguments.encoder,
        "--stem": arguments.stem,
        "--batch-size": arguments.batch,
        "--image-size": PIXELS,
        "--precision": arguments.precision,
        "--ops": arguments.ops,
    }
    return parse_run([str(word) for flag in flags.items() for word in flag], __doc__.splitlines()[0])[0]


def measure(config: Config, steps: int, warm_up: int = 2) -> list[harness.Row]:
    """Time the three parts. Return one row for each part, with its share of the time of a step."""
    count = max(4 * config.train.batch_size, 2048)
    images = np.random.default_rng(0).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8)
    batches, views, one_step = build_parts(config, images, steps + warm_up)
    taken: list[list[tuple[float, float]]] = [[] for _ in PARTS]
    for number in range(steps + warm_up):
        wait, batch = time_call(lambda: next(batches))
        making, _ = time_call(lambda: views(*batch).numpy())  # noqa: B023
        training, _ = time_call(lambda: one_step(batch).loss.numpy())  # noqa: B023
        for part, times in zip(taken, (wait, making, training), strict=True):
            part += [times] if number >= warm_up else []
    problem = {"encoder": config.model.encoder, "stem": config.model.stem, "N": config.train.batch_size}
    rows = [make_row({**problem, "ops": config.train.ops}, name, times) for name, times in zip(PARTS, taken)]
    whole = rows[-1]
    for row in rows[:-1]:
        row.extra["share_of_wall"] = (row.median or 0) / ((whole.median or 1) + (row is rows[0]) * (row.median or 0))
        row.extra["share_of_processor"] = (row.processor or 0) / (whole.processor or 1)
        row.note = (
            f"{row.extra['share_of_wall']:.2%} of the step's wall time, "
            f"{row.extra['share_of_processor']:.2%} of its processor time"
        )
    return rows


def time_call(call: Callable[[], T]) -> tuple[tuple[float, float], T]:
    """Return the wall time and the processor time of a call, in seconds, and the result of the call."""
    used, started = time.process_time(), time.perf_counter()
    result = call()
    return (time.perf_counter() - started, time.process_time() - used), result


def make_row(problem: dict[str, Any], name: str, times: list[tuple[float, float]]) -> harness.Row:
    """Return the row of one part: the minimum and the quantiles of its wall time, and its smallest processor time."""
    wall = [wall for wall, _ in times]
    p10, median, p90 = (float(q) for q in np.percentile(wall, (10, 50, 90)))
    processor = min(processor for _, processor in times)
    return harness.Row(problem, name, len(wall), min(wall), median, p10, p90, processor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts, store the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--batch", type=int, default=256, help="N, the number of images in a step")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ops", default="native", choices=("native", "stock"))
    parser.add_argument("--steps", type=int, default=10, help="number of measured steps, after two warm-up steps")
    parser.add_argument("--cores", type=int, help="number of cores to use (default: all)")
    parser.add_argument("--out", type=Path, help="result file (default: input.json in the folder of this device)")
    parser.add_argument("--compare", type=Path, help="an older result to compare with")
    chosen = parser.parse_args(arguments)
    hardware.keep_to_cores(chosen.cores)
    rows = measure(configure_training(chosen), chosen.steps)
    out = chosen.out or harness.choose_result_path("input.json")
    harness.store_rows(out, rows, versions.read_native_versions())
    print(harness.format_rows(rows, harness.read_rows(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
