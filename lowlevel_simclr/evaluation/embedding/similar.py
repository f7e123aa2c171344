"""Finds the nearest neighbours of rows (encoder outputs), and pairs of nearly equal rows, by cosine similarity.

The rows are read block by block, and the similarities of two blocks are one matrix product. So the memory does not grow
with the number of rows. The time of `find_pairs` grows with the square of the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.runtime.progress_bar import open_bar

BLOCK = 2048  # rows in a block; the similarities of two blocks take 16 MiB
MOST_PAIRS = 1_000_000  # pairs that are kept
ROUNDING = 1e-6  # the computed float32 similarity of two equal rows differs from 1 by less than this
SAMPLED = 10_000  # random pairs that `sample_similarities` draws


class Nearest(NamedTuple):
    """The rows that are nearest to each of q query rows.

    Attributes:
        places: (q, k) positions of rows, the nearest first.
        similarities: (q, k) float32, cosine.
    """

    places: NDArray[np.int64]
    similarities: NDArray[np.float32]


class Pairs(NamedTuple):
    """Pairs of rows that are at least as similar as a threshold, the most similar first.

    Attributes:
        places: (p, 2) positions of the two rows, the smaller position first.
        similarities: (p,) float32, cosine.
        found: the number of all such pairs. If it is larger than MOST_PAIRS, `places` has only the MOST_PAIRS most
            similar pairs.
    """

    places: NDArray[np.int64]
    similarities: NDArray[np.float32]
    found: int


def normalise_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows (n, d) scaled to length 1. A row of zeros stays zero."""
    norm = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    return (rows / np.where(norm == 0, 1, norm)).astype(np.float32)


def find_nearest(queries: NDArray[np.float32], blocks: Iterable[NDArray[np.float32]], count: int) -> Nearest:
    """Return the rows that are nearest to each query row.

    Args:
        queries: the query rows (q, d).
        blocks: the rows to search, in blocks (m, d).
        count: the number of neighbours to return (k). If there are fewer rows, all are returned.

    Examples:
        >>> rows = np.array([[1, 0], [0, 2], [3, 3]], np.float32)
        >>> find_nearest(rows[:1], [rows[:2], rows[2:]], 2).places
        array([[0, 2]])
    """
    wanted = normalise_rows(queries)
    places = np.zeros((len(queries), 0), np.int64)
    similarities = np.zeros((len(queries), 0), np.float32)
    first = 0
    for block in blocks:
        numbers = np.broadcast_to(np.arange(first, first + len(block)), (len(queries), len(block)))
        places = np.concatenate([places, numbers], axis=1)
        similarities = np.concatenate([similarities, wanted @ normalise_rows(block).T], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
        places = np.take_along_axis(places, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        first += len(block)
    return Nearest(places, similarities)


def store_rows(path: Path, blocks: Iterable[NDArray[np.float32]], count: int, width: int) -> NDArray[np.float32]:
    """Scale rows to length 1, write them into a file, and return them as an array that reads from the file.

    Args:
        path: the file to write.
        blocks: the rows, in blocks (m, d).
        count: the number of rows.
        width: the number of values in a row (d).

    Raises:
        OSError: if the file cannot be written.
    """
    # A file that is filled by writing raises an OSError on a full disk. Writing to a memory map would kill the process.
    with open(path, "wb") as file:
        for block in blocks:
            file.write(normalise_rows(block).tobytes())
    return np.memmap(path, np.float32, "r", shape=(count, width))


def find_pairs(rows: NDArray[np.float32], threshold: float, title: str = "") -> Pairs:
    """Return the pairs of rows whose cosine similarity is at least a threshold.

    Args:
        rows: (n, d), of length 1, see `store_rows`.
        threshold: in (0, 1].
        title: shown with the progress. Without it, no progress is shown.
    """
    kept = _BestPairs(threshold)
    with open_bar(title, len(rows) * (len(rows) - 1) // 2, "pairs", scale=True) as bar:
        for first in range(0, len(rows), BLOCK):
            own = np.asarray(rows[first : first + BLOCK])
            for second in range(first, len(rows), BLOCK):
                other = np.asarray(rows[second : second + BLOCK])
                kept.add(own @ other.T, first, second)
                bar.update(len(own) * (len(own) - 1) // 2 if first == second else len(own) * len(other))
    pairs = kept.sort()
    return pairs._replace(similarities=np.minimum(pairs.similarities, np.float32(1)))


class _BestPairs:
    """The most similar pairs so far."""

    def __init__(self, threshold: float) -> None:
        self._least, self._found = np.float32(threshold - ROUNDING), 0
        self._enough = self._least  # the least similarity that is still kept; it rises when there are too many pairs
        self._kept = [Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), 0)]

    def add(self, similarity: NDArray[np.float32], first: int, second: int) -> None:
        """Add the similarities (m, k) of two blocks of rows. The blocks begin at the rows `first` and `second`."""
        if first == second:
            similarity = np.where(np.tri(len(similarity), dtype=bool), np.float32(-2), similarity)
        self._found += int(np.count_nonzero(similarity >= self._least))
        left, right = np.nonzero(similarity >= self._enough)
        if not len(left):
            return
        places = np.stack([left + first, right + second], axis=1)
        self._kept.append(Pairs(places, similarity[left, right], 0))
        if sum(len(pairs.places) for pairs in self._kept) > 2 * MOST_PAIRS:
            self._kept = [self.sort()]
            self._enough = np.nextafter(self._kept[0].similarities[-1], np.float32(2))

    def sort(self) -> Pairs:
        """Return at most MOST_PAIRS pairs, the most similar first. Equally similar pairs are sorted by position."""
        places = np.concatenate([pairs.places for pairs in self._kept])
        similarities = np.concatenate([pairs.similarities for pairs in self._kept])
        order = np.lexsort((places[:, 1], places[:, 0], -similarities))[:MOST_PAIRS]
        return Pairs(places[order], similarities[order], self._found)


def sample_similarities(rows: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Return the sorted similarities of random pairs of rows.

    A useful threshold for `find_pairs` lies above most of them.

    Args:
        rows: (n, d) of length 1, at least two.
        seed: the seed of the draw.
    """
    random = np.random.default_rng(seed)
    first = random.integers(len(rows), size=SAMPLED)
    second = (first + random.integers(1, len(rows), size=SAMPLED)) % len(rows)
    parts = [slice(start, start + BLOCK) for start in range(0, SAMPLED, BLOCK)]
    return np.sort(np.concatenate([np.einsum("nd,nd->n", rows[first[part]], rows[second[part]]) for part in parts]))
