"""The k-nearest-neighbour (k-NN) classifier on the outputs of a frozen encoder, and the search for nearest images."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.dataset import DataSet, Split, find_labelled, has_labels
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling
from lowlevel_simclr.evaluation.represent import BATCH_SIZE, Represented, compute_h, list_splits, represent_pixels
from lowlevel_simclr.evaluation.turns import choose_in_turn
from lowlevel_simclr.runtime.block_pool import open_block_pool, split_rows
from lowlevel_simclr.runtime.progress_bar import open_bar

KNN_COUNTS = (20, 200)
KNN_TEMPERATURE = 0.07  # Wu et al. 2018, section 3.4
SAMPLE_COUNT = 20  # k on the sample of `draw_knn_sample`, which is too small for k = 200
_VOTES_AT_ONCE = 2**22  # 32 MiB of float64
_SIMILARITIES_AT_ONCE = 2**24  # 64 MiB of float32 in each thread


class Neighbours(NamedTuple):
    """Some test images. For each, the train images whose encoder outputs (h) are most similar to the h of this image.

    Attributes:
        queries: (q,) indices of test images.
        neighbours: (q, k) indices of train images, nearest first.
    """

    queries: np.ndarray
    neighbours: np.ndarray


def classify_by_neighbours(
    train_h: np.ndarray,
    train_labels: np.ndarray,
    test_h: np.ndarray,
    test_labels: np.ndarray,
    counts: Iterable[int] = KNN_COUNTS,
    title: str = "",
) -> dict[str, float]:
    """Return the accuracy of the k-NN classifier with cosine weights (Wu et al. 2018, section 3.4).

    The k train rows with the largest cosine similarity to a test row vote for their labels. Each vote has the weight
    exp(similarity / 0.07). If the train split has fewer than k rows, all of them vote.

    Args:
        train_h: (n, d) float.
        train_labels: (n,) class numbers from 0.
        test_h: (m, d) float.
        test_labels: (m,) class numbers from 0.
        counts: the values of k.
        title: shown with the progress. Without it, no progress is shown.

    Returns:
        The accuracy in [0, 1] for each k, with k as text: {"20": 0.93, ...}.

    Example:
        >>> train_h, test_h = np.eye(2, dtype=np.float32), np.array([[2, 1], [1, 3]], np.float32)
        >>> classify_by_neighbours(train_h, np.array([0, 1]), test_h, np.array([0, 1]), counts=[1])
        {'1': 1.0}
    """
    counts = tuple(counts)
    index, similarity = _find_nearest(train_h, test_h, max(counts), title)  # (m, k), (m, k)
    labels, weights = train_labels[index], np.exp(similarity / KNN_TEMPERATURE)
    return {str(count): _vote(labels[:, :count], weights[:, :count], test_labels) for count in counts}


def _vote(labels: np.ndarray, weights: np.ndarray, wanted: np.ndarray) -> float:
    """Return the accuracy: the share of the m test rows whose right class gets the largest sum of votes.

    `labels` (m, k) and `weights` (m, k) are the votes, and `wanted` (m,) holds the right classes. The function works in
    parts, because the (m, classes) sums of votes do not fit into memory if every image has its own label.
    """
    classes = int(labels.max()) + 1
    at_once = max(1, _VOTES_AT_ONCE // classes)
    right = 0
    for first in range(0, len(wanted), at_once):
        part = slice(first, first + at_once)
        votes = np.zeros((len(labels[part]), classes))
        np.add.at(votes, (np.arange(len(votes))[:, None], labels[part]), weights[part])
        right += int((votes.argmax(axis=1) == wanted[part]).sum())
    return right / len(wanted)


def _find_nearest(
    train_h: np.ndarray, test_h: np.ndarray, count: int, title: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Return the train rows most similar to each test row, nearest first: their numbers (m, k) and cosine similarities.

    The similarities are (m, k) float64. k is `count`, or n if n is smaller. Of equal similarities, the train row with
    the lower number comes first. The function works in blocks of test rows, because all (m, n) similarities do not fit
    into memory. The processor cores share the blocks.
    """
    train_rows, test_rows = _normalise_rows(train_h), _normalise_rows(test_h)
    count = min(count, len(train_rows))
    blocks = split_rows(len(test_rows), max(1, _SIMILARITIES_AT_ONCE // len(train_rows)))

    # Each thread keeps its memory for the next block. Allocating new memory would take a tenth of the whole time.
    memory = threading.local()

    def find(block: slice) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(memory, "similarity"):
            memory.similarity = np.empty((blocks[0].stop, len(train_rows)), np.float32)
        similarity = memory.similarity[: block.stop - block.start]
        return _select_most_similar(np.matmul(test_rows[block], train_rows.T, out=similarity), count)

    parts = []
    with open_bar(title, len(test_rows), "images") as bar, open_block_pool() as pool:
        for block, found in zip(blocks, pool.map(find, blocks)):
            parts.append(found)
            bar.update(block.stop - block.start)
    index, similarity = (np.concatenate(column) for column in zip(*parts))
    return index, similarity.astype(np.float64)


def _select_most_similar(similarity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns and the values of the `count` largest entries of each row, largest first.

    `np.argpartition` of whole rows takes longer than the matrix product that computes them. So for every row, the
    function first finds a bound that at least `count` entries reach. Then it searches only the few entries that reach
    the bound.
    """
    bounds = _bound_from_below(similarity, count)
    index = np.stack([_select_columns(row, bound, count) for row, bound in zip(similarity, bounds)])
    return index, np.take_along_axis(similarity, index, axis=1)


def _bound_from_below(similarity: np.ndarray, count: int) -> np.ndarray:
    """Return a bound (m,) for each row: at least `count` of the n entries of the row reach it.

    The function takes every s-th entry of the row. The bound is the `count`-th largest of these n / s entries. About
    `count` x s entries of the whole row reach it. With s = sqrt(n / count), these two numbers of entries are equal.
    """
    part = similarity[:, :: max(1, int(np.sqrt(similarity.shape[1] / count)))]
    return np.partition(part, -count, axis=1)[:, -count]


def _select_columns(row: np.ndarray, bound: float, count: int) -> np.ndarray:
    """Return the columns (count,) of the largest entries of a row (n,).

    At least `count` entries must reach the bound.
    """
    columns = np.flatnonzero(row >= bound)
    values = row[columns]
    columns = columns[values >= np.partition(values, -count)[-count]]
    return columns[np.argsort(-row[columns], kind="stable")[:count]]


def _normalise_rows(h: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length 1, float32.

    A row of zeros stays zero. A row with NaN or infinite numbers becomes zero. So the similarity of such a row to any
    other row is 0.
    """
    norm = np.sqrt(np.einsum("nd,nd->n", h, h, dtype=np.float64))[:, None]
    with np.errstate(invalid="ignore"):
        rows = np.divide(h, np.where(norm == 0, 1, norm), out=np.empty(h.shape, np.float32), casting="same_kind")
    rows[~np.isfinite(norm[:, 0])] = 0
    return rows


def draw_knn_sample(images: DataSet, seed: int, train_count: int = 2000, test_count: int = 1000) -> DataSet | None:
    """Return a small part of both splits, on which k-NN is quick, or None if the data set has no labels to classify.

    The sample is only used for the curve of the k-NN accuracy during training. The reported results always come from
    the end of the run, even if the curve was higher earlier.

    Args:
        images: the data set of the run.
        seed: the seed of the draw.
        train_count: the number of train images in the sample. If there are fewer, all are taken.
        test_count: the number of test images in the sample. If there are fewer, all are taken.
    """
    random = np.random.default_rng(seed)

    def draw_part(split: Split, count: int) -> Split:
        labelled = find_labelled(split)
        rows = np.sort(random.choice(labelled, min(count, len(labelled)), replace=False))
        return Split(split.images[rows], split.labels[rows])

    if not has_labels(images):
        return None
    sample = dataclasses.replace(
        images, train=draw_part(images.train, train_count), test=draw_part(images.test, test_count)
    )
    return sample if has_labels(sample) else None


def measure_knn(
    encoder: tf.keras.Model | None,
    sample: DataSet,
    scaling: PixelScaling = UNSCALED,
    batch_size: int = BATCH_SIZE,
) -> float:
    """Return the accuracy of the 20-nearest-neighbour classifier on a sample, in [0, 1].

    Args:
        encoder: the encoder f, or None to compare the pixels themselves.
        sample: a data set with labels.
        scaling: the scaling of the pixels.
        batch_size: images that go through the encoder at once.
    """
    if encoder is None:
        h = represent_pixels(sample)
    else:
        h = Represented(*(compute_h(encoder, split.images, scaling, batch_size) for split in list_splits(sample)))
    found = classify_by_neighbours(h.train, sample.train.labels, h.test, sample.test.labels, [SAMPLE_COUNT])
    return found[str(SAMPLE_COUNT)]


def find_neighbours(h: Represented, queries: int, count: int, test_labels: np.ndarray) -> Neighbours:
    """Return a few test images, and for each the train images with the largest cosine similarity of h.

    The test images are chosen from each class in turn.

    Args:
        h: the representations of both splits.
        queries: the number of test images. If the test split has fewer, all are chosen.
        count: the number of neighbours of each test image.
        test_labels: (m,) class numbers. The function uses them only to choose images of every class.
    """
    chosen = choose_in_turn(test_labels, queries)
    return Neighbours(chosen, _find_nearest(h.train, h.test[chosen], count)[0])
