"""NT-Xent on the native library: exact, linear in memory, on all cores. kernels/nt_xent/nt_xent.h has the formula.

Names, signatures and types as in `stock`. What the backward pass needs is kept in a few (2N,) vectors; the (2N, 2N)
matrix is never stored. Inside `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`). There is no
second derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import tensorflow as tf

from lowlevel_simclr.contract.nt_xent_checks import Temperature, check_own_pairs, check_projections, check_temperature
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.runtime import xla

_SUMS = {tf.bfloat16: tf.float32, tf.float16: tf.float32, tf.float32: tf.float32, tf.float64: tf.float64}


class RowsState(NamedTuple):
    """What the gradient of own rows needs of the forward pass; gathered over replicas before it.

    normaliser: (2n, 2): m_i and r_i, with log sum_k exp s_ik = m_i / tau + log r_i. Gathered: (2N, 2).
    inverse_norm: (2N,): 1/|z_i| of all rows, the same on every replica.
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
        tf.errors.InvalidArgumentError: what could not be seen while the graph was built. (On a GPU the results are
        NaN.) XlaRouteError: under jit_compile or on a GPU with a TensorFlow whose XLA cannot reach the kernels.
        NotImplementedError: on a GPU, with a library that was built without CUDA kernels.
    """
    return nt_xent_and_top1(z, temperature)[0]


def nt_xent_and_top1(z: tf.Tensor, temperature: Temperature) -> tuple[tf.Tensor, tf.Tensor]:
    """`nt_xent(z, temperature)` and `contrastive_top1(z)` from one pass.

    Args:
        z: (2N, d) projections, as `nt_xent`.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, and (2N,) bool through which no gradient flows.

    Raises:
        As `nt_xent`.
    """
    z, temperature = check_projections(z), _take_temperature(temperature)
    if _route.takes_custom_call(z):
        return _compute_in_xla(z, temperature)
    outputs = _library.load_library().lowlevel_simclr_nt_xent(z=z, temperature=temperature, S=_SUMS[z.dtype])
    return outputs[0], outputs[3]


def contrastive_top1(z: tf.Tensor) -> tf.Tensor:
    """Whether a row's positive is strictly the most similar of its 2N - 1 candidates.

    A tie is a miss: equal rows have bit-equal similarities. NaN is a miss; with N = 1 both rows hit.

    Args:
        z: (2N, d) projections, as `nt_xent`.

    Returns:
        (2N,) bool.

    Raises:
        As `nt_xent`.
    """
    return nt_xent_and_top1(tf.stop_gradient(z), 1.0)[1]


def nt_xent_rows(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tf.Tensor:
    """Losses of the rows of pairs first_pair .. first_pair + pairs - 1 against all 2N columns.

    Its gradient reaches all of z_all: summed over replicas it is the gradient of the whole loss. That costs each
    replica a backward pass over all rows; replicas that gather their states and cotangents use `nt_xent_rows_forward`
    and `nt_xent_rows_backward`, which do their own share alone.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: the first own pair, a number or a scalar integer tensor.
        pairs: how many pairs n are own; a number under jit_compile, where shapes are static.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2n,) losses, the own first views and then the own second views.

    Raises:
        As `nt_xent`; ValueError also for numbers first_pair and pairs that do not lie within 0 .. N-1.
    """
    z_all, temperature = check_projections(z_all), _take_temperature(temperature)
    check_own_pairs(z_all, first_pair, pairs)
    by_call = _route.takes_custom_call(z_all)  # once: the gradient may be asked for outside the scope of a tf.device

    @tf.custom_gradient
    def losses(z: tf.Tensor, tau: tf.Tensor) -> tuple[tf.Tensor, Any]:
        loss, _, state = _compute_rows_forward(z, first_pair, pairs, tau, by_call)

        def gradient(cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            own = _list_own_rows(tf.shape(z)[0], first_pair, pairs)[:, None]  # (2n, 1)
            everywhere = tf.tensor_scatter_nd_update(tf.zeros_like(state.inverse_norm), own, cotangent)  # (2N,)
            neutral = tf.ones_like(tf.stack([state.inverse_norm] * 2, axis=1))  # (2N, 2): nothing is divided by 0
            normaliser = tf.tensor_scatter_nd_update(neutral, own, state.normaliser)
            return _compute_backward(z, normaliser, state.inverse_norm, everywhere, tau, by_call)

        return loss, gradient

    return losses(z_all, temperature)


def nt_xent_rows_forward(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, RowsState]:
    """`nt_xent_rows` without a gradient, and what `nt_xent_rows_backward` needs.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: the first own pair.
        pairs: how many pairs n are own.
        temperature: tau > 0.

    Returns:
        (2n,) losses of the own rows, and their state.

    Raises:
        As `nt_xent_rows`.
    """
    loss, _, state = nt_xent_rows_forward_and_top1(z_all, first_pair, pairs, temperature)
    return loss, state


def nt_xent_rows_forward_and_top1(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, RowsState]:
    """`nt_xent_rows_forward`, and `contrastive_top1` of the own rows, from one pass.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: the first own pair.
        pairs: how many pairs n are own.
        temperature: tau > 0.

    Returns:
        (2n,) losses of the own rows, (2n,) bool, and the rows' state.

    Raises:
        As `nt_xent_rows`.
    """
    z_all, temperature = check_projections(z_all), _take_temperature(temperature)
    check_own_pairs(z_all, first_pair, pairs)
    by_call = _route.takes_custom_call(z_all)
    return _compute_rows_forward(tf.stop_gradient(z_all), first_pair, pairs, tf.stop_gradient(temperature), by_call)


def nt_xent_rows_backward(
    z_all: tf.Tensor,
    state: RowsState,
    cotangent: tf.Tensor,
    first_pair: int | tf.Tensor,
    pairs: int | tf.Tensor,
    temperature: Temperature,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient of all 2N losses with respect to the own rows.

    Args:
        z_all: (2N, d) projections of all replicas.
        state: of all 2N rows: the replicas' normalisers in the order of z_all's rows, and inverse_norm.
        cotangent: (2N,) weights of all the losses.
        first_pair: the first own pair.
        pairs: how many pairs n are own.
        temperature: tau > 0.

    Returns:
        (2n, d) dz of the own rows; the own rows' share of the gradient to the temperature, float64 (), to be
        summed over replicas.

    Raises:
        As `nt_xent_rows`.
    """
    z_all, temperature = check_projections(z_all), _take_temperature(temperature)
    check_own_pairs(z_all, first_pair, pairs)
    inputs = [z_all, state.normaliser, state.inverse_norm, cotangent, temperature, tf.cast(first_pair, tf.int64)]
    width = z_all.shape[1]
    if _route.takes_custom_call(z_all):
        outputs = [((2 * _find_static_pairs(pairs), width), z_all.dtype), ((), tf.float64)]
        dz, dtemperature = _route.call_handler("lowlevel_simclr_nt_xent_rows_grad", inputs, outputs)
    else:
        dz, dtemperature = _library.load_library().lowlevel_simclr_nt_xent_rows_grad(*inputs, tf.cast(pairs, tf.int64))
        dz.set_shape([_double_static(pairs), width])
    return dz, dtemperature


# ---- Forward and backward, on either route --------------------------------------------------------------------------


@tf.custom_gradient
def _compute_in_xla(z: tf.Tensor, temperature: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Any]:
    outputs = _list_forward_specs(z, z.shape[0])
    loss, normaliser, inverse_norm, top1 = _route.call_handler("lowlevel_simclr_nt_xent", [z, temperature], outputs)

    def gradient(cotangent: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _compute_backward(z, normaliser, inverse_norm, cotangent, temperature, True)

    return (loss, top1), gradient


@tf.RegisterGradient("LowlevelSimclr>NtXent")
def _compute_gradient(op: tf.Operation, cotangent: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    z, temperature = op.inputs
    return _compute_backward(z, op.outputs[1], op.outputs[2], cotangent, temperature, xla.is_inside_xla())


@tf.RegisterGradient("LowlevelSimclr>NtXentGrad")
def _refuse_second_gradient(*_: Any, **__: Any) -> NoReturn:
    raise LookupError("The native NT-Xent has no second derivative: use the stock op for it (--ops stock).")


def _compute_backward(
    z: tf.Tensor,
    normaliser: tf.Tensor,
    inverse_norm: tf.Tensor,
    cotangent: tf.Tensor,
    temperature: tf.Tensor,
    by_call: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients dz (2N, d) and dtemperature (), float64."""
    inputs = [z, normaliser, inverse_norm, cotangent, temperature]
    return _call_backward(*inputs) if by_call else tuple(_library.load_library().lowlevel_simclr_nt_xent_grad(*inputs))


@tf.custom_gradient
def _call_backward(z: tf.Tensor, *others: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Any]:
    """`_backward`, whose missing gradient is told in our words."""
    outputs = [(z.shape, z.dtype), ((), tf.float64)]
    dz, dtemperature = _route.call_handler("lowlevel_simclr_nt_xent_grad", [z, *others], outputs)
    return (dz, dtemperature), _refuse_second_gradient


def _compute_rows_forward(
    z: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: tf.Tensor, by_call: bool
) -> tuple[tf.Tensor, tf.Tensor, RowsState]:
    first = tf.cast(first_pair, tf.int64)
    if by_call:
        outputs = _list_forward_specs(z, 2 * _find_static_pairs(pairs))
        found = _route.call_handler("lowlevel_simclr_nt_xent_rows", [z, temperature, first], outputs)
    else:
        found = _library.load_library().lowlevel_simclr_nt_xent_rows(
            z=z, temperature=temperature, first_pair=first, pairs=tf.cast(pairs, tf.int64), S=_SUMS[z.dtype]
        )
        for tensor, shape in zip(
            found, ([_double_static(pairs)], [_double_static(pairs), 2], [z.shape[0]], [_double_static(pairs)])
        ):
            tensor.set_shape(shape)
    loss, normaliser, inverse_norm, top1 = found
    return loss, top1, RowsState(normaliser, inverse_norm)


def _list_forward_specs(z: tf.Tensor, own_rows: int | None) -> list[_route.Spec]:
    """Shapes and types of loss, normaliser, inverse_norm and top1."""
    sums, rows = _SUMS[z.dtype], z.shape[0]
    shapes: list[tuple[Sequence[Any], tf.DType]] = [((own_rows,), sums), ((own_rows, 2), sums), ((rows,), sums)]
    return [*shapes, ((own_rows,), tf.bool)]


def _list_own_rows(rows: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor) -> tf.Tensor:
    """Row numbers of the own rows, (2n,)."""
    first_views = tf.cast(first_pair, tf.int32) + tf.range(pairs)
    return tf.concat([first_views, rows // 2 + first_views], axis=0)


def _double_static(pairs: int | tf.Tensor) -> int | None:
    """2n where n can be seen."""
    value = tf.get_static_value(pairs)
    return None if value is None else 2 * int(value)


def _find_static_pairs(pairs: int | tf.Tensor) -> int:
    """N as a number, which shapes under jit_compile need."""
    value = tf.get_static_value(pairs)
    if value is None:
        raise ValueError("pairs is not known while tracing: under jit_compile give it as a number.")
    return int(value)


# ---- Checks ---------------------------------------------------------------------------------------------------------


def _take_temperature(temperature: Temperature) -> tf.Tensor:
    """The temperature as a float64 scalar tensor."""
    temperature = check_temperature(temperature)
    # A number goes there directly. Through tf.cast it would become float32 on its way.
    return tf.cast(temperature, tf.float64) if tf.is_tensor(temperature) else tf.constant(temperature, tf.float64)
