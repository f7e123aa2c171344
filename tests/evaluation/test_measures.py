"""Tests measures of the encoder's output h and of the projection z that need no labels, such as the effective rank.

Further tests are about the choice of the images on which they are measured.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.evaluation.measures import (
    Projected,
    compute_effective_rank,
    compute_uniformity,
    count_sample,
    draw_sample,
    measure_views,
    project_views,
)
from lowlevel_simclr.model.projection import build_projection_head
from lowlevel_simclr.reference import checkup
from tests.support.small_encoder import build_small_encoder


def draw_rows(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Return random float32 rows. Some columns have much larger numbers than others, and no column has the mean 0."""
    random = np.random.default_rng(seed)
    return (random.normal(1, 1, (rows, columns)) * np.geomspace(1, 1e-3, columns)).astype(np.float32)


def make_images(held_out: int, trained_on: int = 4) -> DataSet:
    random = np.random.default_rng(3)

    def make(count: int) -> Split:
        return Split(random.integers(0, 256, (count, 8, 8, 3), np.uint8), np.full(count, -1))

    return DataSet("made up", make(trained_on), make(held_out), ())


@pytest.mark.parametrize(("pairs", "wide"), [(30, 12), (6, 40)])
def test_every_measure_agrees_with_the_reference(pairs: int, wide: int) -> None:
    """Test h with more rows than columns, and with fewer rows than columns.

    Two columns of h are always 0 (dead), and one row of z is 0.
    """
    h, z = np.maximum(draw_rows(2 * pairs, wide), 0), draw_rows(2 * pairs, 7, seed=1)
    h[:, 3:5] = 0
    z[2] = 0
    found = measure_views(Projected(h, z))
    first, second = np.split(z, 2)
    right = {
        "alignment": checkup.compute_alignment(first, second),
        "uniformity": (checkup.compute_uniformity(first) + checkup.compute_uniformity(second)) / 2,
        "rank_h": checkup.compute_effective_rank(h),
        "rank_z": checkup.compute_effective_rank(z),
        "std_z": checkup.compute_spread(z),
        "dead_h": checkup.compute_dead_share(h),
    }
    assert found == pytest.approx(right, rel=1e-5)
    assert found["dead_h"] == 2 / wide


def test_the_measures_of_a_collapsed_encoder_have_their_closed_forms() -> None:
    same = Projected(np.full((8, 5), 2, np.float32), np.full((8, 3), -1, np.float32))
    right = {"alignment": 0, "uniformity": 0, "rank_h": 1, "rank_z": 1, "std_z": 0, "dead_h": 0}
    assert measure_views(same) == pytest.approx(right, abs=1e-7)
    zero = Projected(np.zeros((8, 5), np.float32), np.zeros((8, 3), np.float32))
    right |= {"rank_h": 0, "rank_z": 0, "dead_h": 1}
    assert measure_views(zero) == right


def test_the_measures_of_orthogonal_images_have_their_closed_forms() -> None:
    """Test four images. The two views of an image have equal z. The z of different images are orthogonal."""
    z = np.tile(np.eye(4, dtype=np.float32), (2, 1))
    found = measure_views(Projected(3 * z, 5 * z))
    right = {"alignment": 0, "uniformity": -4, "rank_h": 4, "rank_z": 4, "std_z": math.sqrt(3) / 4, "dead_h": 0}
    assert found == pytest.approx(right, abs=1e-7)


@pytest.mark.parametrize("rows", [1e-30, 1e30], ids=str)
def test_the_effective_rank_does_not_depend_on_the_size_of_the_numbers(rows: float) -> None:
    assert compute_effective_rank(rows * np.eye(5, dtype=np.float32)) == pytest.approx(5)


def test_uniformity_has_its_closed_form() -> None:
    assert compute_uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)


def test_a_number_that_is_not_finite_makes_no_error() -> None:
    h = np.ones((4, 2), np.float32)
    h[0, 0] = np.inf
    assert all(math.isnan(value) for value in measure_views(Projected(h, np.ones((4, 2), np.float32))).values())


# The images that are measured, and their views


def test_the_sample_is_drawn_by_the_seed_from_the_test_split() -> None:
    images = make_images(held_out=9)
    first, again, other = (draw_sample(images, seed, most=5) for seed in (0, 0, 1))
    assert first is not None and again is not None and other is not None
    assert first.index.tolist() == again.index.tolist() != other.index.tolist()
    assert len(set(first.index.tolist())) == 5
    assert np.array_equal(first.images, images.test.images[first.index - 13])
    assert min(first.index) >= 13  # 0 to 12 are training images: these views are never trained on


def test_few_images_are_all_taken_and_one_is_not_enough() -> None:
    sample = draw_sample(make_images(held_out=2), seed=0)
    assert sample is not None and len(sample.images) == 2
    assert draw_sample(make_images(held_out=1), seed=0) is None
    assert [count_sample(make_images(held_out), most=3) for held_out in (1, 2, 9)] == [0, 2, 3]


@pytest.mark.parametrize("at_once", [2, 5, 8])
def test_h_and_z_are_those_of_the_first_views_and_then_the_second(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test imitated views: view 2 of an image is its view 1 plus 1. The last batch of images may be smaller."""
    monkeypatch.setattr("lowlevel_simclr.evaluation.measures.VIEWS_AT_ONCE", at_once)
    encoder, head = build_small_encoder(), build_projection_head(5, (4, 3))

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, tf.float32) / 255 + tf.cast(index, tf.float32)[:, None, None, None]
        return tf.concat([x, x + 1], axis=0)

    sample = draw_sample(make_images(held_out=5), seed=0)
    assert sample is not None
    before = [weight.copy() for weight in encoder.get_weights()]
    h, z = project_views(encoder, head, views, sample)
    x = sample.images.astype(np.float32) / 255 + sample.index.astype(np.float32)[:, None, None, None]
    right = encoder(np.concatenate([x, x + 1]), training=False)
    assert h.shape == (10, 5) and z.shape == (10, 3)
    np.testing.assert_allclose(h, right, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(z, head(right, training=False), rtol=1e-5, atol=1e-5)
    assert all(np.array_equal(old, new) for old, new in zip(before, encoder.get_weights()))
