"""NT-Xent in stock TensorFlow: the baseline that the native op is timed and judged against, and its stand-in.

SimCLR (Chen et al. 2020), equation (1), for rows 0..N-1 first views and N..2N-1 second views:

    loss_i = log sum_{k != i} exp s_ik - s_ip,  s_ij = <u_i, u_j> / tau,  u = z / |z|,  p(i) = (i + N) mod 2N

The gradient is TensorFlow's own. z may be bfloat16, float16, float32 or float64; a half is widened to float32
first, which is exact, so norms, similarities and sums are float32 (float64 for float64) and losses too.

A row whose |z|^2 is below the smallest normal number counts as zero: u = 0 and gradient 0. Nothing is added
to a norm, so rows from |z| = 1e-15 to 1e15 are right in float32. NaN in z makes the losses NaN. `temperature`
is a number or a scalar tensor; a gradient flows to a tensor. Every function works eagerly, in a graph (the
number of rows may then be unknown) and under jit_compile.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import tensorflow as tf

from lowlevel_simclr.contract.nt_xent_checks import Temperature, check_own_pairs, check_projections, check_temperature
from lowlevel_simclr.runtime.xla import is_inside_xla

_ACCUMULATION = {
    tf.bfloat16: tf.float32,
    tf.float16: tf.float32,
    tf.float32: tf.float32,
    tf.float64: tf.float64,
}


class RowsState(NamedTuple):
    """What the gradient of own rows needs of the forward pass; gathered over replicas before it.

    normaliser: (2n, 2): m_i and r_i, with log sum_k exp s_ik = m_i / tau + log r_i. Gathered: (2N, 2).
    inverse_norm: (2N,): 1/|z_i| of all rows, 0 where z_i counts as zero; the same on every replica.
    """

    normaliser: tf.Tensor
    inverse_norm: tf.Tensor


def nt_xent(z: tf.Tensor, temperature: Temperature) -> tf.Tensor:
    """Loss of every row, equation (1).

    Args:
        z: (2N, d) bfloat16, float16, float32 or float64 projections, first views then second views.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, float32 (float64 where z is float64).

    Raises:
        ValueError: z is not (2N, d) with N >= 1 and d >= 1, or temperature is not one positive finite number.
        TypeError: z is not one of the four floating-point types.
        tf.errors.InvalidArgumentError: odd or no rows, whose number was unknown when the graph was built.
    """
    return _compute_losses(*_compute_square(z, temperature))


def nt_xent_and_top1(z: tf.Tensor, temperature: Temperature) -> tuple[tf.Tensor, tf.Tensor]:
    """`nt_xent(z, temperature)` and `contrastive_top1(z)` from one matrix of similarities.

    Args:
        z: (2N, d) projections, as `nt_xent`.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, and (2N,) bool through which no gradient flows.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as `nt_xent`.
    """
    s, of_positive = _compute_square(z, temperature)
    return _compute_losses(s, of_positive), _is_top1(s, of_positive)


def contrastive_top1(z: tf.Tensor) -> tf.Tensor:
    """Whether a row's positive is strictly the most similar of its 2N - 1 candidates.

    A tie is a miss, as far as rounding leaves a tie equal; NaN is a miss; with N = 1 both rows hit.

    Args:
        z: (2N, d) projections, as `nt_xent`.

    Returns:
        (2N,) bool.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as `nt_xent`.
    """
    return _is_top1(*_compute_square(tf.stop_gradient(z), 1.0))


def nt_xent_rows(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tf.Tensor:
    """Losses of the rows of pairs first_pair .. first_pair + pairs - 1 against all 2N columns.

    What one of several replicas computes. Its gradient reaches all of z_all: summed over the replicas, it is
    the gradient of the whole loss.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: the first own pair, a number or a scalar integer tensor.
        pairs: how many pairs n are own; a number under jit_compile, where shapes are static.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2n,) losses, the own first views and then the own second views; float32 (float64 where z is float64).

    Raises:
        ValueError: as `nt_xent`, or numbers first_pair and pairs that do not lie within 0 .. N-1.
        TypeError, tf.errors.InvalidArgumentError: as `nt_xent`.
    """
    return _compute_losses(*_compute_rectangle(*_check_share(z_all, first_pair, pairs, temperature))[:2])


def nt_xent_rows_forward_and_top1(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, RowsState]:
    """`nt_xent_rows` and `contrastive_top1` of the own rows, without a gradient, and what the gradient needs.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: the first own pair.
        pairs: how many pairs n are own.
        temperature: tau > 0.

    Returns:
        (2n,) losses of the own rows, (2n,) bool, and the rows' state.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as `nt_xent_rows`.
    """
    share = _check_share(tf.stop_gradient(z_all), first_pair, pairs, temperature)
    s, of_positive, _ = _compute_rectangle(*share)
    largest = tf.reduce_max(s, axis=1)
    sums = tf.reduce_sum(tf.exp(s - largest[:, None]), axis=1)
    normaliser = tf.stack([largest * _cast_temperature(share[3], s.dtype), sums], axis=1)
    return (
        tf.math.log(sums) + (largest - of_positive),
        _is_top1(s, of_positive),
        RowsState(normaliser, _compute_inverse_norm(share[0])),
    )


def nt_xent_rows_backward(
    z_all: tf.Tensor,
    state: RowsState,
    cotangent: tf.Tensor,
    first_pair: int | tf.Tensor,
    pairs: int | tf.Tensor,
    temperature: Temperature,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient of all 2N losses with respect to the own rows: with c the cotangents and lse the row's logarithm,

        tau du_i = sum_{j != i} (c_i exp(s_ij - lse_i) + c_j exp(s_ij - lse_j)) u_j - (c_i + c_p(i)) u_p(i)
        dz_i = (du_i - <du_i, u_i> u_i) / |z_i|

    Args:
        z_all: (2N, d) projections of all replicas.
        state: of all 2N rows: the replicas' normalisers in the order of z_all's rows, and inverse_norm.
        cotangent: (2N,) weights of all the losses.
        first_pair: the first own pair.
        pairs: how many pairs n are own.
        temperature: tau > 0.

    Returns:
        (2n, d) dz of the own rows; the own rows' share of the gradient to the temperature, float64 (), to be summed
        over replicas.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: as `nt_xent_rows`.
    """
    share = _check_share(z_all, first_pair, pairs, temperature)
    s, of_positive, own = _compute_rectangle(*share)
    u, tau = _normalise_rows(share[0]), _cast_temperature(share[3], s.dtype)
    c, rows = tf.cast(cotangent, s.dtype), tf.shape(u)[0]
    lse = state.normaliser[:, 0] / tau + tf.math.log(state.normaliser[:, 1])  # (2N,)
    own_c, partner = tf.gather(c, own), (own + rows // 2) % rows
    by_row = own_c[:, None] * tf.exp(s - tf.gather(lse, own)[:, None])  # (2n, 2N), 0 on the diagonal
    by_column = c[None, :] * tf.exp(s - lse[None, :])
    of_pair = own_c + tf.gather(c, partner)  # (2n,)
    du = (tf.matmul(by_row + by_column, u) - of_pair[:, None] * tf.gather(u, partner)) / tau
    own_u = tf.gather(u, own)
    dz = (du - tf.reduce_sum(du * own_u, axis=1, keepdims=True) * own_u) * tf.gather(state.inverse_norm, own)[:, None]
    masked = tf.where(tf.math.is_inf(s), tf.zeros_like(s), s)
    dtemperature = (tf.reduce_sum(own_c * of_positive) - tf.reduce_sum(by_row * masked)) / tau
    return tf.cast(dz, z_all.dtype), tf.cast(dtemperature, tf.float64)


def _check_share(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, int | tf.Tensor, Temperature]:
    """The arguments of `nt_xent_rows`, checked; first_pair as an int32 tensor."""
    z_all, temperature = _check_rows(z_all), check_temperature(temperature)
    check_own_pairs(z_all, first_pair, pairs)
    return z_all, tf.cast(first_pair, tf.int32), pairs, temperature


def _compute_rectangle(
    z_all: tf.Tensor, first_pair: tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Similarities of own rows to all, -inf to themselves, s_ip, and the rows' places: (2n, 2N), (2n,), (2n,)."""
    u = _normalise_rows(z_all)
    rows, width = tf.shape(u)[0], tf.shape(u)[1]
    second_view = first_pair + rows // 2
    own = tf.concat([first_pair + tf.range(pairs), second_view + tf.range(pairs)], axis=0)  # (2n,)
    # Slices, not a gather: the gradient of a gather is a scatter-add.
    own_u = tf.concat(
        [tf.slice(u, [first_pair, 0], [pairs, width]), tf.slice(u, [second_view, 0], [pairs, width])], axis=0
    )  # (2n, d)
    scaled = own_u / _cast_temperature(temperature, u.dtype)
    s = tf.matmul(scaled, u, transpose_b=True)  # (2n, 2N)
    itself = own[:, None] == tf.range(rows)[None, :]
    s = tf.where(itself, tf.constant(-math.inf, s.dtype), s)
    return s, _select_positive(s, (own + rows // 2) % rows, scaled, tf.roll(own_u, pairs, axis=0)), own


def _compute_inverse_norm(z: tf.Tensor) -> tf.Tensor:
    """1/|z| of each row, and 0 where |z|^2 vanishes as in `_unit_rows`: (2N,)."""
    z = tf.cast(z, _ACCUMULATION[z.dtype])
    squares = tf.reduce_sum(z * z, axis=1)
    vanishes = squares < tf.constant(_find_smallest_normal(z.dtype), z.dtype)
    return tf.where(vanishes, tf.zeros([], z.dtype), 1 / tf.sqrt(tf.where(vanishes, tf.ones([], z.dtype), squares)))


def _compute_square(z: tf.Tensor, temperature: Temperature) -> tuple[tf.Tensor, tf.Tensor]:
    """Similarities s of all rows, -inf on the diagonal, and s_ip of each: (2N, 2N) and (2N,)."""
    z, temperature = _check_rows(z), check_temperature(temperature)
    u = _normalise_rows(z)
    rows = tf.shape(u)[0]
    scaled = u / _cast_temperature(temperature, u.dtype)  # 1/tau on (2N, d) numbers, not on (2N, 2N)
    s = tf.matmul(scaled, u, transpose_b=True)
    if u.shape[0] is None and is_inside_xla():  # which cannot compile the gradient of set_diag with unknown rows
        places = tf.range(rows)
        s = tf.where(places[:, None] == places, tf.constant(-math.inf, s.dtype), s)
    else:
        s = tf.linalg.set_diag(s, tf.fill([rows], tf.constant(-math.inf, s.dtype)))
    partner = tf.roll(tf.range(rows), rows // 2, axis=0)
    return s, _select_positive(s, partner, scaled, tf.roll(u, rows // 2, axis=0))


def _normalise_rows(z: tf.Tensor) -> tf.Tensor:
    """Rows u = z / |z|, and 0 with gradient 0 where |z|^2 vanishes: (2N, d) of the accumulation type."""
    z = tf.cast(z, _ACCUMULATION[z.dtype])
    squares = tf.reduce_sum(z * z, axis=1, keepdims=True)
    # Subnormal numbers are zero on some of TensorFlow's threads and not on others: call them zero everywhere.
    # The comparison is false for NaN, which thus passes through.
    vanishes = squares < tf.constant(_find_smallest_normal(z.dtype), z.dtype)
    # The inner where keeps the infinite gradient of the square root at 0 from meeting the outer one's 0.
    # A root and a quotient: the gradient of rsqrt contains |z|^-3, which overflows where |z| is 1e-13.
    return tf.where(vanishes, tf.zeros([], z.dtype), z / tf.sqrt(tf.where(vanishes, tf.ones([], z.dtype), squares)))


def _select_positive(s: tf.Tensor, partner: tf.Tensor, scaled: tf.Tensor, u_of_partner: tf.Tensor) -> tf.Tensor:
    """s_ip of each row: the number that stands in s, with the gradient of <scaled_i, u_p>. (2n,).

    Taken from the matrix, it equals its term in the sum over k to the last bit: no loss is negative, N = 1
    gives 0, and a tie is a tie. But through the gather autodiff would fill and add one more (2n, 2N) matrix,
    so the gradient takes the way of a sum that is 0.
    """
    through_rows = tf.reduce_sum(scaled * u_of_partner, axis=1)
    from_matrix = tf.gather(s, partner, batch_dims=1)
    return tf.stop_gradient(from_matrix) + (through_rows - tf.stop_gradient(through_rows))


def _compute_losses(s: tf.Tensor, of_positive: tf.Tensor) -> tf.Tensor:
    """Equation (1) for any tau: shifted by the row's maximum, which is finite since N >= 1. (2n,)."""
    largest = tf.stop_gradient(tf.reduce_max(s, axis=1))
    return tf.math.log(tf.reduce_sum(tf.exp(s - largest[:, None]), axis=1)) + (largest - of_positive)


def _is_top1(s: tf.Tensor, of_positive: tf.Tensor) -> tf.Tensor:
    """Whether every other candidate is less similar than the positive: (2n,) bool."""
    s, of_positive = tf.stop_gradient(s), tf.stop_gradient(of_positive)
    # All but the positive itself: the diagonal's -inf is below it, NaN is not.
    below = tf.math.count_nonzero(s < of_positive[:, None], axis=1, dtype=tf.int32)
    return below == tf.shape(s)[1] - 1


def _cast_temperature(temperature: Temperature, dtype: tf.DType) -> tf.Tensor:
    """Tau of the accumulation type. Through tf.cast a number would become float32 on its way."""
    return tf.constant(temperature, dtype) if isinstance(temperature, Real) else tf.cast(temperature, dtype)


def _find_smallest_normal(dtype: tf.DType) -> float:
    """Smallest normal number of float32 or float64."""
    return 2.0**-1022 if dtype == tf.float64 else 2.0**-126


def _check_rows(z: tf.Tensor) -> tf.Tensor:
    """Z as a tensor known, or asserted in the graph, to be (2N, d) of a type that NT-Xent takes."""
    z = check_projections(z)
    if z.shape.rank is None:
        z = tf.ensure_shape(z, [None, None])
    if z.shape[0] is not None:
        return z
    shape = tf.shape(z)
    sound = tf.debugging.Assert(
        tf.logical_and(shape[0] > 0, shape[0] % 2 == 0),
        ["NT-Xent needs z of 2N rows and d columns, N >= 1 and d >= 1; z has shape", shape],
    )
    with tf.control_dependencies([sound]):
        return tf.identity(z)
