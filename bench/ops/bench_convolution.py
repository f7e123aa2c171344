"""Times convolutions whose outputs see the whole map: python -m bench.ops.bench_convolution [--compare old.json].

The layer's matrix product against TensorFlow's own convolution, forward and both gradients, in a graph: the shapes of
ResNet-50 with the ImageNet stem at 32 pixels and a batch of 256, and two larger maps, which stay convolutions, as the
control. Every call sums what it computed to three numbers, so that nothing of it can be left out. The operations
counted are those that meet a pixel of the map, not the padding.
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
from lowlevel_simclr.model.convolution import Convolution, count_taps, fills_whole_map
from lowlevel_simclr.runtime import precision

# Pixels a side of the map, taps a side of the kernel, stride, channels in and out.
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
# Relative to the largest sum; of float32 in orders that differ, and of bfloat16, whose results are rounded to 8 bits.
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}


def operations(side: int, size: int, stride: int, inner: int, outer: int, rows: int) -> float:
    """Multiplications and additions of the forward pass and both gradients, padding left out."""
    meetings = sum(0 <= tap < size for row in count_taps(side, size, stride, "same").values() for tap in row)
    return 3 * 2.0 * rows * meetings**2 * inner * outer


def prepared(convolve: Callable[..., tf.Tensor], shape: Sequence[int], rows: int, dtype: str) -> Callable[[], Any]:
    """A call that convolves and takes both gradients."""
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


def ours(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """The layer of the encoder, without its bias."""
    layer = Convolution(kernel.shape[3], kernel.shape[0], stride, padding="same", use_bias=False, dtype=x.dtype.name)
    return layer.convolution_op(x, kernel)


def stock(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """TensorFlow's convolution."""
    return tf.nn.conv2d(x, kernel, stride, "SAME")


def measure(shape: Sequence[int], rows: int, dtype: str, seconds: float) -> list[harness.Row]:
    """Both forms of one shape."""
    side, size, stride, inner, outer = shape
    is_product = fills_whole_map(side, size, stride, "same") is not None
    forms = [("matrix product" if is_product else "layer, a convolution here", ours), ("convolution", stock)]
    problem: dict[str, Any] = {"map": side, "kernel": size, "stride": stride, "channels": f"{inner} to {outer}"}
    return harness.compare(
        {**problem, "views": rows, "dtype": dtype},
        [harness.Alternative(name, lambda form=form: prepared(form, shape, rows, dtype)) for name, form in forms],
        operations=operations(side, size, stride, inner, outer, rows),
        seconds=seconds,
        tolerance=TOLERANCES[dtype],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=512)
    parser.add_argument(
        "--dtypes", nargs="+", choices=TOLERANCES, help="default: float32, and bfloat16 where it is fast"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for each alternative")
    parser.add_argument(
        "--out", "--json", type=Path, default=harness.RESULTS / harness.device_name() / "convolution.json"
    )
    parser.add_argument("--compare", type=Path, help="an older result to print the ratio to")
    chosen = parser.parse_args(arguments)
    dtypes = chosen.dtypes or dict.fromkeys(["float32", precision.choose_fast_precision()])
    rows = [
        row
        for dtype in dtypes
        if dtype in TOLERANCES
        for shape in SHAPES
        for row in measure(shape, chosen.views, dtype, chosen.seconds)
    ]
    harness.store(chosen.out, rows, {"tensorflow": tf.__version__})
    print(harness.text(rows, harness.load(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
