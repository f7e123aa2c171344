"""Checks that an exported file computes the same outputs as the networks of the run.

The format's own runtime, such as onnxruntime, runs the file in a process that cannot import this package.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowlevel_simclr.evaluation.formats.form import ExportError, Format
from lowlevel_simclr.evaluation.formats.network import Network, compute_reference, prepare_input

COUNT = 64  # images whose outputs are compared
# The largest accepted difference of an output, relative to its largest entry, for each number type of the weights. With
# float32 weights, only rounding differs. A float16 weight is rounded by up to 2^-11, and the fifty layers of a
# ResNet-50 add up such errors as a random walk: 2^-11 x sqrt(50) = 0.0035. An int8 weight is rounded by up to 1/254 of
# the largest weight in its channel, and the inputs of each layer are rounded as well.
BOUNDS = {"float32": 1e-5, "float16": 5e-3, "int8": 0.1}

BEGINNING = """
import sys
sys.modules["lowlevel_simclr"] = None  # the files must not need this package
import numpy as np
"""
END = """
given = np.load(sys.argv[2])
found = {name: represent(given[name]) for name in given.files}
np.savez(sys.argv[3], **{f"{name}/{output}": rows for name in found for output, rows in found[name].items()})
"""


class Parity(NamedTuple):
    """How much the outputs of the file differ from those of the run's networks.

    Attributes:
        largest: the largest difference of each output, relative to the largest entry of the output.
        bound: the largest difference that is accepted.
        sizes: height and width of the compared images, in pixels.
    """

    largest: dict[str, float]
    bound: float
    sizes: list[tuple[int, int]]

    def describe(self) -> str:
        """Return the differences and the bound as one line of text."""
        values = ", ".join(f"{name}: {value:.1e}" for name, value in self.largest.items())
        sizes = " and ".join(f"{width}x{height}" for height, width in self.sizes)
        return (
            f"largest difference on {COUNT} images ({sizes} pixels), relative to the largest entry: {values} "
            f"(bound {self.bound:g})"
        )


def measure_parity(network: Network, form: Format, folder: Path, weights: str) -> Parity:
    """Compare the outputs of the exported files with those of the run's networks, on images from `draw_images`.

    Args:
        network: what was exported.
        form: the format.
        folder: the folder with the files.
        weights: the number type of the weights. The bound on the difference depends on it.

    Raises:
        ExportError: if the difference is above the bound, or if the format's runtime cannot run the file.
    """
    images = draw_images(network)
    given = {name: prepare_input(network, each) for name, each in images.items()}
    found = run_elsewhere(form, folder, given)
    expected = {name: compute_reference(network, each) for name, each in images.items()}
    largest = {
        output: _compare(
            np.concatenate([found[f"{name}/{output}"] for name in images]),
            np.concatenate([expected[name][output] for name in images]),
        )
        for output in network.output_names
    }
    parity = Parity(largest, BOUNDS[weights], [each.shape[1:3] for each in images.values()])
    if not max(largest.values()) <= parity.bound:
        raise ExportError(
            f"The {form.title} file does not give the h of the run: {parity.describe()}. Nothing was written. Report "
            "this, with the versions of the format's packages."
        )
    return parity


def draw_images(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw 64 images of coloured squares with noise.

    All images have the size that the file takes. If it takes any size, they have two different sizes.

    Returns:
        A dict from a name, such as "images0", to an array (n, H, W, C) uint8.
    """
    size = network.encoder.input_shape[1]
    given = network.image_size
    sizes = [(given, given)] if given else [(size, size), (size + size // 3 + 1, 2 * size + 1)]
    random = np.random.default_rng(seed)
    counts = [COUNT - COUNT // 4 * (len(sizes) - 1), COUNT // 4]
    return {
        f"images{place}": _draw(random, (count, *shape, network.encoder.input_shape[-1]))
        for place, (count, shape) in enumerate(zip(counts, sizes))
    }


def _draw(random: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Draw images (n, H, W, C) uint8 that consist of squares of 5x5 pixels, with noise."""
    count, height, width, channels = shape
    squares = random.integers(0, 256, (count, height // 5 + 1, width // 5 + 1, channels))
    pixels = squares.repeat(5, axis=1).repeat(5, axis=2)[:, :height, :width]
    return np.clip(pixels + random.normal(0, 10, shape), 0, 255).astype(np.uint8)


def run_elsewhere(form: Format, folder: Path, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run the exported files on some arrays, in a process that cannot import this package, and return the outputs.

    Args:
        form: the format.
        folder: the folder with the files.
        given: a dict from names to arrays.

    Returns:
        A dict from "name/output", such as "images0/h", to the outputs.

    Raises:
        ExportError: if the process fails. The message contains the last line of its error output.
    """
    program = BEGINNING + form.reader + END
    with tempfile.TemporaryDirectory() as place:
        arrays: dict[str, Any] = dict(given)  # otherwise NumPy's type hints mistake a name for allow_pickle
        np.savez(Path(place, "given.npz"), **arrays)
        command = [sys.executable, "-c", program, str(folder.absolute()), "given.npz", "found.npz"]
        # The process gets no GPU, because a GPU may round the inputs of matrix products to fewer bits than float32 has.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise ExportError(
                f"The runtime of {form.title} cannot use the file that was written (exit code {done.returncode}): "
                f"{last[:300]}. Nothing was written. Report this, with the versions of the format's packages."
            )
        with np.load(Path(place, "found.npz")) as found:
            return {name: found[name] for name in found.files}


def _compare(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest entry. It is infinite if the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())
