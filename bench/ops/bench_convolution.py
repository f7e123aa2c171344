"""Times convolutions of very small feature maps: python -m bench.ops.bench_convolution [--compare old.json].

A feature map (map) is the input of a convolution. If a map is as small as the kernel, every output pixel depends on all
input pixels that the convolution uses. For such a map, the encoder's layer computes the convolution as a matrix
product. The bench compares the time of this product with the time of TensorFlow's own convolution. It times the forward
pass and the gradients with respect to the input and the kernel, in a graph. The shapes are those of ResNet-50 with the
ImageNet stem (the first layers for large images) at 32 pixels and a batch of 256. Two larger maps are a control: for
them the layer calls TensorFlow's convolution, so both times should be equal.

Every call reduces its results to three sums. These depend on all results, so TensorFlow cannot leave out any part of
the work. The operation counts do not include multiplications with padding.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import harness
from lowlevel_simclr.model.convolution import Convolution, count_taps, fills_whole_map
from lowlevel_simclr.runtime import precision

# Each shape: pixels on a side of the map, taps on a side of the kernel, stride, input channels, output channels.
SHAPES = [
    (1, 3, 1, 512, 512),
    (2, 3, 1, 256, 256),
    (1, 1, 1, 512, 2048),
    (1, 1, 1, 2048, 512),
    (2, 1, 2, 1024, 2048),
    (2, 1, 2, 1024, 512),
    (4, 3, 1, 128, 128),
    (8, 1, 1, 64, 256),
]
# The largest allowed difference, divided by the largest sum. In float32 the two results differ because the product and
# the convolution add in different orders. In bfloat16 they differ because results are rounded to 8 bits.
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}

Convolve = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]  # x, kernel, stride -> y


def count_operations(side: int, size: int, stride: int, inner: int, outer: int, rows: int) -> float:
    """Return the number of operations in the forward and the backward pass, without operations on padding."""
    meetings = sum(0 <= tap < size for row in count_taps(side, size, stride, "same").values() for tap in row)
    return 3 * 2.0 * rows * meetings**2 * inner * outer


def prepare_call(convolve: Convolve, shape: Sequence[int], rows: int, dtype: str) -> harness.Call:
    """Return a function without arguments that computes the convolution and its gradients for input and kernel."""
    side, size, stride, inner, outer = shape
    draw = tf.random.stateless_normal
    x = tf.Variable(tf.cast(draw((rows, side, side, inner), [1, 1]), dtype))
    kernel = tf.Variable(tf.cast(draw((size, size, inner, outer), [1, 2]) / (size * inner**0.5), dtype))
    out = -(-side // stride)
    dy = tf.Variable(tf.cast(draw((rows, out, out, outer), [1, 3]), dtype))

    @tf.function
    def step() -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            y = convolve(tf.convert_to_tensor(x), tf.convert_to_tensor(kernel), stride)
        found = (y, *tape.gradient(y, (x, kernel), output_gradients=tf.convert_to_tensor(dy)))
        return tuple(tf.reduce_sum(tf.abs(tf.cast(each, tf.float32))) for each in found)

    return lambda: [np.asarray(value) for value in step()]


def convolve_as_layer(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Convolve with the encoder's layer, without a bias."""
    layer = Convolution(kernel.shape[3], kernel.shape[0], stride, padding="same", use_bias=False, dtype=x.dtype.name)
    return layer.convolution_op(x, kernel)


def convolve_as_tensorflow(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Convolve with TensorFlow's own op, tf.nn.conv2d."""
    return tf.nn.conv2d(x, kernel, stride, "SAME")


def measure(shape: Sequence[int], rows: int, dtype: str, seconds: float) -> list[harness.Row]:
    """Time the layer and TensorFlow's convolution on one shape, and return a row for each of the two."""
    side, size, stride, inner, outer = shape
    is_product = fills_whole_map(side, size, stride, "same") is not None
    layer = "matrix product" if is_product else "layer, a convolution here"
    forms: list[tuple[str, Convolve]] = [(layer, convolve_as_layer), ("convolution", convolve_as_tensorflow)]
    problem: dict[str, Any] = {"map": side, "kernel": size, "stride": stride, "channels": f"{inner} to {outer}"}
    return harness.time_alternatives(
        {**problem, "views": rows, "dtype": dtype},
        [harness.Alternative(name, partial(prepare_call, form, shape, rows, dtype)) for name, form in forms],
        operations=count_operations(side, size, stride, inner, outer, rows),
        seconds=seconds,
        tolerance=TOLERANCES[dtype],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every shape, store the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=512, help="number of views in a call")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=TOLERANCES,
        help="types to compute in (default: float32, and also bfloat16 if this device is fast with it)",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each alternative")
    parser.add_argument("--out", "--json", type=Path, default=harness.choose_result_path("convolution.json"))
    parser.add_argument("--compare", type=Path, help="an older result to compare with")
    chosen = parser.parse_args(arguments)
    dtypes = chosen.dtypes or dict.fromkeys(["float32", precision.choose_fast_precision()])
    rows = [
        row
        for dtype in dtypes
        if dtype in TOLERANCES
        for shape in SHAPES
        for row in measure(shape, chosen.views, dtype, chosen.seconds)
    ]
    harness.store_rows(chosen.out, rows, {"tensorflow": tf.__version__})
    print(harness.format_rows(rows, harness.read_rows(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
