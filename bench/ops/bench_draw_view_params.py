"""Times the drawing of view parameters: python -m bench.ops.bench_draw_view_params [--images 512] [--compare old.json].

A view is a randomly changed version of an image. View parameters are the random numbers of a view, such as its crop and
its colour factors. The bench compares the native op with the stock implementation, which uses TensorFlow's own ops, as
a graph and under XLA. Both draw the same numbers. Each row also gives the processor time of drawing, divided by the
processor time that the native `make_views` needs for the same views at 32 pixels. The rows named `native jit` are the
native op in a function that XLA compiles.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bench import hardware, harness, versions
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _route

PIXELS = 32
RECIPE = ViewRecipe(blur_probability=0.5, brightness_shift=(-0.25, 0.25))
DrawViewParams = Callable[..., ViewParams]  # the signature of `ops.draw_view_params`
TOLERANCE = 1e-6  # relative to a field's largest entry; enough for the rounding of floats, too small for whole numbers


def prepare_drawing(draw_view_params: DrawViewParams, count: int, jit: bool = False) -> harness.Call:
    """Return a function without arguments that draws the parameters of `count` images."""
    index = tf.range(count, dtype=tf.int64)

    @tf.function(jit_compile=jit)
    def draw(epoch: tf.Tensor) -> ViewParams:
        return draw_view_params(0, epoch, index, RECIPE, PIXELS, PIXELS)

    epoch = tf.constant(1, tf.int64)
    return lambda: [field.numpy() for field in draw(epoch)]


def prepare_making(count: int) -> harness.Call:
    """Return a function without arguments that makes views with the native `make_views`.

    This function draws the parameters once. The returned function uses them in every call.
    """
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8))
    params = ops.draw_view_params(0, 1, tf.range(count), ViewRecipe(), PIXELS, PIXELS)
    views = tf.function(lambda images, params: ops.make_views(images, params, PIXELS))
    return lambda: [views(images, params)]


def prepare_both(count: int) -> harness.Call:
    """Return a function without arguments that draws the parameters and makes the views in one tf.function.

    This is what a training step does.
    """
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8))
    index = tf.range(count, dtype=tf.int64)

    @tf.function
    def draw_and_make(epoch: tf.Tensor) -> tf.Tensor:
        return ops.make_views(images, ops.draw_view_params(0, epoch, index, ViewRecipe(), PIXELS, PIXELS), PIXELS)

    epoch = tf.constant(1, tf.int64)
    return lambda: [draw_and_make(epoch)]


def measure(count: int, seconds: float) -> list[harness.Row]:
    """Time every alternative on a batch of `count` images. Return one row for each alternative."""
    made = [harness.Alternative("native", lambda: prepare_drawing(ops.draw_view_params, count))]
    if _route.find_route_error() is None:
        made.append(harness.Alternative("native jit", lambda: prepare_drawing(ops.draw_view_params, count, True)))
    made.append(harness.Alternative("stock graph", lambda: prepare_drawing(stock.draw_view_params, count)))
    made.append(harness.Alternative("stock XLA", lambda: prepare_drawing(stock.draw_view_params, count, True)))
    rows = harness.time_alternatives({"N": count}, made, operations=0, seconds=seconds, tolerance=TOLERANCE)
    views = [
        harness.Alternative("native make_views", lambda: prepare_making(count)),
        harness.Alternative("both in one function", lambda: prepare_both(count)),
    ]
    beside, both = harness.time_alternatives({"N": count}, views, operations=0, seconds=seconds, tolerance=TOLERANCE)
    both.extra["share_of_make_views"] = (both.processor or 0) / (beside.processor or 1) - 1
    both.note = f"drawing adds {both.extra['share_of_make_views']:.1%} to the processor time of make_views"
    for row in rows:
        if row.processor and beside.processor:
            row.extra["share_of_make_views"] = row.processor / beside.processor
            row.note = f"{row.extra['share_of_make_views']:.1%} of the processor time of make_views"
    return [*rows, beside, both]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every batch size, store the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[64, 512, 4096], help="N, images with two views each")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds to measure each alternative of a problem")
    parser.add_argument("--cores", type=int, help="number of cores to use (default: all)")
    parser.add_argument("--out", type=Path, help="result file (default: draw_view_params.json in this device's folder)")
    parser.add_argument("--compare", type=Path, help="an older result to compare with")
    chosen = parser.parse_args(arguments)
    hardware.keep_to_cores(chosen.cores)
    out = chosen.out or harness.choose_result_path("draw_view_params.json")
    rows: list[harness.Row] = []
    for count in chosen.images:
        rows += measure(count, chosen.seconds)
        harness.store_rows(out, rows, versions.read_native_versions())
    print(harness.format_rows(rows, harness.read_rows(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
