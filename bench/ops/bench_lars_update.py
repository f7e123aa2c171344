"""Times one LARS update of all variables of an encoder: python -m bench.ops.bench_lars_update [--compare old.json].

LARS is the optimizer of SimCLR's paper. The bench compares the native op with two updates in stock TensorFlow. The
first is the LARS formula written in TensorFlow's ops, in a graph and under XLA. In the second, `l2_loss` computes the
norms, and TensorFlow's fused op `ResourceApplyKerasMomentum` updates the weights. Every call first computes its
gradients, with one multiplication for each element. So an update may reuse the memory of the gradients, as in training.
Gradients in bfloat16 are cast to float32, as in mixed-precision training. In this case, the native op and the LARS
formula read the bfloat16 tensor from before the cast, and the fused op reads the float32 tensor. The bench counts
eleven operations for each element. Memory limits the speed: an update must read or write at least five arrays of the
size of the weights. The rows named `native jit` are the native op in a function that XLA compiles.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from bench import harness
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config import choices
from lowlevel_simclr.model import encoder
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.optim import optimizers

CHOICES = {"momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 0.001}
TOLERANCE = 1e-5
# Operations for each element: four for two sums of squares, two for u (the gradient with weight decay), three for the
# new velocity v', one for the new weight w', and one for the multiplication that computes the gradient.
OPERATIONS = 11

Variables = Sequence[tf.Variable]
Update = Callable[[Variables, Sequence[tf.Tensor], Variables, tf.Tensor], None]


def assign_results(form: optimizers.LarsUpdateAll) -> Update:
    """Return a function that updates variables: it calls the LARS function `form` and assigns the results to them."""

    def update(weights: Variables, gradients: Sequence[tf.Tensor], velocities: Variables, rate: tf.Tensor) -> None:
        gradients = list(map(optimizers.find_before_widening, gradients))
        held = [list(map(tf.convert_to_tensor, each)) for each in (weights, velocities)]
        found = form(held[0], gradients, held[1], learning_rate=rate, **CHOICES)
        for variables, values in zip((weights, velocities), found):
            for variable, value in zip(variables, values):
                variable.assign(value)

    return update


def update_fused(weights: Variables, gradients: Sequence[tf.Tensor], velocities: Variables, rate: tf.Tensor) -> None:
    """Update the variables with the fused op of stock TensorFlow.

    The velocity of the fused op has the opposite sign of the velocity of `lars_update_all`.
    """
    for weight, gradient, velocity in zip(weights, gradients, velocities):
        scaled = rate
        if len(weight.shape) > 1:
            gradient = gradient + CHOICES["weight_decay"] * weight
            norms = [tf.sqrt(2 * tf.nn.l2_loss(each)) for each in (weight, gradient)]
            scaled = rate * CHOICES["trust_coefficient"] * norms[0] / norms[1]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=weight.handle, accum=velocity.handle, lr=scaled, grad=gradient, momentum=CHOICES["momentum"]
        )


def prepare_call(shapes: Sequence[tuple[int, ...]], kind: str, update: Update, jit: bool = False) -> harness.Call:
    """Return a function without arguments that updates variables of these shapes and returns the largest one.

    Args:
        shapes: the shapes of the variables.
        kind: the type of the gradients, float32 or bfloat16.
        update: the function that updates the variables.
        jit: whether XLA compiles the update.
    """
    draw = tf.random.stateless_normal
    weights = [tf.Variable(draw(shape, [1, place])) for place, shape in enumerate(shapes)]
    velocities = [tf.Variable(tf.zeros(shape)) for shape in shapes]
    sources = [
        tf.Variable(tf.cast(draw(shape, [2, place]), kind), trainable=False) for place, shape in enumerate(shapes)
    ]
    largest = weights[int(np.argmax([np.prod(shape) for shape in shapes]))]

    @tf.function(jit_compile=jit)
    def step(rate: tf.Tensor) -> None:
        gradients = [tf.cast(source * 2, tf.float32) for source in sources]  # multiplying by 2 is exact in any type
        update(weights, gradients, velocities, rate)

    rate = tf.constant(0.1)

    def call() -> list[np.ndarray]:
        for _ in range(harness.choose_calls_in_a_row()):
            step(rate)
        tf.test.experimental.sync_devices()
        return [largest]

    return call


def measure(name: str, kind: str, seconds: float) -> list[harness.Row]:
    """Time every update on the variables of one encoder, with one type of gradients. Return one row for each update."""
    model = encoder.build_encoder(name, "imagenet", 32)
    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    count = sum(int(np.prod(shape)) for shape in shapes)
    forms: list[tuple[str, Update, bool]] = [
        ("native", assign_results(ops.lars_update_all), False),
        *([("native jit", assign_results(ops.lars_update_all), True)] if _route.find_route_error() is None else []),
        ("stock graph", assign_results(stock.lars_update_all), False),
        ("stock XLA", assign_results(stock.lars_update_all), True),
        ("stock fused", update_fused, False),
    ]
    alternatives = [
        harness.Alternative(form, partial(prepare_call, shapes, kind, update, jit)) for form, update, jit in forms
    ]
    problem = {"encoder": name, "parameters": count, "gradients": kind}
    return harness.time_alternatives(
        problem,
        alternatives,
        operations=float(OPERATIONS * count),
        seconds=seconds,
        tolerance=TOLERANCE,
        in_a_row=harness.choose_calls_in_a_row(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every encoder and type of gradients, store the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "resnet50"], choices=choices.ENCODERS)
    parser.add_argument("--gradients", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each alternative")
    parser.add_argument("--out", "--json", type=Path, default=harness.choose_result_path("lars_update.json"))
    parser.add_argument("--compare", type=Path, help="an older result to compare with")
    chosen = parser.parse_args(arguments)
    rows = [row for name in chosen.encoders for kind in chosen.gradients for row in measure(name, kind, chosen.seconds)]
    versions = {"tensorflow": tf.__version__, "library": _library.read_build_information()}
    harness.store_rows(chosen.out, rows, versions)
    print(harness.format_rows(rows, harness.read_rows(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
