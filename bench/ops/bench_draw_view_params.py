"""Times the drawing of view parameters: python -m bench.ops.bench_draw_view_params [--images 512] [--compare old.json].

The native op against the stock form as a graph and under XLA; all draw the same numbers. Beside each stands its share
of the processor time that the native `make_views` takes for the same views at 32 pixels.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import harness
from bench.ops.bench_make_views import use_cores, versions
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.ops import _route

PIXELS = 32
RECIPE = ViewRecipe(blur_probability=0.5, brightness_shift=(-0.25, 0.25))
TOLERANCE = 1e-6  # of a field's largest entry: integers must be equal, numbers may differ by a rounding


def drawing(module: Any, count: int, jit: bool = False) -> Callable[[], Any]:
    """A call that draws the parameters of `count` images."""
    index = tf.range(count, dtype=tf.int64)

    @tf.function(jit_compile=jit)
    def draw(epoch: tf.Tensor) -> Any:
        return module.draw_view_params(0, epoch, index, RECIPE, PIXELS, PIXELS)

    epoch = tf.constant(1, tf.int64)
    return lambda: [field.numpy() for field in draw(epoch)]


def making(count: int) -> Callable[[], Any]:
    """A call of the native `make_views` for the same views."""
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8))
    params = ops.draw_view_params(0, 1, tf.range(count), ViewRecipe(), PIXELS, PIXELS)
    views = tf.function(lambda images, params: ops.make_views(images, params, PIXELS))
    return lambda: [views(images, params)]


def drawing_and_making(count: int) -> Callable[[], Any]:
    """A call that draws the parameters and makes the views, in one function as a training step does."""
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8))
    index = tf.range(count, dtype=tf.int64)

    @tf.function
    def views(epoch: tf.Tensor) -> tf.Tensor:
        return ops.make_views(images, ops.draw_view_params(0, epoch, index, ViewRecipe(), PIXELS, PIXELS), PIXELS)

    epoch = tf.constant(1, tf.int64)
    return lambda: [views(epoch)]


def measure(count: int, seconds: float) -> list[harness.Row]:
    """All rows of one batch size."""
    made = [harness.Alternative("native", lambda: drawing(ops, count))]
    if _route.find_route_error() is None:
        made.append(harness.Alternative("native jit", lambda: drawing(ops, count, True)))
    made.append(harness.Alternative("stock graph", lambda: drawing(stock, count)))
    made.append(harness.Alternative("stock XLA", lambda: drawing(stock, count, True)))
    rows = harness.compare({"N": count}, made, operations=0, seconds=seconds, tolerance=TOLERANCE)
    views = [
        harness.Alternative("native make_views", lambda: making(count)),
        harness.Alternative("both in one function", lambda: drawing_and_making(count)),
    ]
    beside, both = harness.compare({"N": count}, views, operations=0, seconds=seconds, tolerance=TOLERANCE)
    both.extra["share_of_make_views"] = (both.processor or 0) / (beside.processor or 1) - 1
    both.note = f"drawing adds {both.extra['share_of_make_views']:.1%} to make_views"
    for row in rows:
        if row.processor and beside.processor:
            row.extra["share_of_make_views"] = row.processor / beside.processor
            row.note = f"{row.extra['share_of_make_views']:.1%} of make_views"
    return [*rows, beside, both]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[64, 512, 4096], help="N, two views each")
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure each alternative of a problem")
    parser.add_argument("--cores", type=int, help="keep to so many cores; by default all")
    parser.add_argument("--out", type=Path, help="by default draw_view_params.json in the folder of this device")
    parser.add_argument("--compare", type=Path, help="an older result to set beside this one")
    chosen = parser.parse_args(arguments)
    use_cores(chosen.cores)
    out = chosen.out or harness.RESULTS / harness.device_name() / "draw_view_params.json"
    rows: list[harness.Row] = []
    for count in chosen.images:
        rows += measure(count, chosen.seconds)
        harness.store(out, rows, versions())
    print(harness.text(rows, harness.load(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
