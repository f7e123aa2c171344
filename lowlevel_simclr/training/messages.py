"""The lines that a run prints before its first step and after its last step."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from lowlevel_simclr.config.choices import IN_MEMORY
from lowlevel_simclr.config.names import format_count, show_name
from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.evaluation.export import ENCODER_FILE
from lowlevel_simclr.evaluation.starting_encoder import describe_start
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.platform_ops import describe_platform, expects_library
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.loss import LOSS_FACTORS
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.workers import Workers

SHAPES_NEXT = """\
What to try next:
  real images      python -m lowlevel_simclr.train --dataset cifar10 --data-dir DIR
  another seed     python -m lowlevel_simclr.train --seed {seed}
  evaluate again   python -m lowlevel_simclr.evaluate {folder}
  your settings    python -m lowlevel_simclr.train --help"""
OTHER_NEXT = """\
What to try next:
  train longer     {longer}
  evaluate again   python -m lowlevel_simclr.evaluate {folder}"""
# Without labels there is no accuracy. Nearest neighbours show what the encoder has learned.
UNLABELLED_NEXT = """\
What to try next:
  look             plots/neighbours.png: do the images in a row belong together?
  represent        python -m lowlevel_simclr.embed {folder} IMAGES --out h.npz
  measure          docs/no-labels.md: what can be measured without labels
  train longer     {longer}"""


def print_start(plan: Plan, run: Run, images: DataSet, learner: Learner, first_step: int, workers: Workers) -> None:
    """Print the run, the data, the encoder, the projection head, the loss and the device before the first step."""
    if not workers.chief:
        print(f"worker               {workers.rank} of {workers.count} (worker 0 writes the run folder)")
        return
    state = f"resumes at step {first_step}" if first_step else "starts at step 0"
    count = len(catalog.select_training_images(images, plan.train_on))
    f, g, model = learner.encoder, learner.projection, plan.model
    widths, norm = " and ".join(map(str, model.projection_widths)), model.projection_batch_norm
    norm = "" if norm == "none" else f", BatchNorm ({norm})"
    print(f"run                  {show_name(run.folder)}: {state} of {plan.steps}, {plan.batch_size} images per step")
    names = format_count(len(images.classes), "class", "classes")
    classes = f"{names} (labels unused)" if images.classes else "no labels"
    print(f"data                 {show_name(plan.dataset)}: {count:,} images to train on, {classes}")
    print_reading(plan, images)
    purpose = f"turns an image into a representation (h) of {f.output_shape[-1]} numbers"
    stem = f"{model.stem} stem, for {'large' if model.stem == 'imagenet' else 'small'} images"
    print(f"encoder (f)          {model.encoder} ({stem}), {keras.count_trainable(f):,} parameters")
    print(f"                     {purpose}")
    start = "" if first_step else describe_start(model.weights)
    if start:
        print(f"starts from          {show_name(start)}")
    print(f"projection head (g)  layers of {widths} units{norm}, {keras.count_trainable(g):,} parameters")
    print("                     turns h into the projection (z) that the loss compares; only training needs it")
    factor = LOSS_FACTORS[plan.loss_reduction]
    loss = f"{'' if factor == 1 else f'{factor:g} x '}the mean over both views of every image"
    print(f"loss                 NT-Xent, temperature (tau) {plan.temperature:g}, {loss}")
    if plan.replicas > 1 or plan.micro_batches > 1:
        shares = f"{plan.replicas} replicas on {plan.workers} workers, {plan.micro_batches} micro-batches per step"
        print(f"replicas             {shares}, {plan.batch_norm} BatchNorm")
    if plan.warmup_steps > plan.steps:
        reached = plan.learning_rate * plan.steps / plan.warmup_steps
        text = f"longer than the run ({plan.warmup_steps} steps): the learning rate only rises to {reached:.3g}"
        print(f"warm-up              {text}")
    device = tf.DeviceSpec.from_string(keras.unwrap_variable(f.weights[0]).device).device_type
    compiled = "the step" if plan.jit_compile else "the views" if plan.jit_compile_views else ""
    xla = f"XLA compiles {compiled}" if compiled else "no XLA"
    ops = describe_ops(plan.implementation.name)
    print(f"device               {device}, {plan.precision} numbers, {ops}, {xla}, TensorFlow {tf.__version__}")


def describe_ops(name: str) -> str:
    """Return a description of the ops of a run. If this platform has only stock ops, the description says why.

    Args:
        name: "native" or "stock".
    """
    if name == "native":
        return "native ops (this package's kernels)"
    why = "" if expects_library() else f", because there is no native library for {describe_platform()}"
    return f"stock ops (TensorFlow's{why})"


def print_before_steps(workers: Workers, with_knn: bool) -> None:
    """Print the meaning of the numbers in the progress, and that the first step takes longer than the others.

    Args:
        workers: the workers (processes) of the run. Only the chief (worker 0) prints.
        with_knn: whether k-NN is measured while training.
    """
    if not workers.chief:
        return
    print("progress             loss: must fall below chance, the loss of an encoder that cannot tell images apart")
    print("                     top-1: the share of views that find the other view of their image in the batch")
    if with_knn:
        print(
            "                     k-NN: how often the most similar training images tell the class of a held-out image"
        )
    print("compiling            before the first step, TensorFlow compiles it, which can take a minute ...", flush=True)


def print_reading(plan: Plan, images: DataSet) -> None:
    """Print how the images are stored, and which of them are left out."""
    record = catalog.describe_dataset(images)
    channels = record["shape"][2]
    streamed = catalog.describe_streaming(images)
    resident = ", kept on the device" if plan.data_on == "device" else ""
    colours = {1: "grey", 3: "in colour"}.get(channels, f"{channels} channels")
    print(f"                     stored as {_describe_size(record)}, {colours}{streamed}{resident}")
    if record["skipped"]:
        count, first = len(record["skipped"]), record["skipped"][0]
        which = show_name(f"{first['path']} ({first['reason']})")
        print(f"                     skipped {format_count(count, 'image')}, see data.json; first {which}")
    for line in list_left_out(record):
        print(f"                     {show_name(line)}")
    if plan.train_on == "all":
        print("                     trained on train and test images together, which inflates the results")


def _describe_size(record: Mapping[str, Any]) -> str:
    """Return the size of the stored images, from data.json."""
    height, width, _ = record["shape"]
    frames = record.get("frames")
    if not frames:
        return f"{height}x{width} pixels"
    height, width = frames["canvas"]
    return f"{height}x{width} pixels at most, each in its own aspect"


def list_left_out(record: Mapping[str, Any]) -> list[str]:
    """Return a line about the folders of the splits, and lines about images that are not used or not evaluated.

    Args:
        record: the content of data.json.
    """
    lines, splits, counts = [], record.get("splits") or {}, record["counts"]
    if splits:
        held = " ".join(splits["test"]) or "a tenth of them, drawn by the seed"
        lines.append(f"trains on {' '.join(splits['train'])}, holds out {held}")
    if counts.get("outside_splits"):
        where = " ".join(splits.get("unused", ()))
        lines.append(f"ignores {format_count(counts['outside_splits'], 'image')} outside these folders, in {where}")
    if record.get("left_out"):
        first = record["left_out"][0]
        lines.append(f"left out {len(record['left_out'])}, see data.json; first {first['path']} ({first['reason']})")
    if record.get("unlabelled"):
        count, first = len(record["unlabelled"]), record["unlabelled"][0]
        lines.append(f"{format_count(count, 'image')} without a label, not evaluated, see data.json; first {first}")
    return lines


def print_results(plan: Plan, run: Run, labelled: bool = True) -> None:
    """Print where the results are, and what to try next. The advice depends on whether the images have labels."""
    print(f"pictures          {show_name(run.plots)}: views, learning curves, a map of h, nearest neighbours")
    print(f"trained encoder   {show_name(run.folder / ENCODER_FILE)}, which Keras loads without this package")
    text = OTHER_NEXT if labelled else UNLABELLED_NEXT
    text = SHAPES_NEXT if plan.dataset == "shapes" else text
    longer = show_name(write_longer(run.folder, plan.dataset))
    print(text.format(folder=show_name(run.folder), longer=longer, seed=plan.seed + 1))


def write_longer(folder: Path, dataset: str) -> str:
    """Return the command that trains the encoder of a run for as long again, or a Python call for images in memory.

    Args:
        folder: the run folder.
        dataset: the name of the data set.
    """
    # --weights reads a word without a slash or a dot as a name such as "random", and a word with a leading dash as a
    # flag.
    name = str(folder) if "/" in str(folder) and not str(folder).startswith("-") else f"./{folder}"
    config, out = f"{name}/config.json", f"{name}-longer"
    if dataset.startswith(IN_MEMORY):
        return f"lowlevel_simclr.train(images, {out!r}, config={config!r}, weights={name!r})"
    words = ["python", "-m", "lowlevel_simclr.train", "--config", config, "--weights", name, "--out", out]
    return shlex.join(words)
