"""The lines that a run prints before its first step and after its last step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.evaluation import summary
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.loss import LOSS_FACTORS
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.workers import Workers

SHAPES_NEXT = """\
What to try next:
  real images      python -m lowlevel_simclr.train --dataset cifar10 --data-dir DIR
  another seed     python -m lowlevel_simclr.train --seed 1
  evaluate again   python -m lowlevel_simclr.evaluate {folder}
  your settings    python -m lowlevel_simclr.train --help"""
OTHER_NEXT = """\
What to try next:
  train longer     the same command with --epochs {epochs} and another --out
  evaluate again   python -m lowlevel_simclr.evaluate {folder}"""


def print_start(plan: Plan, run: Run, images: DataSet, learner: Learner, first_step: int, workers: Workers) -> None:
    """Print the run, the data, the encoder, the projection head, the loss and the device before the first step."""
    if not workers.chief:
        print(f"worker   {workers.rank} of {workers.count}: worker 0 keeps the run folder")
        return
    state = f"resumes at step {first_step}" if first_step else "starts"
    count = len(catalog.select_training_images(images, plan.train_on))
    f, g, model = learner.encoder, learner.projection, plan.model
    widths, norm = "-".join(map(str, model.projection_widths)), model.projection_batch_norm
    norm = "" if norm == "none" else f", BatchNorm ({norm})"
    print(f"run      {run.folder} {state} of {plan.steps} steps of {plan.batch_size} images")
    print(f"data     {plan.dataset}: {count} images, {len(images.classes)} classes (labels unused)")
    print_reading(plan, images)
    print(f"f        {model.encoder}, {model.stem} stem: {keras.count_trainable(f):,} parameters")
    print(f"g        {widths}{norm}: {keras.count_trainable(g):,} parameters")
    factor = LOSS_FACTORS[plan.loss_reduction]
    print(f"loss     NT-Xent, tau {plan.temperature:g}, {factor:g} x the mean over the 2N views")
    compiled = "the step" if plan.jit_compile else "the views" if plan.jit_compile_views else "nothing"
    if plan.replicas > 1 or plan.micro_batches > 1:
        shares = f"{plan.replicas} replicas in {plan.workers} workers, {plan.micro_batches} micro-batches a step"
        print(f"replicas {shares}, BatchNorm {plan.batch_norm}")
    print(f"device   {plan.precision}, XLA for {compiled}, {plan.implementation.name} ops, TensorFlow {tf.__version__}")


def print_reading(plan: Plan, images: DataSet) -> None:
    """Print how the images are stored, and which of them are left out."""
    record = catalog.describe_dataset(images)
    height, width, channels = record["shape"]
    streamed = ", decoded as they are needed" if catalog.is_streamed(images) else ""
    resident = ", on the device" if plan.data_on == "device" else ""
    print(f"         stored as {height}x{width} pixels, {channels} channels{streamed}{resident}")
    if record["skipped"]:
        first = record["skipped"][0]
        print(f"         {len(record['skipped'])} left out, see data.json; first {first['path']} ({first['reason']})")
    if record["counts"].get("outside_splits"):
        print(f"         {record['counts']['outside_splits']} images lie outside train/ and test/ and are not used")
    if plan.train_on == "all":
        print("         trained on train and test images together, which inflates the results")


def print_results(plan: Plan, run: Run, evaluation: dict[str, Any]) -> None:
    """Print the table of results, and what to try next."""
    print(summary.format_table(evaluation))
    print(f"pictures: {run.plots}")
    text = SHAPES_NEXT if plan.dataset == "shapes" else OTHER_NEXT
    print(text.format(folder=run.folder, epochs=5 * plan.epochs))
