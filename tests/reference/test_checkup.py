"""Tests the NumPy code for measures of an encoder's outputs, such as alignment, uniformity and effective rank.

The tests use inputs for which a formula gives the right result.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowlevel_simclr.reference import checkup

TURNED = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]  # an orthogonal matrix


@pytest.mark.parametrize(("angle", "right"), [(0, 0), (math.pi / 3, 1), (math.pi / 2, 2), (math.pi, 4)])
def test_alignment_is_the_square_of_the_chord(angle: float, right: float) -> None:
    first, second = [[2.0, 0.0]], [[math.cos(angle), math.sin(angle)]]
    assert checkup.compute_alignment(first, second) == pytest.approx(right, abs=1e-15)
    assert checkup.compute_alignment([[0.0, 0.0]], second) == pytest.approx(1)  # a row of zeros is not normalised


def test_uniformity_of_equal_opposite_and_orthogonal_points() -> None:
    assert checkup.compute_uniformity(np.ones((5, 3))) == 0
    assert checkup.compute_uniformity([[3.0], [-1.0]]) == pytest.approx(-8)
    assert checkup.compute_uniformity(7 * TURNED) == pytest.approx(-4)  # all pairs have the squared distance 2
    # Points 0 and 1 are equal, and so are points 2 and 3. Of the six pairs, two have the squared distance 0 and four
    # have 2.
    assert checkup.compute_uniformity(np.eye(2)[[0, 0, 1, 1]]) == pytest.approx(math.log((2 + 4 * math.exp(-4)) / 6))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_effective_rank_of_equal_singular_values_is_their_number(rank: int) -> None:
    rows = np.random.default_rng(1).normal(size=(6, rank))
    rows = np.linalg.qr(rows)[0] @ TURNED[:rank]
    assert checkup.compute_effective_rank(rows) == pytest.approx(rank)
    assert checkup.compute_effective_rank(9 * rows) == pytest.approx(rank)


def test_the_effective_rank_of_singular_values_three_and_one() -> None:
    right = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert checkup.compute_effective_rank(np.diag([3.0, 1.0])) == pytest.approx(right)
    assert checkup.compute_effective_rank(np.ones((9, 4))) == pytest.approx(1)
    assert checkup.compute_effective_rank(np.zeros((9, 4))) == 0


def test_the_spread_is_zero_for_equal_z_and_at_most_one_over_the_root_of_the_width() -> None:
    assert checkup.compute_spread(np.full((4, 3), 2.0)) == 0
    assert checkup.compute_spread(np.concatenate([TURNED, -TURNED])) == pytest.approx(1 / math.sqrt(6))
    assert checkup.compute_spread([[5.0, 0.0], [-1.0, 0.0]]) == 0.5


def test_units_are_dead_only_if_no_row_uses_them() -> None:
    assert checkup.compute_dead_share([[0.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0]]) == 0.5
    assert checkup.compute_dead_share(np.ones((2, 3))) == 0


def test_lengths_and_update_ratios_are_those_of_one_vector() -> None:
    before = [np.array([[3.0]]), np.array([0.0, 4.0])]
    after = [np.array([[3.0]]), np.array([0.3, 4.4])]
    assert checkup.compute_length(before) == 5
    assert checkup.compute_update_ratio(before, after) == pytest.approx(0.1)
    assert checkup.compute_update_ratio(before, before) == 0
