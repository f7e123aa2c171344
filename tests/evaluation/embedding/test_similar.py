"""Tests the search for the most similar images, by the similarity of their rows (the encoder's outputs).

The right result is computed from the matrix of all similarities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.evaluation.embedding import similar


def draw_rows(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (count, width)).astype(np.float32)


def compute_similarities(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of each row of `first` with each row of `second`, in float64."""
    a, b = (rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True) for rows in (first, second))
    return a @ b.T


@pytest.mark.parametrize("size", [1, 7, 50])
def test_the_nearest_rows_are_those_of_the_whole_matrix(size: int) -> None:
    rows, queries = draw_rows(50), draw_rows(4, seed=1)
    found = similar.find_nearest(queries, [rows[first : first + size] for first in range(0, 50, size)], 5)
    whole = compute_similarities(queries, rows)
    np.testing.assert_array_equal(found.places, np.argsort(-whole, axis=1)[:, :5])
    np.testing.assert_allclose(found.similarities, -np.sort(-whole, axis=1)[:, :5], atol=1e-6)
    assert similar.find_nearest(queries, [rows[:3]], 5).places.shape == (4, 3)


def test_a_row_of_zeros_is_similar_to_nothing() -> None:
    found = similar.find_nearest(np.ones((1, 2), np.float32), [np.array([[0, 0], [-1, -1]], np.float32)], 2)
    assert found.places.tolist() == [[0, 1]] and found.similarities[0, 0] == 0


@pytest.mark.parametrize("block", [1, 7, 64])
def test_pairs_are_those_of_the_whole_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(similar, "BLOCK", block)
    rows = draw_rows(40)
    rows[31] = 3 * rows[4]  # two rows of one direction: their cosine similarity is 1
    stored = similar.store_rows(tmp_path / "rows.npy", [rows[:9], rows[9:]], 40, 8)
    pairs = similar.find_pairs(stored, 0.5)
    whole = np.triu(compute_similarities(rows, rows), 1)
    expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(whole >= 0.5))}
    assert {(int(i), int(j)) for i, j in pairs.places} == expected and pairs.found == len(expected) > 10
    assert pairs.places[0].tolist() == [4, 31] and pairs.similarities[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(pairs.similarities) <= 0).all() and pairs.similarities.max() <= 1
    assert similar.find_pairs(stored, 1.0).places.tolist() == [[4, 31]]


def test_only_the_most_similar_pairs_are_kept_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "BLOCK", 16)
    rows = similar.normalise_rows(np.abs(draw_rows(60)))
    every = similar.find_pairs(rows, 0.3)
    monkeypatch.setattr(similar, "MOST_PAIRS", 50)
    few = similar.find_pairs(rows, 0.3)
    assert few.found == every.found > 1000 and len(few.places) == 50
    np.testing.assert_array_equal(few.places, every.places[:50])


def test_one_row_has_no_pair_and_random_pairs_are_of_two_rows() -> None:
    assert similar.find_pairs(draw_rows(1), 0.1).found == 0
    rows = similar.normalise_rows(np.array([[1, 0], [0, 1]], np.float32))
    assert (similar.sample_similarities(rows) == 0).all()
