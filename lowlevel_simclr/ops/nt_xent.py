"""NT-Xent, the loss of SimCLR, with native kernels. It is exact, needs memory linear in the batch, and uses all cores.

The formula is in kernels/nt_xent/nt_xent.h. Names, signatures and types are the same as in `stock` (plain TensorFlow).
For a batch of N images, the op keeps a few (2N,) vectors for the backward pass, and never stores the (2N, 2N) matrix of
similarities. Under `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`). There is no second
derivative.

A pair is the two views (random crops) of one image. If several replicas (devices) share a batch, each of them owns some
of the N pairs. The rows of these pairs are its own rows.
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
    """Results of the forward pass that the backward pass needs. The replicas gather them in between.

    Attributes:
        normaliser: (2n, 2): m_i and r_i of the own rows of n pairs, with log sum_{k != i} exp s_ik = m_i / tau + log
            r_i, where s_ik is the cosine similarity of rows i and k divided by tau. After the replicas have gathered
            their normalisers, the shape is (2N, 2).
        inverse_norm: (2N,): 1/|z_i| of all rows, or 0 if |z_i| is 0 or so small that the type cannot hold 1/|z_i|. It
            is the same on every replica.
    """

    normaliser: tf.Tensor
    inverse_norm: tf.Tensor


def nt_xent(z: tf.Tensor, temperature: Temperature) -> tf.Tensor:
    """Return the NT-Xent loss of every row (SimCLR, equation 1). A row is one view.

    Args:
        z: (2N, d) projections in bfloat16, float16, float32 or float64, first views then second views. They need not be
            normalised.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, float64 if z is float64 and float32 otherwise. Their mean is the paper's loss L.

    Raises:
        ValueError: if z is not (2N, d) with N >= 1 and d >= 1, or temperature is not one positive finite number.
        TypeError: if the type of z is not one of the four types above.
        tf.errors.InvalidArgumentError: if z or temperature is wrong, but their values were not known while the graph
            was built. On a GPU, no error is raised, and the results are NaN.
        XlaRouteError: under jit_compile or on a GPU, if XLA cannot call the kernels in this TensorFlow.
        NotImplementedError: on a GPU, if the library was built without CUDA kernels.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> round(float(tf.reduce_mean(ops.nt_xent(z, temperature=0.5))), 4)  # the paper's loss L
        0.2395
    """
    return nt_xent_and_top1(z, temperature)[0]


def nt_xent_and_top1(z: tf.Tensor, temperature: Temperature) -> tuple[tf.Tensor, tf.Tensor]:
    """Return both `nt_xent(z, temperature)` and `contrastive_top1(z)`, computed in one pass.

    Args:
        z: (2N, d) projections, as in `nt_xent`.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2N,) losses, and the (2N,) bool of `contrastive_top1`, through which no gradient flows.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent`.
        XlaRouteError, NotImplementedError: see `nt_xent`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> losses, top1 = ops.nt_xent_and_top1(z, temperature=0.5)
        >>> losses.shape, top1.numpy().tolist()
        (TensorShape([4]), [True, True, True, True])
    """
    z, temperature = check_projections(z), _take_temperature(temperature)
    if _route.takes_custom_call(z):
        return _compute_in_xla(z, temperature)
    outputs = _library.load_library().lowlevel_simclr_nt_xent(z=z, temperature=temperature, S=_SUMS[z.dtype])
    return outputs[0], outputs[3]


def contrastive_top1(z: tf.Tensor) -> tf.Tensor:
    """Return, for each row, whether the most similar of all other rows is the other view of the same image.

    If a third row is equally similar (a tie), the result is False. Equal rows have bit-equal similarities, so a tie
    between equal rows is always found. NaN gives False too. With N = 1 there is no third row, so both results are True.

    Args:
        z: (2N, d) projections, as in `nt_xent`.

    Returns:
        (2N,) bool.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent`.
        XlaRouteError, NotImplementedError: see `nt_xent`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> ops.contrastive_top1(z).numpy().tolist()
        [True, True, True, True]
    """
    return nt_xent_and_top1(tf.stop_gradient(z), 1.0)[1]


def nt_xent_rows(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tf.Tensor:
    """Return the losses of a replica's own rows: those of the pairs first_pair .. first_pair + pairs - 1.

    Each own row is compared with all 2N rows. The gradient is with respect to all of z_all, so each replica computes a
    backward pass over all rows. The sum of these gradients over the replicas is the gradient of the whole loss.

    Replicas can instead gather their states (`RowsState`) and their cotangents (the gradients of the final loss with
    respect to the row losses). They should then use `nt_xent_rows_forward` and `nt_xent_rows_backward`, which compute
    only the gradient of the own rows.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair, a number or a scalar integer tensor.
        pairs: n, number of own pairs. Under jit_compile and on a GPU it must be a number and not a tensor, because
            shapes are static there.
        temperature: tau > 0, a number or a scalar tensor.

    Returns:
        (2n,) losses: those of the own first views, then those of the own second views. They are float64 if z_all is
        float64, and float32 otherwise.

    Raises:
        ValueError: as in `nt_xent`, or if first_pair and pairs are numbers and do not lie within 0 .. N-1.
        TypeError, tf.errors.InvalidArgumentError: see `nt_xent`.
        XlaRouteError, NotImplementedError: see `nt_xent`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> ops.nt_xent_rows(z, first_pair=1, pairs=1, temperature=0.5).shape
        TensorShape([2])
    """
    z_all, temperature = check_projections(z_all), _take_temperature(temperature)
    check_own_pairs(z_all, first_pair, pairs)
    # The route is chosen here for both passes, because the gradient may be computed outside the tf.device scope.
    by_call = _route.takes_custom_call(z_all)

    @tf.custom_gradient
    def losses(z: tf.Tensor, tau: tf.Tensor) -> tuple[tf.Tensor, Any]:
        loss, _, state = _compute_rows_forward(z, first_pair, pairs, tau, by_call)

        def gradient(cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            own = _list_own_rows(tf.shape(z)[0], first_pair, pairs)[:, None]  # (2n, 1)
            everywhere = tf.tensor_scatter_nd_update(tf.zeros_like(state.inverse_norm), own, cotangent)  # (2N,)
            # The other rows have cotangent 0. Their normaliser is 1, so that nothing is divided by 0.
            neutral = tf.ones_like(tf.stack([state.inverse_norm] * 2, axis=1))  # (2N, 2)
            normaliser = tf.tensor_scatter_nd_update(neutral, own, state.normaliser)
            return _compute_backward(z, normaliser, state.inverse_norm, everywhere, tau, by_call)

        return loss, gradient

    return losses(z_all, temperature)


def nt_xent_rows_forward(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, RowsState]:
    """Return the losses of `nt_xent_rows`, but without a gradient, and the state for `nt_xent_rows_backward`.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair.
        pairs: n, number of own pairs.
        temperature: tau > 0.

    Returns:
        (2n,) losses of the own rows, and their state.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent_rows`.
        XlaRouteError, NotImplementedError: see `nt_xent_rows`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> losses, state = ops.nt_xent_rows_forward(z, first_pair=1, pairs=1, temperature=0.5)
        >>> losses.shape, state.normaliser.shape, state.inverse_norm.shape
        (TensorShape([2]), TensorShape([2, 2]), TensorShape([4]))
    """
    loss, _, state = nt_xent_rows_forward_and_top1(z_all, first_pair, pairs, temperature)
    return loss, state


def nt_xent_rows_forward_and_top1(
    z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor, temperature: Temperature
) -> tuple[tf.Tensor, tf.Tensor, RowsState]:
    """Return the results of `nt_xent_rows_forward` and `contrastive_top1` for the own rows, computed in one pass.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        first_pair: first own pair.
        pairs: n, number of own pairs.
        temperature: tau > 0.

    Returns:
        The (2n,) losses of the own rows, the (2n,) bool of `contrastive_top1` for them, and their state.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent_rows`.
        XlaRouteError, NotImplementedError: see `nt_xent_rows`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> losses, top1, state = ops.nt_xent_rows_forward_and_top1(z, first_pair=1, pairs=1, temperature=0.5)
        >>> losses.shape, top1.shape, state.normaliser.shape
        (TensorShape([2]), TensorShape([2]), TensorShape([2, 2]))
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
    """Return the gradient of sum_i c_i loss_i over all 2N losses, with respect to the own rows.

    It also returns the own rows' share of the gradient with respect to the temperature.

    Args:
        z_all: (2N, d) projections of all replicas, first views then second views.
        state: state of all 2N rows. It holds the normalisers of all replicas in the order of z_all's rows, and
            inverse_norm.
        cotangent: (2N,) weights c_i of all losses.
        first_pair: first own pair.
        pairs: n, number of own pairs.
        temperature: tau > 0.

    Returns:
        dz (2n, d) of the own rows, and their share of the gradient with respect to the temperature, a float64 scalar.
        The caller must sum the shares over the replicas.

    Raises:
        ValueError, TypeError, tf.errors.InvalidArgumentError: see `nt_xent_rows`.
        XlaRouteError, NotImplementedError: see `nt_xent_rows`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> z = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # (2N, d), N = 2
        >>> _, _, state = ops.nt_xent_rows_forward_and_top1(z, first_pair=0, pairs=2, temperature=0.5)
        >>> dz, dtemperature = ops.nt_xent_rows_backward(z, state, tf.fill([4], 0.25), 0, 2, temperature=0.5)
        >>> dz.shape, dtemperature.shape
        (TensorShape([4, 2]), TensorShape([]))
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
    raise LookupError("The native NT-Xent has no second derivative. Use the stock op for it (--ops stock).")


def _compute_backward(
    z: tf.Tensor,
    normaliser: tf.Tensor,
    inverse_norm: tf.Tensor,
    cotangent: tf.Tensor,
    temperature: tf.Tensor,
    by_call: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the gradients dz (2N, d) and dtemperature (), float64."""
    inputs = [z, normaliser, inverse_norm, cotangent, temperature]
    return _call_backward(*inputs) if by_call else tuple(_library.load_library().lowlevel_simclr_nt_xent_grad(*inputs))


@tf.custom_gradient
def _call_backward(z: tf.Tensor, *others: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Any]:
    """Call the backward kernel through XLA. The gradient of this call raises an error (`_refuse_second_gradient`)."""
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
    """Return the shapes and types of the results loss, normaliser, inverse_norm and top1 of the forward kernel."""
    sums, rows = _SUMS[z.dtype], z.shape[0]
    shapes: list[tuple[Sequence[Any], tf.DType]] = [((own_rows,), sums), ((own_rows, 2), sums), ((rows,), sums)]
    return [*shapes, ((own_rows,), tf.bool)]


def _list_own_rows(rows: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor) -> tf.Tensor:
    """Return the row numbers of the own rows, (2n,)."""
    first_views = tf.cast(first_pair, tf.int32) + tf.range(tf.cast(pairs, tf.int32))
    return tf.concat([first_views, rows // 2 + first_views], axis=0)


def _double_static(pairs: int | tf.Tensor) -> int | None:
    """Return 2n if n is known while tracing, otherwise None."""
    value = tf.get_static_value(pairs)
    return None if value is None else 2 * int(value)


def _find_static_pairs(pairs: int | tf.Tensor) -> int:
    """Return `pairs` as a number. Raise a ValueError if it is not known while tracing."""
    value = tf.get_static_value(pairs)
    if value is None:
        raise ValueError("pairs is not known while tracing. Under jit_compile or on a GPU, pass it as a number.")
    return int(value)


# ---- Checks ---------------------------------------------------------------------------------------------------------


def _take_temperature(temperature: Temperature) -> tf.Tensor:
    """Return the temperature as a float64 scalar tensor."""
    temperature = check_temperature(temperature)
    # tf.cast would turn a Python number into float32 first, so a number becomes a float64 constant directly.
    return tf.cast(temperature, tf.float64) if tf.is_tensor(temperature) else tf.constant(temperature, tf.float64)
