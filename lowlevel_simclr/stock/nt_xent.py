"""NT-Xent, the loss of SimCLR, in stock TensorFlow. The native op is compared with this version, which can replace it.

SimCLR (Chen et al. 2020), equation (1). Rows 0..N-1 are the first views and rows N..2N-1 the second views:

    loss_i = log sum_{k != i} exp s_ik - s_ip,  s_ij = <u_i, u_j> / tau,  u = z / |z|,  p(i) = (i + N) mod 2N

TensorFlow derives the gradient. z may be bfloat16, float16, float32 or float64. bfloat16 and float16 are cast to
float32 first, which is exact. Norms, similarities, sums and losses are then float32, or float64 if z is float64.

A row counts as zero if |z|^2 is below the smallest normal number. Then u = 0 and the gradient is 0. Nothing is added to
a norm, so float32 gives right results for rows from |z| = 1e-15 to 1e15. NaN in z makes the losses NaN. `temperature`
is a number or a scalar tensor. If it is a tensor, a gradient flows to it. Every function works eagerly, under
jit_compile and in a graph. In a graph the number of rows may be unknown.

A pair is the two views of one image. If several replicas (copies of the model on several devices) share a batch, each
of them owns some of the N pairs. The rows of these pairs are its own rows.
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
    """Numbers of the forward pass that the gradient of a replica's own rows needs.

    Before the backward pass, every replica gathers these numbers from all others.

    Attributes:
        normaliser: (2n, 2): m_i and r_i of the own rows, with log sum_{k != i} exp s_ik = m_i / tau + log r_i. After
            the replicas have gathered it, it is (2N, 2).
        inverse_norm: (2N,): 1/|z_i| of all rows, or 0 for a row that counts as zero. It is the same on every replica.
    """

    normaliser: tf.Tensor
    inverse_norm: tf.Tensor


def nt_xent(z: tf.Tensor, temperature: Temperature) -> tf.Tensor:
    """Return the loss of every row (SimCLR, equation 1).

    Args:
        z: (2N, d) projections in bfloat16, float16, float32 or float64, first views then second views. They need not be
            normalised.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, float64 if z is float64 and float32 otherwise. Their mean is the paper's loss L.

    Raises:
        ValueError: if z is not (2N, d) with N >= 1 and d >= 1, or temperature is not one positive finite number.
        TypeError: if z has another type than these.
        tf.errors.InvalidArgumentError: if the number of rows is odd or 0, but was unknown while the graph was built.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> round(float(tf.reduce_mean(stock.nt_xent(z, temperature=0.5))), 4)  # the paper's loss L
        0.2395
    """
    return _compute_losses(*_compute_square(z, temperature))


def nt_xent_and_top1(z: tf.Tensor, temperature: Temperature) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `nt_xent(z, temperature)` and `contrastive_top1(z)` from one matrix of similarities.

    Args:
        z: (2N, d) projections, as in `nt_xent`.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, and the (2N,) bool of `contrastive_top1`, through which no gradient flows.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> losses, top1 = stock.nt_xent_and_top1(z, temperature=0.5)
        >>> losses.shape, top1.numpy().tolist()
        (TensorShape([4]), [True, True, True, True])
    """
    s, of_positive = _compute_square(z, temperature)
    return _compute_losses(s, of_positive), _is_top1(s, of_positive)


def contrastive_top1(z: tf.Tensor) -> tf.Tensor:
    """Return whether each row's positive (the other view) is strictly the most similar of its 2N - 1 candidates.

    If another candidate is equally similar (a tie), the result is False. But rounding may separate similarities that
    are equal in exact arithmetic. NaN gives False too. With N = 1 there is no other candidate, so both rows are True.

    Args:
        z: (2N, d) projections, as in `nt_xent`.

    Returns:
        (2N,) bool.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> stock.contrastive_top1(z).numpy().tolist()
        [True, True, True, True]
    """
    return _is_top1(*_compute_square(tf.stop_gradient(z), 1.0))


def nt_xent_rows(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tf.Tensor:
    """Return the losses of pairs first_pair .. first_pair + pairs - 1. Each of their rows is compared with all 2N rows.

    If there are several replicas, each of them calls this function for its own rows. The gradient has a value for every
    row of z_all. The sum of these gradients over the replicas is the gradient of the whole loss.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair, a number or a scalar integer tensor.
        pairs: n, number of own pairs. Under jit_compile, where shapes are static, it must be a number.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2n,) losses: the own first views, then the own second views. float64 if z_all is float64 and float32 otherwise.

    Raises:
        ValueError: as in `nt_xent`, or if first_pair and pairs are numbers and do not lie within 0 .. N-1.
        TypeError, tf.errors.InvalidArgumentError: see `nt_xent`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> stock.nt_xent_rows(z, first_pair=1, pairs=1, temperature=0.5).shape
        TensorShape([2])
    """
    return _compute_losses(*_compute_rectangle(*_check_share(z_all, first_pair, pairs, temperature))[:2])


def nt_xent_rows_forward_and_top1(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, RowsState]:
    """Return the losses and top-1 of the own rows, and the state that the gradient needs.

    No gradient flows through them.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair.
        pairs: n, number of own pairs.
        temperature: tau > 0.

    Returns:
        The (2n,) losses of the own rows, the (2n,) bool of `contrastive_top1` for them, and their state.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent_rows`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> losses, top1, state = stock.nt_xent_rows_forward_and_top1(z, first_pair=1, pairs=1, temperature=0.5)
        >>> losses.shape, top1.shape, state.normaliser.shape
        (TensorShape([2]), TensorShape([2]), TensorShape([2, 2]))
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
    """Return the gradient of all 2N losses with respect to the own rows.

    c_i is the cotangent of loss_i, and lse_i is log sum_{k != i} exp s_ik. With the c and lse of all rows,

        tau du_i = sum_{j != i} (c_i exp(s_ij - lse_i) + c_j exp(s_ij - lse_j)) u_j - (c_i + c_p(i)) u_p(i)
        dz_i = (du_i - <du_i, u_i> u_i) / |z_i|

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        state: state of all 2N rows. It holds the normalisers of all replicas in the order of z_all's rows, and
            inverse_norm.
        cotangent: (2N,) weights c of all losses.
        first_pair: first own pair.
        pairs: n, number of own pairs.
        temperature: tau > 0.

    Returns:
        dz (2n, d) of the own rows, and their share of the gradient with respect to the temperature, a float64 scalar.
        The caller must sum the shares over the replicas.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent_rows`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> _, _, state = stock.nt_xent_rows_forward_and_top1(z, first_pair=0, pairs=2, temperature=0.5)
        >>> dz, dtemperature = stock.nt_xent_rows_backward(z, state, tf.fill([4], 0.25), 0, 2, temperature=0.5)
        >>> dz.shape, dtemperature.shape
        (TensorShape([4, 2]), TensorShape([]))
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
    """Check the arguments of `nt_xent_rows`. Return them with first_pair as an int32 tensor."""
    z_all, temperature = _check_rows(z_all), check_temperature(temperature)
    check_own_pairs(z_all, first_pair, pairs)
    pairs = pairs if isinstance(pairs, int) else tf.cast(pairs, tf.int32)
    return z_all, tf.cast(first_pair, tf.int32), pairs, temperature


def _compute_rectangle(
    z_all: tf.Tensor, first_pair: tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the similarities of the own rows to all rows (2n, 2N), s_ip (2n,), and the own row numbers (2n,).

    The similarity of a row to itself is -inf.
    """
    u = _normalise_rows(z_all)
    rows, width = tf.shape(u)[0], tf.shape(u)[1]
    second_view = first_pair + rows // 2
    own = tf.concat([first_pair + tf.range(pairs), second_view + tf.range(pairs)], axis=0)  # (2n,)
    # Slices are used instead of a gather, because the gradient of a gather is a slow scatter-add.
    own_u = tf.concat(
        [tf.slice(u, [first_pair, 0], [pairs, width]), tf.slice(u, [second_view, 0], [pairs, width])], axis=0
    )  # (2n, d)
    scaled = own_u / _cast_temperature(temperature, u.dtype)
    s = tf.matmul(scaled, u, transpose_b=True)  # (2n, 2N)
    itself = own[:, None] == tf.range(rows)[None, :]
    s = tf.where(itself, tf.constant(-math.inf, s.dtype), s)
    return s, _select_positive(s, (own + rows // 2) % rows, scaled, tf.roll(own_u, pairs, axis=0)), own


def _compute_inverse_norm(z: tf.Tensor) -> tf.Tensor:
    """Return 1/|z| of each row, or 0 where the row counts as zero in `_normalise_rows`: (2N,)."""
    z = tf.cast(z, _ACCUMULATION[z.dtype])
    squares = tf.reduce_sum(z * z, axis=1)
    vanishes = squares < tf.constant(_find_smallest_normal(z.dtype), z.dtype)
    return tf.where(vanishes, tf.zeros([], z.dtype), 1 / tf.sqrt(tf.where(vanishes, tf.ones([], z.dtype), squares)))


def _compute_square(z: tf.Tensor, temperature: Temperature) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the similarities of all rows (2N, 2N), -inf on the diagonal, and s_ip of each row (2N,)."""
    z, temperature = _check_rows(z), check_temperature(temperature)
    u = _normalise_rows(z)
    rows = tf.shape(u)[0]
    scaled = u / _cast_temperature(temperature, u.dtype)  # divides (2N, d) numbers by tau, not (2N, 2N)
    s = tf.matmul(scaled, u, transpose_b=True)
    if u.shape[0] is None and is_inside_xla():  # XLA cannot compile set_diag's gradient here
        places = tf.range(rows)
        s = tf.where(places[:, None] == places, tf.constant(-math.inf, s.dtype), s)
    else:
        s = tf.linalg.set_diag(s, tf.fill([rows], tf.constant(-math.inf, s.dtype)))
    partner = tf.roll(tf.range(rows), rows // 2, axis=0)
    return s, _select_positive(s, partner, scaled, tf.roll(u, rows // 2, axis=0))


def _normalise_rows(z: tf.Tensor) -> tf.Tensor:
    """Return u = z / |z| in the accumulation type (2N, d). Rows that count as zero have u = 0 and gradient 0."""
    z = tf.cast(z, _ACCUMULATION[z.dtype])
    squares = tf.reduce_sum(z * z, axis=1, keepdims=True)
    # Some of TensorFlow's threads flush subnormal numbers to zero and others do not. So we treat them as zero
    # everywhere. The comparison is false for NaN, so NaN passes through.
    vanishes = squares < tf.constant(_find_smallest_normal(z.dtype), z.dtype)
    # The inner tf.where avoids sqrt(0), whose gradient is infinite: infinity times the 0 of the outer tf.where would be
    # NaN. A root and a quotient are used instead of rsqrt, because the gradient of rsqrt contains |z|^-3, which
    # overflows for |z| = 1e-13.
    return tf.where(vanishes, tf.zeros([], z.dtype), z / tf.sqrt(tf.where(vanishes, tf.ones([], z.dtype), squares)))


def _select_positive(s: tf.Tensor, partner: tf.Tensor, scaled: tf.Tensor, u_of_partner: tf.Tensor) -> tf.Tensor:
    """Return s_ip of each row (2n,): the value from the matrix s, with the gradient of <scaled_i, u_p>.

    The value from the matrix is equal to its term in the sum over k, to the last bit. So no loss is negative, N = 1
    gives loss 0, and a tie stays a tie. A plain gather would give the same value. But its gradient would fill and add
    one more (2n, 2N) matrix. So the gradient flows through a term whose value is 0.
    """
    through_rows = tf.reduce_sum(scaled * u_of_partner, axis=1)
    from_matrix = tf.gather(s, partner, batch_dims=1)
    return tf.stop_gradient(from_matrix) + (through_rows - tf.stop_gradient(through_rows))


def _compute_losses(s: tf.Tensor, of_positive: tf.Tensor) -> tf.Tensor:
    """Return equation (1) for any tau: (2n,).

    Each row is shifted by its maximum, which is finite since N >= 1.
    """
    largest = tf.stop_gradient(tf.reduce_max(s, axis=1))
    return tf.math.log(tf.reduce_sum(tf.exp(s - largest[:, None]), axis=1)) + (largest - of_positive)


def _is_top1(s: tf.Tensor, of_positive: tf.Tensor) -> tf.Tensor:
    """Return whether every other candidate is less similar than the positive: (2n,) bool."""
    s, of_positive = tf.stop_gradient(s), tf.stop_gradient(of_positive)
    # For True, the similarity of the positive must be larger than that of every other column. The diagonal is -inf and
    # counts as smaller. NaN does not count as smaller.
    below = tf.math.count_nonzero(s < of_positive[:, None], axis=1, dtype=tf.int32)
    return below == tf.shape(s)[1] - 1


def _cast_temperature(temperature: Temperature, dtype: tf.DType) -> tf.Tensor:
    """Return tau in the accumulation type.

    tf.cast would turn a Python number into float32 first, so a number becomes a constant directly.
    """
    return tf.constant(temperature, dtype) if isinstance(temperature, Real) else tf.cast(temperature, dtype)


def _find_smallest_normal(dtype: tf.DType) -> float:
    """Return the smallest normal number of float32 or float64."""
    return 2.0**-1022 if dtype == tf.float64 else 2.0**-126


def _check_rows(z: tf.Tensor) -> tf.Tensor:
    """Return z as a tensor that is known, or asserted in the graph, to be (2N, d) of a supported type."""
    z = check_projections(z)
    if z.shape.rank is None:
        z = tf.ensure_shape(z, [None, None])
    if z.shape[0] is not None:
        return z
    shape = tf.shape(z)
    sound = tf.debugging.Assert(
        tf.logical_and(shape[0] > 0, shape[0] % 2 == 0),
        ["NT-Xent needs z of 2N rows and d columns, N >= 1 and d >= 1. z has shape", shape],
    )
    with tf.control_dependencies([sound]):
        return tf.identity(z)
