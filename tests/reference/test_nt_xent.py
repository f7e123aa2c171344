"""Tests the float64 code (reference) of NT-Xent, the loss of SimCLR.

The losses and gradients are compared with the loops of the paper, with finite differences, and with exact results.

Words and symbols: z has 2N rows of d numbers, one for each of the two views of N images. u_i is row i of z, divided by
its length. s_ij is the product u_i . u_j, divided by the temperature tau. The positive of a row is the other view of
its image. Its candidates are all other rows. P_ij is the weight of candidate j in the loss of row i. A gradient
is that of a weighted sum of the losses. These weights, one for each loss, are called cotangents.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowlevel_simclr import reference
from lowlevel_simclr.verification.bound import EPSILON, compute_loss_scale
from tests.support.closeness import assert_close

EPS64 = EPSILON["float64"]
TEMPERATURES = (0.005, 0.05, 0.5, 10.0)


def projections(pairs: int, width: int, crowd: float = np.inf, seed: int = 0) -> np.ndarray:
    """Return z (2N, d). Its rows have very different lengths. The two views of an image are similar, as after training.

    Args:
        pairs: N.
        width: d.
        crowd: the distance |u_i - u_j|^2 between rows. If it is about as large as the temperature, all candidates have
            similar weights. By default, the rows have random directions.
        seed: the seed of the random numbers.
    """
    draw = np.random.default_rng(seed)
    first = draw.normal(size=(pairs, width)) / width**0.5
    z = np.concatenate([first, first + 0.5 * draw.normal(size=(pairs, width)) / width**0.5])
    if np.isfinite(crowd):
        z = width**-0.5 + crowd**0.5 * z
    return z * np.exp(draw.uniform(-3, 3, size=(2 * pairs, 1)))


def algorithm_1(z: np.ndarray, temperature: float) -> list[float]:
    """Compute the loss of each row with the loops of Algorithm 1 of the paper.

    In the paper, image k has the rows 2k-1 and 2k, both counted from 1. In this package, it has the rows k-1 and N+k-1,
    counted from 0.
    """
    pairs = len(z) // 2
    paper = [z[k // 2 + (k % 2) * pairs] for k in range(2 * pairs)]  # in the order of the paper, image by image
    similarity = [[0.0] * (2 * pairs) for _ in range(2 * pairs)]
    for i in range(2 * pairs):
        for j in range(2 * pairs):
            inner = sum(float(a) * float(b) for a, b in zip(paper[i], paper[j], strict=True))
            similarity[i][j] = inner / (math.hypot(*paper[i]) * math.hypot(*paper[j]))

    def loss(i: int, j: int) -> float:
        below = sum(math.exp(similarity[i][k] / temperature) for k in range(2 * pairs) if k != i)
        return -math.log(math.exp(similarity[i][j] / temperature) / below)

    interleaved = [loss(i, i ^ 1) for i in range(2 * pairs)]
    return [interleaved[2 * (row % pairs) + row // pairs] for row in range(2 * pairs)]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("pairs", "width"), [(1, 3), (2, 2), (5, 4), (6, 9)])
def test_is_algorithm_1_of_the_paper(pairs, width, temperature):
    z = projections(pairs, width)
    loss, expected = reference.nt_xent(z, temperature), algorithm_1(z, temperature)
    # Both results have rounding errors. Therefore the bound is twice as large.
    assert_close(loss, expected, None, dtype="float64", scale=2 * compute_loss_scale(temperature))


def central_difference(function, x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the derivative of `function` to each element of x, from its values at x - 2h, x - h, x + h and x + 2h.

    `step` has h for each element. The error is of order h^4.
    """
    slope = np.empty_like(x)
    for index in np.ndindex(x.shape):
        h = np.zeros_like(x)
        h[index] = step[index]
        near = function(x + h) - function(x - h)
        far = function(x + 2 * h) - function(x - 2 * h)
        slope[index] = (8 * near - far) / (12 * step[index])
    return slope


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize(("pairs", "width"), [(1, 2), (2, 3), (4, 5)])
def test_gradient_is_the_central_difference_under_a_random_cotangent(pairs, width, crowded, temperature):
    z = projections(pairs, width, crowd=temperature if crowded else np.inf)
    cotangent = np.random.default_rng(1).normal(size=2 * pairs)
    length = np.linalg.norm(z, axis=1, keepdims=True)
    # To change the loss, a row must move by about tau |z|, or |z| if tau is above 1 (`reach`). Let h be the step in
    # units of `reach`. The finite differences have an error of order h^4. The rounding errors of the losses add an
    # error of eps (1 + 1/tau) / h. With h = eps^(1/5), both errors are of order eps^(4/5).
    reach = min(temperature, 1.0) * length
    step = np.broadcast_to(EPS64**0.2 * reach, z.shape)
    slope = central_difference(lambda x: float(cotangent @ reference.nt_xent(x, temperature)), z, step)
    scale = np.sum(np.abs(cotangent)) * (1 + 1 / temperature) / reach
    error = np.abs(reference.nt_xent_gradient(z, temperature, cotangent) - slope) / scale
    assert np.max(error) < 4 * EPS64**0.8


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_temperature_gradient_is_the_central_difference_under_a_random_cotangent(pairs, crowded, temperature):
    z = projections(pairs, 5, crowd=temperature if crowded else np.inf)
    cotangent = np.random.default_rng(2).normal(size=2 * pairs)
    # The step is chosen as in the test above, but with another `reach`. If tau is small, a change of tau by tau^2
    # changes s by about 1. If tau is large, tau must change by about tau to change the loss.
    reach = temperature * min(temperature, 1.0)
    step = np.array(EPS64**0.2 * reach)
    slope = central_difference(
        lambda tau: float(cotangent @ reference.nt_xent(z, float(tau))), np.array(temperature), step
    )
    scale = np.sum(np.abs(cotangent)) * (1 + 1 / temperature) / reach
    error = np.abs(reference.nt_xent_temperature_gradient(z, temperature, cotangent) - slope) / scale
    assert error < 4 * EPS64**0.8


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_equal_rows_give_log_2n_minus_1_and_no_gradient(pairs, temperature):
    z = np.tile([3.0, -4.0, 12.0], (2 * pairs, 1))
    loss, expected = reference.nt_xent(z, temperature), np.full(2 * pairs, math.log(2 * pairs - 1))
    assert_close(loss, expected, None, dtype="float64", scale=compute_loss_scale(temperature))
    gradient = reference.nt_xent_gradient(z, temperature, np.ones(2 * pairs))
    assert np.max(np.abs(gradient)) <= 8 * pairs * EPS64 * (1 + 1 / temperature) / temperature


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_one_pair_gives_0(temperature):
    z = projections(1, 6)
    np.testing.assert_array_equal(reference.nt_xent(z, temperature), [0.0, 0.0])
    gradient = reference.nt_xent_gradient(z, temperature, [2.0, -3.0])
    np.testing.assert_allclose(gradient, np.zeros_like(z), atol=1e-13 / temperature)
    assert reference.nt_xent_temperature_gradient(z, temperature, [2.0, -3.0]) == 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_two_orthogonal_pairs(temperature):
    """Test two images. The two views of an image have the same direction. Views of different images are orthogonal.

    Each loss is log(1 + 2 exp(-1/tau)). Each row of the gradient dz is orthogonal to the same row of u.
    """
    z = np.array([[2.0, 0.0], [0.0, 5.0], [3.0, 0.0], [0.0, 7.0]])
    other = math.exp(-1 / temperature)
    loss, expected = reference.nt_xent(z, temperature), np.full(4, math.log1p(2 * other))
    assert_close(loss, expected, None, dtype="float64", scale=compute_loss_scale(temperature))
    # du_i is the gradient to u_i. Two rows u_j are orthogonal to u_i: the views of the other image. The part of du_i
    # that is orthogonal to u_i is 1/tau times the sum of the weights P_ij + P_ji of these two rows.
    across = 2 * 2 * other / (1 + 2 * other) / temperature
    expected = across * np.array([[0, 1 / 2], [1 / 5, 0], [0, 1 / 3], [1 / 7, 0]])
    np.testing.assert_allclose(
        reference.nt_xent_gradient(z, temperature, np.ones(4)), expected, rtol=1e-12, atol=1e-14 / temperature
    )


@pytest.mark.parametrize(("pairs", "own"), [(6, 1), (6, 2), (6, 3), (6, 6), (5, 5), (1, 1)])
def test_the_rows_of_all_replicas_are_the_whole(pairs, own):
    z, temperature = projections(pairs, 4), 0.1
    cotangent = np.random.default_rng(3).normal(size=2 * pairs)
    loss = reference.nt_xent(z, temperature)
    gradient = reference.nt_xent_gradient(z, temperature, cotangent)
    for first in range(0, pairs, own):
        rows = np.r_[first : first + own, pairs + first : pairs + first + own]
        np.testing.assert_array_equal(reference.list_own_rows(2 * pairs, first, own), rows)
        # With fewer rows, NumPy may add the terms of a matrix product in another order.
        np.testing.assert_allclose(
            reference.nt_xent_rows(z, first, own, temperature), loss[rows], rtol=1e-13, atol=1e-13
        )
        own_gradient = reference.nt_xent_rows_gradient(z, first, own, temperature, cotangent)
        np.testing.assert_allclose(
            own_gradient, gradient[rows], rtol=1e-11, atol=1e-12 * np.max(np.abs(gradient[rows]))
        )


def test_positive_is_the_other_view():
    np.testing.assert_array_equal(reference.find_positive(6), [3, 4, 5, 0, 1, 2])


def test_top1_counts_the_strictly_most_similar_positive():
    # Rows 0 and 3 are views of one image, and most similar to each other. Rows 1 and 4 are views of one image and have
    # the same direction. Row 2 has this direction too, but shows another image (that of row 5). So for row 1, rows 4
    # and 2 are equally similar. Such a tie counts as wrong.
    z = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [9, 1, 0, 0], [0, 3, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(reference.contrastive_top1(z), [True, False, False, True, False, False])
    np.testing.assert_array_equal(reference.contrastive_top1(np.eye(2)), [True, True])
    assert not np.any(reference.contrastive_top1(np.full((8, 3), 0.5)))
    assert not np.any(reference.contrastive_top1(np.full((4, 3), np.nan)))


@pytest.mark.parametrize("length", [1e-300, 1e-20, 1.0, 1e20, 1e300])
def test_length_of_a_row_changes_nothing(length):
    z = projections(4, 3) / 64
    scaled = z.copy()
    scaled[2] *= length
    cotangent = np.random.default_rng(4).normal(size=8)
    np.testing.assert_allclose(reference.nt_xent(scaled, 0.1), reference.nt_xent(z, 0.1), rtol=1e-13, atol=1e-13)
    gradient = reference.nt_xent_gradient(z, 0.1, cotangent)
    gradient[2] /= length
    np.testing.assert_allclose(reference.nt_xent_gradient(scaled, 0.1, cotangent), gradient, rtol=1e-9, atol=0)


def test_a_zero_row_has_similarity_0_and_no_gradient():
    z = projections(3, 4)
    z[1] = 0
    s = reference.normalise_rows(z) @ reference.normalise_rows(z).T / 0.2
    np.testing.assert_allclose(reference.nt_xent(z, 0.2)[1], math.log(5), rtol=1e-15)
    assert np.all(s[1] == 0)
    gradient = reference.nt_xent_gradient(z, 0.2, np.ones(6))
    assert np.all(gradient[1] == 0)
    assert np.all(np.any(gradient[[0, 2, 3, 4, 5]] != 0, axis=1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pairs", [1, 3])
def test_nan_in_is_nan_out(pairs, value):
    z = projections(pairs, 4)
    z[0, 1] = value
    assert np.all(np.isnan(reference.nt_xent(z, 0.1)))
    assert np.all(np.isnan(reference.nt_xent_gradient(z, 0.1, np.ones(2 * pairs))))
    assert np.isnan(reference.nt_xent_temperature_gradient(z, 0.1, np.ones(2 * pairs)))


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (4,), (2, 2, 2), (4, 0)])
def test_refuses_rows_that_are_no_pairs(shape):
    match = str(shape).replace("(", r"\(").replace(")", r"\)")
    z = np.ones(shape)
    for refused in (
        lambda: reference.nt_xent(z, 0.1),
        lambda: reference.nt_xent_gradient(z, 0.1, np.ones(4)),
        lambda: reference.nt_xent_temperature_gradient(z, 0.1, np.ones(4)),
        lambda: reference.nt_xent_rows(z, 0, 1, 0.1),
        lambda: reference.contrastive_top1(z),
    ):
        with pytest.raises(ValueError, match=match):
            refused()


@pytest.mark.parametrize("temperature", [0.0, -0.25, math.nan, math.inf])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    z = np.eye(4)
    for refused in (
        lambda: reference.nt_xent(z, temperature),
        lambda: reference.nt_xent_gradient(z, temperature, np.ones(4)),
        lambda: reference.nt_xent_temperature_gradient(z, temperature, np.ones(4)),
    ):
        with pytest.raises(ValueError, match=str(temperature)):
            refused()


def test_refuses_a_cotangent_of_another_length():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        reference.nt_xent_gradient(np.eye(4), 0.1, np.ones(3))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        reference.nt_xent_rows_gradient(np.eye(4), 0, 1, 0.1, np.ones(2))


@pytest.mark.parametrize(("first", "pairs"), [(-1, 1), (0, 0), (0, 3), (2, 1)])
def test_refuses_own_pairs_that_do_not_exist(first, pairs):
    with pytest.raises(ValueError, match=f"first_pair={first} and pairs={pairs}"):
        reference.nt_xent_rows(np.eye(4), first, pairs, 0.1)
