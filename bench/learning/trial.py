"""Runs one trial of a search for training settings: trains for a given time and measures the accuracy.

`bench.learning.search` runs python -m bench.learning.trial '{"settings": ..., "seconds": ..., "data_dir": ..., "seed":
...}'. The last line of the output is the result as JSON. The accuracy is that of a 20-nearest-neighbour classifier
(20-NN) on held-out images of the train split. The test split is never used.

The trial first measures the processor time of a step. Then it trains for as many steps as fit into the given seconds of
processor time. Wall time would depend on the other programs on the machine. For the same reason, the time of a step is
the smallest of several measurements.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.config.validation import validate
from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.evaluation.knn import classify_by_neighbours
from lowlevel_simclr.evaluation.represent import compute_h
from lowlevel_simclr.model import encoder
from lowlevel_simclr.training.course import divide_steps
from lowlevel_simclr.training.learner import Learner, build_learner
from lowlevel_simclr.training.loop import make_steps, take_side
from lowlevel_simclr.training.plan import Plan, make_plan
from lowlevel_simclr.training.program import StepsFunction

HELD_OUT = 5_000  # images of the train split on which a trial is measured
BANK = 10_000  # images of the train split among which the classifier looks for neighbours
PER_CALL = 8  # steps in one call of the compiled loop
MEASURED = 6  # measurements of the time of a step; the smallest one is used
AT_ONCE = 2  # steps in one measurement
WHOLE = 32  # pixels on a side of an image of CIFAR-10; the encoder is evaluated at this size too
DECAY = 0.98  # the factor of the old average in one step of the moving average of the weights
BASE = {"epochs": 1, "knn_every": 0}


def split_train(images: DataSet) -> DataSet:
    """Divide the train split of a data set into images to train on and HELD_OUT images to measure on."""
    order = np.random.default_rng(0).permutation(len(images.train.labels))
    parts = [Split(images.train.images[rows], images.train.labels[rows]) for rows in np.split(order, [-HELD_OUT])]
    return dataclasses.replace(images, train=parts[0], test=parts[1])


def use_network(blocks: list[int], width: int) -> None:
    """Change what the name resnet20 means in this process: an encoder with these blocks and this width."""
    encoder.BASIC["resnet20"] = encoder.Basic(tuple(blocks), width, projects=False)


def measure_step(steps: StepsFunction, batches: Iterator[Any]) -> float:
    """Return the processor time of a step in seconds."""
    steps(batches, tf.constant(1))  # compiles
    times = []
    for _ in range(MEASURED):
        before = time.process_time()
        steps(batches, tf.constant(AT_ONCE)).loss.numpy()
        times.append((time.process_time() - before) / AT_ONCE)
    return min(times)


def measure_speeds(plan: Plan, images: DataSet) -> dict[int, float]:
    """Return the processor time of a step for each size of the views."""
    learner, found = build_learner(plan, 3), {}
    for size in plan.view_sizes:
        steps = make_steps(*take_side(plan, learner, size.side))
        found[size.side] = measure_step(steps, iter(make_batches(images.train.images, plan.batch_size, 1, 0, 10_000)))
    return found


class Average:
    """The moving average of an encoder's weights."""

    def __init__(self, model: tf.keras.Model, decay: float) -> None:
        """Start with the present weights. `decay` is the factor of the old average in one step."""
        self._model, self._decay, self.weights = model, decay, model.get_weights()

    def update(self, steps: int) -> None:
        """Add the present weights to the average. `steps` is the number of steps since the last update."""
        decay = self._decay**steps
        for old, new in zip(self.weights, self._model.get_weights()):
            old *= decay
            old += (1 - decay) * new


def train(plan: Plan, images: DataSet, average: Average, learner: Learner) -> float:
    """Train for all steps of a plan. Return the mean loss of the steps in the last call of the compiled loop."""
    batches = iter(make_batches(images.train.images, plan.batch_size, plan.seed, 0, plan.steps))
    loss = 0.0
    for segment in divide_steps(plan.view_sizes, plan.steps):
        steps, done = make_steps(*take_side(plan, learner, segment.side)), segment.first
        while done < segment.last:
            count = min(PER_CALL, segment.last - done)
            loss = float(steps(batches, tf.constant(count)).loss.numpy().mean())
            done += count
            average.update(count)
    return loss


def measure_accuracy(f: tf.keras.Model, plan: Plan, images: DataSet) -> float:
    """Return the accuracy of 20-NN on the encoder's outputs h, for the held-out images."""
    bank, held = images.train.images[:BANK], images.test.images
    h = [compute_h(f, part, plan.scaling) for part in (bank, held)]
    return classify_by_neighbours(h[0], images.train.labels[:BANK], h[1], images.test.labels, [20])["20"]


def show_two_stages(f: tf.keras.Model) -> tf.keras.Model:
    """Return an encoder whose h is that of `f` and the mean of the feature map of the stage before the last."""
    last = [layer.output for layer in f.layers if layer.name.endswith("_relu") and "conv" not in layer.name]
    earlier = [each for each in last if each.shape[-1] < last[-1].shape[-1]]
    pooled = tf.keras.layers.GlobalAveragePooling2D(name="earlier")(earlier[-1])
    return tf.keras.Model(f.input, tf.keras.layers.Concatenate(name="two")([pooled, f.output]))


def renew_statistics(f: tf.keras.Model, images: DataSet) -> None:
    """Set the moving statistics of BatchNorm to those of images without augmentation."""
    size = f.input_shape[1]
    rows = tf.image.resize(images.train.images[:4096] / np.float32(255), (size, size), antialias=True)
    for first in range(0, 4096, 128):
        f(rows[first : first + 128], training=True)


def run_trial(spec: dict[str, Any], seconds: float, data_dir: str, seed: int) -> dict[str, Any]:
    """Run a trial.

    Args:
        spec: a dict with the "settings" of the run. It may also have "network" (the blocks, the width and the
            stem of the encoder) and "warmup_share" (the share of the steps in which the learning rate rises).
        seconds: the processor time of the steps.
        data_dir: the folder with the files of CIFAR-10.
        seed: the seed of the run.

    Returns:
        A dict with the number of steps, the times and the accuracies.
    """
    settings = {**BASE, **spec["settings"]}
    if "network" in spec:
        blocks, width, settings["stem"] = spec["network"]
        use_network(blocks, width)
    config = replace(load_preset("cifar10-resnet20"), data_dir=data_dir, seed=seed, **settings)
    validate(config)
    images = split_train(catalog.load_dataset("cifar10", data_dir))
    plan = make_plan(config, images)
    speeds = measure_speeds(plan, images)
    mean = sum(size.share * speeds[size.side] for size in plan.view_sizes)
    config = replace(config, steps=max(1, round(seconds / mean)))
    plan = make_plan(config, images)
    warmup = round(plan.steps * spec.get("warmup_share", 0.1))
    plan = dataclasses.replace(plan, warmup_steps=warmup)
    learner = build_learner(plan, 3)
    average = Average(learner.encoder, DECAY)
    before = time.process_time()
    loss = train(plan, images, average, learner)
    spent = time.process_time() - before
    f = learner.encoder
    result: dict[str, Any] = {
        "steps": plan.steps,
        "pairs": plan.steps * plan.batch_size,
        "milliseconds_per_pair": {str(side): 1e3 * value / plan.batch_size for side, value in speeds.items()},
        "processor_seconds": spent,
        "loss": loss,
        "knn": measure_accuracy(f, plan, images),
    }
    result["knn_whole"] = measure_accuracy(encoder.give_other_size(f, WHOLE), plan, images)
    result["knn_two_stages"] = measure_accuracy(show_two_stages(f), plan, images)
    trained = f.get_weights()
    f.set_weights(average.weights)
    result["knn_ema"] = measure_accuracy(f, plan, images)
    f.set_weights(trained)
    renew_statistics(f, images)
    result["knn_renewed_statistics"] = measure_accuracy(f, plan, images)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run one trial, and print its result as JSON."""
    request = json.loads((sys.argv[1:] if arguments is None else arguments)[0])
    if "cores" in request:
        os.sched_setaffinity(0, request["cores"])
    print(json.dumps(run_trial(request, request["seconds"], request["data_dir"], request["seed"])))


if __name__ == "__main__":
    main()
