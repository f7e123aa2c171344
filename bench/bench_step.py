"""Times the whole training step against its encoder alone: python -m bench.bench_step [--encoders resnet18]
[--batch-size 512].

Both run as training runs them, several steps in one host call, on the device and in the precision that training would
choose. Whole: views, f, g, NT-Xent, gradient, update. Encoder alone: f and g forward and backward and the update, on
views that lie ready, with a loss that costs nothing. The share encoder / whole says what views and loss cost; MFU is
against the data sheet's peak where the GPU is known (`utilisation`).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import harness, utilisation
from lowlevel_simclr import config, data, step, train


def image_set(count: int) -> data.DataSet:
    """CIFAR-shaped noise: the speed does not depend on the pixels."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    split = data.Split(images, np.zeros(count, np.int64))
    return data.DataSet("noise", split, split, ("noise",))


def cheap_loss(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A loss whose gradient is 1 everywhere: (2N, d) -> (2N,), (2N,)."""
    return tf.cast(tf.reduce_sum(z, axis=1), tf.float32), tf.zeros(tf.shape(z)[0], tf.bool)


def encoder_alone(settings: config.Config, plan: train.Plan, learner: step.Learner) -> step.StepsFunction:
    """Steps without views and without NT-Xent."""
    size = settings.model.image_size
    x = tf.cast(tf.random.uniform([2 * settings.train.batch_size, size, size, 3]), plan.precision)
    one_step = functools.partial(
        step.train_step, learner, lambda *_: x, cheap_loss, lambda _: tf.constant(plan.learning_rate, tf.float32)
    )
    return step.compile_steps(one_step, plan.jit_compile)


def seconds_a_step(steps: step.StepsFunction, batch: step.Batch, count: int, calls: int) -> list[float]:
    """Of each call but the first, which traces and compiles."""
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    taken = []
    for call in range(calls + 1):
        start = time.perf_counter()
        np.asarray(steps(batches, tf.constant(count, tf.int32)).loss)
        if call:
            taken.append((time.perf_counter() - start) / count)
    return taken


def measure(encoder: str, chosen: argparse.Namespace) -> list[harness.Row]:
    """The two rows of one encoder."""
    flags = ["--encoder", encoder, "--batch-size", str(chosen.batch_size), "--steps", "1000", "--ops", chosen.ops]
    settings = config.parse([*flags, *chosen.flags])[0]
    images = image_set(chosen.batch_size)
    plan = train.make_plan(settings, images)
    batch = (tf.constant(0, tf.int64), tf.range(chosen.batch_size, dtype=tf.int64), tf.constant(images.train.images))
    problem = {"encoder": encoder, "batch": chosen.batch_size, "precision": plan.precision, "xla": plan.jit_compile}
    builders: dict[str, Callable[..., step.StepsFunction]] = {
        "whole step": train.steps_function,
        "encoder alone": encoder_alone,
    }
    rows = []
    for name, build in builders.items():
        learner = train.new_learner(settings, plan, 3)
        taken = seconds_a_step(build(settings, plan, learner), batch, chosen.steps, chosen.calls)
        rows.append(row_of(problem, name, taken, learner, chosen.batch_size, plan.precision))
    for row in rows:
        row.extra["encoder_share"] = (rows[1].median or 0) / (rows[0].median or 1)
    return rows


def row_of(
    problem: dict[str, Any], name: str, taken: Sequence[float], learner: step.Learner, batch: int, precision: str
) -> harness.Row:
    """Times, pairs a second, MFU and the device's peak memory."""
    operations = utilisation.operations_of_pair([learner.encoder, learner.projection])
    median = float(np.median(taken))
    row = harness.Row(problem, name, len(taken), min(taken), median, operations=operations * batch)
    row.extra["pairs_per_second"] = batch / median
    row.extra["mfu"] = utilisation.share(batch / median, operations, utilisation.gpu_name(), precision)
    if tf.config.list_physical_devices("GPU"):
        row.peak_memory = int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return row


def text(rows: Sequence[harness.Row]) -> str:
    """An aligned table."""
    lines = [f"{'encoder':<12}{'what':<16}{'median ms':>10}{'pairs/s':>10}{'MFU':>7}{'share':>7}"]
    for row in rows:
        mfu = "" if row.extra["mfu"] is None else f"{row.extra['mfu']:.0%}"
        numbers = f"{1e3 * (row.median or 0):>10.2f}{row.extra['pairs_per_second']:>10.0f}{mfu:>7}"
        lines.append(f"{row.problem['encoder']:<12}{row.name:<16}{numbers}{row.extra['encoder_share']:>7.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=["resnet18"], help="as train's --encoder")
    parser.add_argument("--batch-size", type=int, default=512, help="pairs a step")
    parser.add_argument("--ops", choices=("native", "stock"), default="native")
    parser.add_argument("--steps", type=int, default=10, help="a host call")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / harness.device_name() / "step.json")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of train")
    chosen = parser.parse_args(arguments)
    rows: list[harness.Row] = []
    for encoder in chosen.encoders:
        rows += measure(encoder, chosen)
        harness.store(chosen.out, rows, {"tensorflow": tf.__version__})
    print(text(rows))


if __name__ == "__main__":
    main()
