"""Tests k-nearest-neighbour classification (k-NN) on the encoder's outputs h.

The k training images with the most similar h vote for the class of a test image. Further tests are about k-NN on a
sample of images during training, and about the choice of neighbours for a picture.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import knn, represent
from tests.support.labelled_images import draw_clouds, make_striped_data_set
from tests.support.progress_lines import print_every_line
from tests.support.small_encoder import build_small_encoder

# The vote


@pytest.mark.parametrize("at_once", [1, 700, 2**24])
def test_knn_agrees_with_scikit_learn(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", at_once)
    (train_h, train_labels), (test_h, test_labels) = draw_clouds(300), draw_clouds(200, seed=1)
    found = knn.classify_by_neighbours(train_h, train_labels, test_h, test_labels, (1, 5, 20, 200))
    for count in (1, 5, 20, 200):
        oracle = KNeighborsClassifier(
            count, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine", algorithm="brute"
        ).fit(train_h.astype(np.float64), train_labels)
        assert found[str(count)] == pytest.approx(oracle.score(test_h.astype(np.float64), test_labels), abs=1e-12)
    assert len(set(found.values())) > 1  # different k must give different accuracies, so that a wrong k is noticed


@pytest.mark.parametrize("count", [1, 7, 90, 91])
@pytest.mark.parametrize("levels", [1, 5, 10**6])  # all, many, or hardly any similarities are equal
def test_the_most_similar_are_the_first_of_a_stable_sort(count: int, levels: int) -> None:
    similarity = np.random.default_rng(count).integers(0, levels, (13, 91)).astype(np.float32)
    index, values = knn._select_most_similar(similarity, count)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(similarity, expected, axis=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_alike_to_nothing(bad: float) -> None:
    train_h = np.array([[bad, 1], [1, 1], [1, 0.5]], np.float32)
    found = knn.classify_by_neighbours(train_h, np.array([0, 1, 1]), np.array([[1.0, 1]]), np.array([1]), [2, 3])
    assert found == {"2": 1.0, "3": 1.0}


def test_near_rows_outvote_a_majority() -> None:
    train_h = np.array([[1, 0], [0.9, np.sqrt(0.19)], [0.9, -np.sqrt(0.19)]])  # similarities 1, 0.9, 0.9 to (1, 0)
    train_labels = np.array([0, 1, 1])  # class 0 wins: exp(1 / 0.07) > 2 exp(0.9 / 0.07)
    assert knn.classify_by_neighbours(train_h, train_labels, np.array([[2.0, 0]]), np.array([0]), [3]) == {"3": 1.0}


def test_only_directions_count() -> None:
    (train_h, train_labels), (test_h, test_labels) = draw_clouds(100), draw_clouds(80, seed=1)
    scale = 2.0 ** np.random.default_rng(0).integers(-20, 20, (100, 1))  # powers of two make no rounding error
    same = knn.classify_by_neighbours(train_h * scale.astype(np.float32), train_labels, test_h, test_labels, [5, 20])
    assert same == knn.classify_by_neighbours(train_h, train_labels, test_h, test_labels, [5, 20])


def test_a_collapsed_row_is_alike_to_nothing() -> None:
    train_h, train_labels = np.array([[0.0, 0], [1, 1]], np.float32), np.array([0, 1])
    assert knn.classify_by_neighbours(train_h, train_labels, np.array([[1.0, 1], [1, 2]]), np.array([1, 1]), [1]) == {
        "1": 1.0
    }


def test_all_rows_vote_where_k_is_larger() -> None:
    (train_h, train_labels), (test_h, test_labels) = draw_clouds(50), draw_clouds(40, seed=1)
    found = knn.classify_by_neighbours(train_h, train_labels, test_h, test_labels, [50, 200])
    assert found["200"] == found["50"]


# k-NN during training


def test_a_sample_is_a_part_of_both_splits_drawn_by_the_seed() -> None:
    images = make_striped_data_set()
    sample = knn.draw_knn_sample(images, 7, train_count=20, test_count=100)
    assert sample is not None
    assert (len(sample.train.images), len(sample.test.images)) == (20, 30)
    rows = [int(np.flatnonzero((images.train.images == image).all(axis=(1, 2, 3)))[0]) for image in sample.train.images]
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(sample.train.labels, images.train.labels[rows])
    again, other = (knn.draw_knn_sample(images, seed, 20, 100) for seed in (7, 8))
    np.testing.assert_array_equal(again.train.images, sample.train.images)
    assert (other.train.images != sample.train.images).any()


def test_knn_of_a_sample_in_pixels_and_in_h() -> None:
    images, encoder, scaling = make_striped_data_set(), build_small_encoder(), ((0.5,) * 3, (0.5,) * 3)
    labels = images.train.labels, images.test.labels
    for found, rows in (
        (knn.measure_knn(None, images), represent.represent_pixels(images)),
        (
            knn.measure_knn(encoder, images, PixelScaling(*scaling)),
            represent.represent_splits(encoder, images, PixelScaling(*scaling)),
        ),
    ):
        assert found == knn.classify_by_neighbours(rows.train, labels[0], rows.test, labels[1], [20])["20"]


def test_votes_in_parts_are_votes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = *draw_clouds(300), *draw_clouds(25, seed=1)
    at_once = knn.classify_by_neighbours(*given)
    monkeypatch.setattr(knn, "_VOTES_AT_ONCE", 10)  # two test images at a time, if there are five classes
    assert knn.classify_by_neighbours(*given) == at_once


# Neighbours for a picture


def test_nearest_takes_a_query_of_every_class_in_turn() -> None:
    (train_h, _), (test_h, _) = draw_clouds(50), draw_clouds(9, seed=1)
    labels = np.array([2, 2, 0, 0, 1, 0, 2, 1, 0])
    found = knn.find_neighbours(represent.Represented(train_h, test_h), 7, 5, labels)
    np.testing.assert_array_equal(found.queries, [2, 4, 0, 3, 7, 1, 5])
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (test_h[found.queries], train_h)]
    np.testing.assert_array_equal(found.neighbours, np.argsort(-(unit[0] @ unit[1].T), axis=1)[:, :5])


def test_nearest_makes_do_with_few_images() -> None:
    (train_h, _), (test_h, _) = draw_clouds(3), draw_clouds(2, seed=1)
    found = knn.find_neighbours(represent.Represented(train_h, test_h), 10, 5, np.array([-1, -1]))
    assert found.neighbours.shape == (2, 3)


def test_only_with_a_title_the_test_images_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_every_line(monkeypatch)
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", 3000)  # ten test rows at a time, with 300 similarities each
    given = *draw_clouds(300), *draw_clouds(25, seed=1)
    plain = knn.classify_by_neighbours(*given)
    assert capsys.readouterr() == ("", "")
    assert knn.classify_by_neighbours(*given, title="k-NN") == plain
    counted = [line.split(" of ")[0] for line in capsys.readouterr().err.splitlines() if "images/s" in line]
    assert counted == ["k-NN: 10", "k-NN: 20", "k-NN: 25"]
