"""Measures of h (representation) and z (projection) that need no labels, on random views of held-out images.

The module `reference/checkup.py` computes the same measures by the formulas of the papers. This module uses matrix
products instead. So a check-up (measuring h and z during training) takes a fraction of a second.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.views import Views

SAMPLE = 512  # held-out images of a check-up; h and z then have 1024 rows
DRAW = 1  # used with the run's seed, so that these images are drawn differently from those for k-NN
VIEWS_AT_ONCE = 128  # images whose views go through the encoder at once
SMALLEST = 3e-7  # smallest counted singular value / largest one; float32 rows have rounding errors of 1e-7


@dataclasses.dataclass(frozen=True)
class Sample:
    """The held-out images that every check-up of a run measures, always with the same random augmentations (views).

    Attributes:
        images: (n, H, W, C) uint8.
        index: (n,) int64, a number for each image, from which its views are drawn. No training image has such a number.
    """

    images: np.ndarray
    index: np.ndarray


class Projected(NamedTuple):
    """Both views of n images, first views then second views, float32.

    Attributes:
        h: (2n, d) representations, in inference mode.
        z: (2n, d') projections, in inference mode.
    """

    h: np.ndarray
    z: np.ndarray


def count_sample(images: DataSet, most: int = SAMPLE) -> int:
    """Return the number of images that `draw_sample` draws, or 0 if the test split has fewer than two.

    Args:
        images: the data set of the run.
        most: the largest number of images.
    """
    held_out = len(images.test.labels)
    return min(most, held_out) if held_out > 1 else 0


def draw_sample(images: DataSet, seed: int, most: int = SAMPLE) -> Sample | None:
    """Return some images of the test split, or None if it has fewer than two.

    Args:
        images: the data set of the run. Labels are not used.
        seed: the seed of the run.
        most: the number of images to draw. If there are fewer, all are taken.
    """
    count, held_out, trained_on = count_sample(images, most), len(images.test.labels), len(images.train.labels)
    if count == 0:
        return None
    rows = np.sort(np.random.default_rng([seed, DRAW]).choice(held_out, count, replace=False))
    # With --train-on all, the run also trains on the test images, and they have the numbers from `trained_on` on.
    return Sample(np.asarray(images.test.images[rows]), trained_on + held_out + rows)


def project_views(encoder: tf.keras.Model, projection: tf.keras.Model, views: Views, sample: Sample) -> Projected:
    """Return h and z of both views of each image. The views are those of epoch 0, so they are always the same.

    Args:
        encoder: the encoder f.
        projection: the projection head g.
        views: the function (epoch, index, images) -> views (2N, S, S, C), see `compile_views`.
        sample: n images.
    """
    count = len(sample.index)
    at_once = min(VIEWS_AT_ONCE, count)
    parts = []
    for first in range(0, count, at_once):
        rows = np.arange(first, first + at_once) % count  # fills up the last batch, so that all batches use one graph
        x = views(tf.constant(0, tf.int64), tf.constant(sample.index[rows]), tf.constant(sample.images[rows]))
        parts.append([part.numpy() for part in _project(encoder, projection, x)])
    h, z = (np.stack(each) for each in zip(*parts))  # (batches, 2 at_once, d)
    return Projected(_order_views(h, count), _order_views(z, count))


@tf.function(autograph=False)
def _project(encoder: tf.keras.Model, projection: tf.keras.Model, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return h (B, d) and z (B, d') of views (B, S, S, C), float32, in inference mode."""
    h = encoder(x, training=False)
    return tf.cast(h, tf.float32), tf.cast(projection(h, training=False), tf.float32)


def _order_views(parts: np.ndarray, count: int) -> np.ndarray:
    """Reorder the rows of all batches (batches, 2b, d): all first views, and then all second views, (2 count, d)."""
    pairs = parts.reshape(len(parts), 2, -1, parts.shape[-1])  # (batches, 2, b, d)
    return np.concatenate([pairs[:, view].reshape(-1, parts.shape[-1])[:count] for view in range(2)])


def measure_views(projected: Projected) -> dict[str, float]:
    """Return a dict with the measures of h and z. The keys are the names in `run.checkup.MEASURES`.

    If h or z has a NaN or infinite number, all measures are NaN.

    Args:
        projected: h and z of both views of n images, n >= 2.
    """
    if not all(np.isfinite(rows).all() for rows in projected):
        return dict.fromkeys(("alignment", "uniformity", "rank_h", "rank_z", "std_z", "dead_h"), math.nan)
    u = _normalise(projected.z)  # (2n, d')
    first, second = np.split(u, 2)
    return {
        "alignment": float(((first - second) ** 2).sum(axis=1).mean()),
        "uniformity": (compute_uniformity(first) + compute_uniformity(second)) / 2,
        "rank_h": compute_effective_rank(projected.h),
        "rank_z": compute_effective_rank(projected.z),
        "std_z": float(u.std(axis=0).mean()),
        "dead_h": float((~projected.h.any(axis=0)).mean()),
    }


def compute_uniformity(u: np.ndarray) -> float:
    """Return log of the mean over i < j of exp(-2 |u_i - u_j|^2) (Wang and Isola 2020, L_uniform, t = 2), in [-8, 0].

    Args:
        u: (n, d) float64, normalised projections of one view of each image, n >= 2.
    """
    products = u @ u.T  # (n, n)
    squares = np.diag(products)
    distances = np.maximum(squares[:, None] + squares - 2 * products, 0)
    return float(np.log(np.exp(-2 * distances[np.triu_indices(len(u), 1)]).mean()))


def compute_effective_rank(rows: np.ndarray) -> float:
    """Return the effective rank of rows (n, d) (RankMe, Garrido et al. 2023): exp of the entropy of s / sum(s).

    s are the singular values. They are computed as the square roots of the eigenvalues of the smaller of rows^T rows
    and rows rows^T. Values below SMALLEST times the largest are left out, because they are only rounding errors.

    Args:
        rows: (n, d), not centred.

    Returns:
        A number between 1 and min(n, d), or 0 if all rows are zero.
    """
    matrix = np.asarray(rows, np.float64)
    largest = np.abs(matrix).max()
    if largest == 0:
        return 0.0
    matrix = matrix / largest
    products = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(products), 0))
    singular = singular[singular > SMALLEST * singular.max()]
    p = singular / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _normalise(z: np.ndarray) -> np.ndarray:
    """Return the rows of z (n, d) with length 1, float64. A row of zeros stays zero."""
    z = np.asarray(z, np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", z, z))[:, None]
    return z / np.where(length == 0, 1, length)
