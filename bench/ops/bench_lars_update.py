"""Times one LARS update of all variables of an encoder: python -m bench.ops.bench_lars_update [--compare old.json].

Against the native op, in a graph and under XLA, stand the stock formula likewise, and what stock TensorFlow has nearest
to a fused update: `l2_loss` for the norms and `ResourceApplyKerasMomentum`. Every call first makes its gradients, one
product an element, the same for all: so they are fresh memory that an update may take over, as in training. Gradients
in bfloat16 are widened to float32, as mixed precision does it; the native op reads what they were widened from. The
operations counted are eleven an element; what limits is memory: the update cannot do with fewer than five passes over
the weights.
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
from lowlevel_simclr import ops, stock
from lowlevel_simclr.model import encoder
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.optim import optimizers

CHOICES = {"momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 0.001}
TOLERANCE = 1e-5
OPERATIONS = 11  # an element: two squares summed, two for u, three for v', one for w', and the gradient's product

Variables = Sequence[tf.Variable]
Update = Callable[[Variables, Sequence[tf.Tensor], Variables, tf.Tensor], None]


def assigned(form: Callable[..., tuple[list[tf.Tensor], list[tf.Tensor]]]) -> Update:
    """A pure update whose results are assigned."""

    def update(weights: Variables, gradients: Sequence[tf.Tensor], velocities: Variables, rate: tf.Tensor) -> None:
        gradients = list(map(optimizers.find_before_widening, gradients))
        held = [list(map(tf.convert_to_tensor, each)) for each in (weights, velocities)]
        found = form(held[0], gradients, held[1], learning_rate=rate, **CHOICES)
        for variables, values in zip((weights, velocities), found):
            for variable, value in zip(variables, values):
                variable.assign(value)

    return update


def nearest_fused(weights: Variables, gradients: Sequence[tf.Tensor], velocities: Variables, rate: tf.Tensor) -> None:
    """Stock TensorFlow's own fused step; its velocity has the other sign."""
    for weight, gradient, velocity in zip(weights, gradients, velocities):
        scaled = rate
        if len(weight.shape) > 1:
            gradient = gradient + CHOICES["weight_decay"] * weight
            norms = [tf.sqrt(2 * tf.nn.l2_loss(each)) for each in (weight, gradient)]
            scaled = rate * CHOICES["trust_coefficient"] * norms[0] / norms[1]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=weight.handle, accum=velocity.handle, lr=scaled, grad=gradient, momentum=CHOICES["momentum"]
        )


def prepared(shapes: Sequence[tuple[int, ...]], kind: str, update: Update, jit: bool = False) -> Callable[[], Any]:
    """A call that updates variables of these shapes by gradients of this type; its answer is the largest variable."""
    draw = tf.random.stateless_normal
    weights = [tf.Variable(draw(shape, [1, place])) for place, shape in enumerate(shapes)]
    velocities = [tf.Variable(tf.zeros(shape)) for shape in shapes]
    sources = [
        tf.Variable(tf.cast(draw(shape, [2, place]), kind), trainable=False) for place, shape in enumerate(shapes)
    ]
    largest = weights[int(np.argmax([np.prod(shape) for shape in shapes]))]

    @tf.function(jit_compile=jit)
    def step(rate: tf.Tensor) -> None:
        gradients = [tf.cast(source * 2, tf.float32) for source in sources]  # twice is exact in any type
        update(weights, gradients, velocities, rate)

    rate = tf.constant(0.1)

    def call() -> list[np.ndarray]:
        for _ in range(harness.in_a_row()):
            step(rate)
        tf.test.experimental.sync_devices()
        return [largest]

    return call


def measure(name: str, kind: str, seconds: float) -> list[harness.Row]:
    """All rows of one encoder and one type of gradients."""
    model = encoder.build_encoder(name, "imagenet", 32)
    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    count = sum(int(np.prod(shape)) for shape in shapes)
    forms: list[tuple[str, Update, bool]] = [
        ("native", assigned(ops.lars_update_all), False),
        *([("native jit", assigned(ops.lars_update_all), True)] if _route.find_route_error() is None else []),
        ("stock graph", assigned(stock.lars_update_all), False),
        ("stock XLA", assigned(stock.lars_update_all), True),
        ("stock fused", nearest_fused, False),
    ]
    alternatives = [
        harness.Alternative(form, lambda update=update, jit=jit: prepared(shapes, kind, update, jit))
        for form, update, jit in forms
    ]
    problem = {"encoder": name, "parameters": count, "gradients": kind}
    return harness.compare(
        problem,
        alternatives,
        operations=float(OPERATIONS * count),
        seconds=seconds,
        tolerance=TOLERANCE,
        in_a_row=harness.in_a_row(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "resnet50"], choices=encoder.NAMES)
    parser.add_argument("--gradients", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each alternative")
    parser.add_argument(
        "--out", "--json", type=Path, default=harness.RESULTS / harness.device_name() / "lars_update.json"
    )
    parser.add_argument("--compare", type=Path, help="an older result to print the ratio to")
    chosen = parser.parse_args(arguments)
    rows = [row for name in chosen.encoders for kind in chosen.gradients for row in measure(name, kind, chosen.seconds)]
    versions = {"tensorflow": tf.__version__, "library": _library.read_build_information()}
    harness.store(chosen.out, rows, versions)
    print(harness.text(rows, harness.load(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
