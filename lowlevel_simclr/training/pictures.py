"""Draws the pictures of a run: views, learning curves, a map of the encoder's outputs (h), and nearest neighbours."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.catalog import select_training_images, select_training_labels
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.framed_images import FramedImages
from lowlevel_simclr.data.transform import UNSCALED
from lowlevel_simclr.evaluation import knn
from lowlevel_simclr.evaluation.drawing import import_drawing
from lowlevel_simclr.evaluation.report.kept import KEPT, ReportMap, keep_for_report
from lowlevel_simclr.evaluation.represent import Represented
from lowlevel_simclr.evaluation.turns import choose_in_turn
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import read_metrics
from lowlevel_simclr.training.loop import make_views
from lowlevel_simclr.training.loss import compute_chance_loss
from lowlevel_simclr.training.plan import Plan

PREVIEWED = 10  # images in views.png: one of each class if there are ten classes
QUERIES = 10  # test images in neighbours.png: one of each class if there are ten classes
MAPPED = 1000  # test images in each map of h in embedding.png


def draw_views(plan: Plan, images: DataSet, path: Path) -> int:
    """Draw views.png: training images of each class in turn, with their views in epoch 0.

    Return the number of images.
    """
    trained_on = select_training_images(images, plan.train_on)
    labels = select_training_labels(images, plan.train_on)
    index = choose_in_turn(labels, PREVIEWED)
    framed = isinstance(trained_on, FramedImages)
    canvases = trained_on.canvases[index] if framed else trained_on[index]
    sizes = [tf.constant(trained_on.sizes[index])] if framed else []
    originals = trained_on.cut_frames(index) if framed else canvases
    views = make_views(dataclasses.replace(plan, precision="float32", scaling=UNSCALED))
    made = views(tf.constant(0, tf.int64), tf.constant(index, tf.int64), tf.constant(canvases), *sizes).numpy()
    names = [images.classes[label] if 0 <= label < len(images.classes) else "" for label in labels[index]]
    import_drawing("plots").plot_views(path, originals, made[: len(index)], made[len(index) :], names)
    return len(index)


def draw_results(
    plan: Plan,
    run: Run,
    images: DataSet,
    h: Represented,
    h_untrained: np.ndarray | None,
    baselines: dict[str, float],
    step: int,
) -> None:
    """Draw learning.png, embedding.png and neighbours.png, and write the file that only the report needs.

    If a picture cannot be drawn or written, a warning names it, and the run continues.

    Args:
        plan: the plan of the run.
        run: the run whose folder holds the pictures.
        images: the data set of the run.
        h: the outputs of the trained encoder.
        h_untrained: (MAPPED, d) or fewer, the outputs of the untrained encoder for the first test images, or None if
            the untrained encoder cannot be built.
        baselines: a dict from names to k-NN accuracies in [0, 1]. They are drawn as lines beside the k-NN curve.
        step: the number of steps that the encoder was trained. TensorBoard shows the pictures at this step.
    """
    test, folder, some = images.test, run.plots, slice(0, MAPPED)

    chance = compute_chance_loss(plan.batch_size, plan.loss_reduction)
    points: dict[str, np.ndarray] = {}

    def draw_learning(path: Path) -> None:
        import_drawing("plots").plot_learning(path, read_metrics(run.folder), chance, baselines)

    def draw_embedding(path: Path) -> None:
        kinds = {"untrained": h_untrained, "trained": h.test[some]}
        maps = {name: rows for name, rows in kinds.items() if rows is not None}
        points.update(import_drawing("plots").plot_embedding(path, maps, test.labels[some], images.classes, plan.seed))

    def draw_neighbours(path: Path) -> None:
        found = knn.find_neighbours(h, QUERIES, 5, test.labels)
        import_drawing("plots").plot_neighbours(
            path,
            test.images[found.queries],
            images.train.images[found.neighbours],
            test.labels[found.queries],
            images.train.labels[found.neighbours],
            images.classes,
        )

    draw_or_name(folder / "learning.png", draw_learning)
    draw_or_name(folder / "embedding.png", draw_embedding)
    draw_or_name(folder / "neighbours.png", draw_neighbours)

    def keep(path: Path) -> None:
        shown = test.images[np.arange(min(MAPPED, len(test.images)))] if points else np.zeros((0, 1, 1, 3), np.uint8)
        mapped = ReportMap(points.get("trained"), shown, test.labels[some], images.classes)
        keep_for_report(path, chance, baselines, mapped)

    draw_or_name(folder / KEPT, keep)
    for name in ("embedding.png", "neighbours.png"):
        draw_or_name(folder / name, lambda path: run.log_picture(path, step))


def draw_or_name(path: Path, draw: Callable[[Path], object]) -> None:
    """Draw a picture. If that fails, only print a warning with the reason, because a picture must never end a run.

    Args:
        path: the picture.
        draw: the function that draws it and writes it to the path.
    """
    try:
        draw(path)
    except Exception as error:  # noqa: BLE001, a mistake in a picture must not end the run
        named = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        reason = getattr(error, "strerror", None) or named
        what = f"{show_name(path)} could not be drawn ({show_name(reason)})"
        print(f"warning: {what}. The run continues without it.", file=sys.stderr)
