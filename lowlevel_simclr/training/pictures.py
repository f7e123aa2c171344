"""The pictures of a run: its views, its learning curves, the map of its representations and their neighbours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.transform import UNSCALED
from lowlevel_simclr.evaluation import knn, plots
from lowlevel_simclr.evaluation.represent import Represented
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import read_metrics
from lowlevel_simclr.training.loop import make_views
from lowlevel_simclr.training.loss import compute_chance_loss
from lowlevel_simclr.training.plan import Plan

PREVIEWED = 8  # images in views.png
QUERIES = 10  # test images in neighbours.png: one of each class if there are ten classes
MAPPED = 1000  # test images in each map of embedding.png


def draw_views(plan: Plan, images: DataSet, path: Path) -> None:
    """Draw views.png: the first training images, each with its two views of epoch 0."""
    index = np.arange(PREVIEWED)
    originals = select_training_images(images, plan.train_on)[index]
    views = make_views(dataclasses.replace(plan, precision="float32", scaling=UNSCALED))
    made = views(tf.constant(0, tf.int64), tf.constant(index, tf.int64), tf.constant(originals)).numpy()
    plots.plot_views(path, originals, made[:PREVIEWED], made[PREVIEWED:])


def draw_results(
    plan: Plan, run: Run, images: DataSet, h: Represented, h_untrained: Represented, baselines: dict[str, float]
) -> None:
    """Draw learning.png, embedding.png and neighbours.png.

    Args:
        plan: the plan of the run.
        run: the run whose folder holds the pictures.
        images: the data set of the run.
        h: the representations by the trained encoder.
        h_untrained: the representations by the untrained encoder.
        baselines: k-NN accuracies in [0, 1], by name, to draw beside the curve of k-NN.
    """
    test, folder = images.test, run.plots
    chance = compute_chance_loss(plan.batch_size, plan.loss_reduction)
    plots.plot_learning(folder / "learning.png", read_metrics(run.folder), chance, baselines)
    some = slice(0, MAPPED)
    plots.plot_embedding(
        folder / "embedding.png", h_untrained.test[some], h.test[some], test.labels[some], images.classes, plan.seed
    )
    found = knn.find_neighbours(h, QUERIES, 5, test.labels)
    plots.plot_neighbours(
        folder / "neighbours.png",
        test.images[found.queries],
        images.train.images[found.neighbours],
        test.labels[found.queries],
        images.train.labels[found.neighbours],
        images.classes,
    )
