"""Measures how much accuracy an export with float16 or int8 weights loses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.evaluation.formats.form import Format
from lowlevel_simclr.evaluation.formats.network import Network, prepare_input
from lowlevel_simclr.evaluation.formats.parity import run_elsewhere
from lowlevel_simclr.evaluation.knn import SAMPLE_COUNT, classify_by_neighbours
from lowlevel_simclr.evaluation.represent import compute_h


def measure_accuracy_loss(network: Network, form: Format, folder: Path, weights: str, sample: DataSet | None) -> str:
    """Return a sentence with two accuracies: that of the run's encoder, and that of an exported file.

    Both are accuracies of a 20-nearest-neighbour classifier (20-NN) on the encoder's outputs (h). For the second one,
    the exported file computes h of the training images as well as of the test images, because a program that uses the
    export has only the file.

    Args:
        network: what was exported.
        form: the format.
        folder: the folder with the files.
        weights: the number type of the weights, such as "int8".
        sample: images of both splits with their labels, or None.

    Raises:
        ExportError: if the runtime of the format cannot run the file.
    """
    if sample is None:
        return "The loss of accuracy was not measured, because the images have no labels."
    given = {"train": sample.train.images, "test": sample.test.images}
    size = network.image_size
    if size is not None and any(each.shape[1:3] != (size, size) for each in given.values()):
        return f"The loss of accuracy was not measured, because the images of the run are not {size}x{size} pixels."
    whole = {name: compute_h(network.encoder, images, network.scaling) for name, images in given.items()}
    found = run_elsewhere(form, folder, {name: prepare_input(network, images) for name, images in given.items()})
    rounded = {name: found[f"{name}/h"] for name in given}
    before, after = (_classify(rows, sample) for rows in (whole, rounded))
    return (
        f"20-NN on {len(sample.test.labels)} test images: accuracy {before:.3f} with the encoder of the run, "
        f"{after:.3f} with {weights} weights."
    )


def _classify(rows: dict[str, np.ndarray], sample: DataSet) -> float:
    """Return the accuracy of 20-NN, from rows (n, d) of both splits."""
    found = classify_by_neighbours(rows["train"], sample.train.labels, rows["test"], sample.test.labels, [SAMPLE_COUNT])
    return found[str(SAMPLE_COUNT)]
