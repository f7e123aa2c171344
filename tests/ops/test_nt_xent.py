"""Tests NT-Xent, the loss of SimCLR, in C++ (native) and in TensorFlow's own ops (stock), against a NumPy reference.

The sections are: losses; gradients with random cotangents; gradients against central differences; mathematical
properties; errors; determinism; and mutants. A gradient is that of a weighted sum of the losses. These weights, one for
each loss, are called cotangents. A mutant is a formula with one mistake. The checks of the first two sections must find
each mutant.

Symbols in this file: z has 2N rows of d numbers, one for each of the two views of N images. u is a row divided by its
length. s is the product of two u, divided by the temperature tau. lse is the logarithm of a row's sum of exp(s). dz and
dtau are the gradients to z and tau. The positive of a row is the other view of its image. The candidates of a row are
all other rows. top1 says for each row whether its positive is the most similar candidate.

An implementation is a package with `nt_xent(z, temperature)`, `nt_xent_rows(z_all, first_pair, pairs, temperature)`,
`nt_xent_and_top1(z, temperature)` and `contrastive_top1(z)`.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr import reference, stock
from lowlevel_simclr.verification.bound import (
    EPSILON,
    SLACK,
    compute_gradient_scale,
    compute_loss_scale,
    compute_temperature_scale,
    find_accumulation_type,
)
from tests.support.closeness import assert_close
from tests.support.host import on_the_host

NATIVE = Path(stock.__file__).parents[1] / "ops" / "nt_xent.py"
XLA_HAS_FFI = not tf.__version__.startswith(
    "2.15."
)  # XLA calls a native op through its foreign function interface (FFI), which TensorFlow 2.15 lacks
DTYPES = ("float32", "float64", "bfloat16", "float16")
TEMPERATURES = (0.001, 0.005, 0.01, 0.03, 0.1, 0.5, 10.0)
# Each shape is (N, d). The kernels divide the rows into tiles of 16, 32 or 64 rows. Several N are close to multiples of
# these sizes. Some widths d are multiples of the length of a vector register.
SHAPES = ((1, 1), (1, 8), (2, 3), (3, 2), (16, 128), (17, 5), (31, 33), (33, 127), (65, 16), (129, 130))
CROWDED, SPREAD = "crowded", "spread"


@pytest.fixture(params=["stock"] + ["ops"] * NATIVE.exists())
def implementation(request) -> Any:
    """Return `lowlevel_simclr.stock`, or `lowlevel_simclr.ops` (native) if it has the module nt_xent.py."""
    return importlib.import_module(f"lowlevel_simclr.{request.param}")


def projections(pairs: int, width: int, dtype: str, temperature: float, kind: str, seed: int = 0) -> np.ndarray:
    """Return z (2N, d) of type `dtype`. Its rows have very different lengths. The two views of an image are similar.

    From N = 3 on, one row is zero, and two rows of different images have the same direction.

    There are two kinds of z. "spread" rows point in any direction. With a small tau, one candidate of such a row has
    almost all the weight in its loss. The distances |u_i - u_j|^2 of "crowded" rows are about tau. So all candidates
    have similar weights, and every rounding error of s changes dz.
    """
    draw = np.random.default_rng([seed, pairs, width])
    first = draw.normal(size=(pairs, width)) / width**0.5
    z = np.concatenate([first, first + 0.5 * draw.normal(size=(pairs, width)) / width**0.5])
    if kind == CROWDED:
        z = width**-0.5 + min(temperature, 1.0) ** 0.5 * z
    z *= np.exp(draw.uniform(-3, 3, size=(2 * pairs, 1)))
    if pairs >= 3:
        z[pairs + 1] = 0
        z[0] = 2 * z[2]  # rows of two images, with similarity 1
    return z.astype(tf.as_dtype(dtype).as_numpy_dtype)


def cotangents(rows: int, dtype: str, size: float = 1.0) -> np.ndarray:
    """Return random weights of the losses, (2N,), between -`size` and `size`, in the type that the op uses for sums."""
    draw = np.random.default_rng([7, rows])
    return (size * draw.uniform(-1, 1, size=rows)).astype(find_accumulation_type(dtype))


def widened(z: np.ndarray) -> tf.Tensor:
    """Return z, cast to the type that the op uses for sums. The cast rounds nothing."""
    return tf.constant(z.astype(find_accumulation_type(z.dtype.name)))


def loss_and_gradients(
    nt_xent: Callable[..., tf.Tensor], z: tf.Tensor, temperature: tf.Tensor, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the losses (2N,), dz (2N, d) and dtau ()."""
    with tf.GradientTape() as tape:
        tape.watch([z, temperature])
        loss = nt_xent(z, temperature)
    return loss, *tape.gradient(loss, [z, temperature], output_gradients=cotangent)


def alone(implementation: Any, scale: Any, dtype: str, conditioning: float = 1.0) -> Any:
    """Return the unit of errors (scale) for `assert_close`. It is larger if the stock implementation is tested alone.

    The bound for the native implementation contains the measured error of the stock implementation. The bound for the
    stock implementation has no such part. So its scale is multiplied by `conditioning`, because an error of eps/tau in
    s changes the weights exp(s - lse). In float64, it is also doubled, because the reference has errors of this size.
    """
    return scale * conditioning * (2 if dtype == "float64" else 1) if implementation is stock else scale


def check_loss(implementation: Any, z: np.ndarray, temperature: float) -> None:
    """Compare the losses with the reference."""
    dtype = z.dtype.name
    loss = implementation.nt_xent(tf.constant(z), temperature)
    beside = None if implementation is stock else stock.nt_xent(widened(z), temperature).numpy()
    assert loss.dtype == find_accumulation_type(dtype)
    scale = alone(implementation, compute_loss_scale(temperature), dtype)
    assert_close(loss.numpy(), reference.nt_xent(z, temperature), beside, dtype=dtype, scale=scale)


def neighbours(z: np.ndarray, tau: tf.Tensor, cotangent: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Change the last bits of z at random, 15 times. Yield the dz of the stock implementation and of the reference."""
    draw, wide = np.random.default_rng(3), widened(z).numpy()
    for _ in range(15):
        moved = wide * (1 + EPSILON[wide.dtype.name] * draw.integers(-4, 5, size=z.shape)).astype(wide.dtype)
        dz = loss_and_gradients(stock.nt_xent, tf.constant(moved), tau, tf.constant(cotangent))[1]
        yield dz.numpy(), reference.nt_xent_gradient(moved, float(tau), cotangent)


def check_gradients(
    implementation: Any, z: np.ndarray, temperature: float, cotangent: np.ndarray, run: Callable | None = None
) -> None:
    """Compare losses, dz and dtau with the reference. `run` computes them; by default, TensorFlow runs eagerly."""
    dtype = z.dtype.name
    tau, c = tf.constant(temperature, find_accumulation_type(dtype)), tf.constant(cotangent)
    loss, dz, dtau = (run or loss_and_gradients)(implementation.nt_xent, tf.constant(z), tau, c)
    assert (loss.dtype, dz.dtype, dtau.dtype) == (find_accumulation_type(dtype), dtype, find_accumulation_type(dtype))
    beside, draws = [None] * 3, ()
    if implementation is not stock:
        beside = [value.numpy() for value in loss_and_gradients(stock.nt_xent, widened(z), tau, c)]
        draws = neighbours(z, tau, cotangent)
    exact = float(tau)  # tau as the op gets it, rounded to its type
    scale = alone(implementation, compute_loss_scale(exact), dtype)
    assert_close(loss.numpy(), reference.nt_xent(z, exact), beside[0], dtype=dtype, scale=scale)
    # dz contains the weights exp(s - lse). The error of s is a few eps/tau, and so is the relative error of a weight.
    scale = alone(implementation, compute_gradient_scale(z, cotangent, exact), dtype, 1 + 1 / exact)
    expected = reference.nt_xent_gradient(z, exact, cotangent)
    assert_close(dz.numpy(), expected, beside[1], dtype=dtype, scale=scale, draws=draws)
    scale = alone(implementation, compute_temperature_scale(cotangent, exact), dtype)
    expected = reference.nt_xent_temperature_gradient(z, exact, cotangent)
    assert_close(dtau.numpy(), expected, beside[2], dtype=dtype, scale=scale)


# Losses, compared with the reference


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_agrees_with_the_reference(implementation, dtype, temperature):
    """Test "spread" and "crowded" rows. The temperature is a Python number."""
    for place, (pairs, width) in enumerate(SHAPES):
        kind = (SPREAD, CROWDED)[(place + TEMPERATURES.index(temperature)) % 2]
        check_loss(implementation, projections(pairs, width, dtype, temperature, kind), temperature)


def check_rows(implementation: Any, z: np.ndarray, first: int, own: int, temperature: float, loss: tf.Tensor) -> None:
    """Compare the losses of some rows with the reference: the rows of `own` pairs, from pair `first` on."""
    dtype = z.dtype.name
    beside = None
    if implementation is not stock:
        beside = stock.nt_xent_rows(widened(z), first, own, temperature).numpy()
    assert loss.dtype == find_accumulation_type(dtype)
    scale = alone(implementation, compute_loss_scale(temperature), dtype)
    assert_close(loss.numpy(), reference.nt_xent_rows(z, first, own, temperature), beside, dtype=dtype, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("pairs", "own"), [(1, 1), (6, 1), (6, 2), (33, 11), (17, 17)])
def test_rows_of_all_replicas_are_the_whole(implementation, pairs, own, dtype):
    z, temperature = projections(pairs, 7, dtype, 0.1, SPREAD), 0.1
    cotangent = cotangents(2 * pairs, dtype)
    total = np.zeros(z.shape)
    for first in range(0, pairs, own):
        z_all = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(z_all)
            loss = implementation.nt_xent_rows(z_all, first, own, temperature)
        check_rows(implementation, z, first, own, temperature, loss)
        own_cotangent = tf.constant(cotangent[reference.list_own_rows(2 * pairs, first, own)])
        total += tape.gradient(loss, z_all, output_gradients=own_cotangent).numpy()
    scale = compute_gradient_scale(z, cotangent, temperature)
    # `total` is a sum of one gradient for each replica (device). Each gradient is about as large as `scale`. It has the
    # usual error of a gradient, and is rounded once to the type of z.
    of_gradient = SLACK * EPSILON[find_accumulation_type(dtype)] * (1 + 1 / temperature)
    allowed = pairs // own * (of_gradient + EPSILON[dtype] / 2) * scale
    assert np.all(np.abs(total - reference.nt_xent_gradient(z, temperature, cotangent)) <= allowed)


def test_rows_take_first_pair_as_a_tensor_in_a_graph(implementation):
    """Test first_pair as a tensor. So several replicas (devices) can share a graph, each with its own first_pair."""
    z = projections(6, 5, "float32", 0.1, SPREAD)
    rows = tf.function(lambda first: implementation.nt_xent_rows(tf.constant(z), first, 2, 0.1))
    for first in (0, 2, 4):
        check_rows(implementation, z, first, 2, 0.1, rows(tf.constant(first)))


@pytest.mark.parametrize("kind", [tf.int32, tf.int64])
def test_rows_take_pairs_as_a_tensor_of_either_integer_type(implementation, kind):
    z = projections(6, 5, "float32", 0.1, SPREAD)
    loss = implementation.nt_xent_rows(tf.constant(z), tf.constant(2, kind), tf.constant(2, kind), 0.1)
    check_rows(implementation, z, 2, 2, 0.1, loss)


@pytest.mark.parametrize("dtype", DTYPES)
def test_top1_agrees_with_the_reference(implementation, dtype):
    """Test rows whose top1 cannot change by rounding, and rows with two equally similar candidates (ties)."""
    z = projections(31, 16, dtype, 0.1, SPREAD)
    unit = reference.normalise_rows(z)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -2)
    of_positive = similar[np.arange(62), reference.find_positive(62)]
    others = np.where(np.eye(62)[reference.find_positive(62)] == 1, -2, similar)
    clear = np.abs(of_positive - np.max(others, axis=1)) > 8 * EPSILON["float32"]
    expected = reference.contrastive_top1(z)
    assert np.any(expected[clear]) and not np.all(expected[clear])
    np.testing.assert_array_equal(implementation.contrastive_top1(tf.constant(z)).numpy()[clear], expected[clear])
    tied = np.array([[1, 0, 0], [0, 1, 0], [0, 2, 0], [4, 0, 0], [0, 4, 0], [0, 0, 0]], z.dtype)
    top1 = implementation.contrastive_top1(tf.constant(tied))
    np.testing.assert_array_equal(top1.numpy(), [True, False, False, True, False, False])


def test_top1_beside_the_loss_is_the_same(implementation):
    z = tf.constant(projections(17, 9, "float32", 0.1, SPREAD))
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss, top1 = implementation.nt_xent_and_top1(z, 0.1)
        hits = tf.reduce_sum(tf.cast(top1, tf.float32))
    np.testing.assert_array_equal(loss.numpy(), implementation.nt_xent(z, 0.1).numpy())
    np.testing.assert_array_equal(top1.numpy(), implementation.contrastive_top1(z).numpy())
    assert tape.gradient(hits, z) is None


# Gradients with random cotangents, compared with the reference


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_agrees_with_the_reference(implementation, dtype, temperature):
    """Test the gradients to z and to a temperature that is a tensor. Each shape has "spread" or "crowded" rows."""
    for place, (pairs, width) in enumerate(SHAPES):
        kind = (CROWDED, SPREAD)[(place + TEMPERATURES.index(temperature)) % 2]
        z = projections(pairs, width, dtype, temperature, kind)
        check_gradients(implementation, z, temperature, cotangents(2 * pairs, dtype))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-6, 2.0**15])
def test_gradient_bears_the_cotangents_of_a_scaled_loss(implementation, size, dtype, temperature):
    z = projections(17, 33, dtype, temperature, CROWDED)
    if dtype == "float16":  # longer rows make dz smaller; the largest float16 is 65504
        z = (z.astype(np.float32) * 512).astype(np.float16)
    cotangent = cotangents(34, dtype, size)
    if dtype == "float16" and size > 1:
        dz = reference.nt_xent_gradient(z, temperature, cotangent)
        assert np.mean(np.abs(dz) < 65504) > 0.5
    check_gradients(implementation, z, temperature, cotangent)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plain_number_as_temperature_gives_the_same_gradient(implementation, dtype):
    z, temperature = tf.constant(projections(5, 4, dtype, 0.5, SPREAD)), 0.5  # every type can hold 0.5 exactly
    cotangent = tf.constant(cotangents(10, dtype))
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = implementation.nt_xent(z, temperature)
    expected = loss_and_gradients(implementation.nt_xent, z, tf.constant(temperature, loss.dtype), cotangent)
    np.testing.assert_array_equal(loss.numpy(), expected[0].numpy())
    np.testing.assert_array_equal(tape.gradient(loss, z, output_gradients=cotangent).numpy(), expected[1].numpy())


def test_gradient_flows_to_a_temperature_that_is_learned(implementation):
    z, log_tau = projections(9, 6, "float32", 0.2, SPREAD), tf.Variable(math.log(0.2))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(implementation.nt_xent(tf.constant(z), tf.exp(log_tau)))
    slope = tape.gradient(loss, log_tau)
    cotangent = np.full(18, 1 / 18)
    assert_close(
        slope.numpy(),
        0.2 * reference.nt_xent_temperature_gradient(z, 0.2, cotangent),
        None,
        dtype="float32",
        scale=compute_temperature_scale(cotangent, 0.2),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("pairs", "width", "temperature"), [(2, 3, 0.03), (17, 5, 0.5), (33, 127, 0.005)])
@on_the_host
def test_graph_agrees_with_the_reference(implementation, pairs, width, temperature, dtype):
    """Test a graph that does not know the number of rows."""
    signature = tf.TensorSpec([None, width], dtype)

    def run(nt_xent, z, tau, cotangent):
        graph = tf.function(
            lambda z, tau, cotangent: loss_and_gradients(nt_xent, z, tau, cotangent),
            input_signature=[signature, tf.TensorSpec([], tau.dtype), tf.TensorSpec([None], cotangent.dtype)],
        )
        return graph(z, tau, cotangent)

    z = projections(pairs, width, dtype, temperature, CROWDED)
    check_gradients(implementation, z, temperature, cotangents(2 * pairs, dtype), run)


@pytest.mark.parametrize(
    ("dtype", "pairs", "width", "temperature"),
    [("float32", 17, 5, 0.03), ("bfloat16", 33, 16, 0.005), ("float16", 2, 3, 0.5), ("float64", 1, 8, 0.1)],
)
def test_xla_agrees_with_the_reference(implementation, dtype, pairs, width, temperature):
    def run(nt_xent, z, tau, cotangent):
        compiled = tf.function(
            lambda z, tau, cotangent: loss_and_gradients(nt_xent, z, tau, cotangent), jit_compile=True
        )
        return compiled(z, tau, cotangent)

    z = projections(pairs, width, dtype, temperature, CROWDED)
    if implementation is not stock and not XLA_HAS_FFI:
        with pytest.raises(Exception, match=rf"jit_compile.*{re.escape(tf.__version__)}"):
            check_gradients(implementation, z, temperature, cotangents(2 * pairs, dtype), run)
        return
    check_gradients(implementation, z, temperature, cotangents(2 * pairs, dtype), run)


# Gradients, compared with central differences


@pytest.mark.parametrize("kind", [SPREAD, CROWDED])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_is_the_central_difference(implementation, temperature, kind):
    """Test the slope of the loss in random directions, in float64.

    tests/reference/test_nt_xent.py explains the step and the tolerance.
    """
    pairs, width, epsilon = 5, 7, EPSILON["float64"]
    z = projections(pairs, width, "float64", temperature, kind)
    length = np.linalg.norm(z, axis=1, keepdims=True)
    length[length == 0] = 1e-3  # avoids a length of 0
    moving = np.where(np.any(z != 0, axis=1, keepdims=True), 1.0, 0.0)  # zero rows do not move: u has no gradient at 0
    cotangent = cotangents(2 * pairs, "float64")
    reach = min(temperature, 1.0)
    h = epsilon**0.2 * reach
    dz = loss_and_gradients(
        implementation.nt_xent, tf.constant(z), tf.constant(temperature, tf.float64), tf.constant(cotangent)
    )[1].numpy()

    def value(x: np.ndarray) -> float:
        return float(cotangent @ implementation.nt_xent(tf.constant(x), temperature).numpy())

    draw = np.random.default_rng(5)
    for _ in range(4):
        direction = draw.normal(size=z.shape)
        direction *= moving * length / np.linalg.norm(direction, axis=1, keepdims=True)
        near = value(z + h * direction) - value(z - h * direction)
        far = value(z + 2 * h * direction) - value(z - 2 * h * direction)
        slope = (8 * near - far) / (12 * h)
        scale = np.sum(np.abs(cotangent)) * (1 + 1 / temperature) / reach
        assert abs(np.sum(dz * direction) - slope) <= 8 * epsilon**0.8 * scale


# Mathematical properties of the loss

LIMIT = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@st.composite
def grids(draw, least_pairs: int = 1, zeros: bool = True):
    """Draw float32 rows (2N, d) of small integers. Zero rows, duplicates, opposites and exact ties are common."""
    pairs = draw(st.integers(least_pairs, 9))
    width = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**20))
    z = np.random.default_rng(seed).integers(-3, 4, size=(2 * pairs, width)).astype(np.float32)
    if not zeros:
        z[~np.any(z, axis=1), 0] = 1
    return z


temperatures = st.sampled_from(TEMPERATURES)


def assert_same_loss(one: np.ndarray, other: np.ndarray, temperature: float) -> None:
    """Assert that two float32 results are close. Each may have an error of 8 eps times the scale of the loss."""
    allowed = 2 * SLACK * EPSILON["float32"] * compute_loss_scale(temperature)
    np.testing.assert_allclose(one, other, rtol=0, atol=allowed)


def under(implementation: Any) -> Callable[[np.ndarray, float], np.ndarray]:
    """Return a function that calls `nt_xent` with NumPy arrays and returns a NumPy array."""
    return lambda z, temperature: implementation.nt_xent(tf.constant(z), temperature).numpy()


def test_scaling_a_row_changes_nothing(implementation):
    @LIMIT
    @given(grids(), temperatures, st.lists(st.integers(-45, 45), min_size=18, max_size=18))
    def holds(z, temperature, exponents):
        loss = under(implementation)
        scaled = np.ldexp(z, np.array(exponents[: len(z)])[:, None])  # powers of two as factors: no rounding
        assert_same_loss(loss(scaled, temperature), loss(z, temperature), temperature)

    holds()


def test_rotating_all_rows_changes_nothing(implementation):
    @LIMIT
    @given(grids(), temperatures, st.integers(0, 2**20))
    def holds(z, temperature, seed):
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(z.shape[1], z.shape[1])))[0]
        rotated = (z.astype(np.float64) @ rotation).astype(np.float32)
        loss = under(implementation)
        assert_same_loss(loss(rotated, temperature), loss(z, temperature), temperature)

    holds()


def test_permuting_pairs_permutes_losses(implementation):
    @LIMIT
    @given(grids(), temperatures, st.randoms(use_true_random=False))
    def holds(z, temperature, shuffler):
        pairs = len(z) // 2
        order = list(range(pairs))
        shuffler.shuffle(order)
        rows = np.concatenate([order, np.array(order) + pairs])
        loss = under(implementation)
        assert_same_loss(loss(z[rows], temperature), loss(z, temperature)[rows], temperature)

    holds()


def test_swapping_the_views_swaps_the_halves(implementation):
    @LIMIT
    @given(grids(), temperatures)
    def holds(z, temperature):
        pairs = len(z) // 2
        loss = under(implementation)
        swapped = loss(np.roll(z, pairs, axis=0), temperature)
        assert_same_loss(swapped, np.roll(loss(z, temperature), pairs), temperature)

    holds()


def test_equal_rows_give_log_2n_minus_1(implementation):
    @LIMIT
    @given(grids(), temperatures)
    def holds(z, temperature):
        equal = np.tile(z[:1], (len(z), 1))
        assert_same_loss(under(implementation)(equal, temperature), np.full(len(z), math.log(len(z) - 1)), temperature)

    holds()


def test_one_pair_gives_0_to_rounding(implementation):
    @LIMIT
    @given(grids(), temperatures)
    def holds(z, temperature):
        pair = z[:2]
        assert_same_loss(under(implementation)(pair, temperature), np.zeros(2), temperature)
        cotangent = np.array([1.0, -2.0], np.float32)
        tau = tf.constant(temperature, tf.float32)
        dz = loss_and_gradients(implementation.nt_xent, tf.constant(pair), tau, tf.constant(cotangent))[1].numpy()
        scale = compute_gradient_scale(pair, cotangent, temperature) * (1 + 1 / temperature)
        allowed = SLACK * EPSILON["float32"] * scale
        assert np.all(np.abs(dz) <= allowed)

    holds()


def test_gradient_is_orthogonal_to_its_row(implementation):
    @LIMIT
    @given(grids(zeros=False), temperatures)
    def holds(z, temperature):
        cotangent = cotangents(len(z), "float32")
        tau = tf.constant(temperature, tf.float32)
        dz = loss_and_gradients(implementation.nt_xent, tf.constant(z), tau, tf.constant(cotangent))[1].numpy()
        # du_i is the gradient to u_i, and c are the cotangents. Then |du_i| <= (1/tau) 4 sum|c|, because in each loss
        # the weights of all candidates sum to 1, and the positive adds a weight of 1.
        allowed = SLACK * EPSILON["float32"] * 4 * np.sum(np.abs(cotangent)) / temperature
        assert np.max(np.abs(np.sum(dz.astype(np.float64) * z, axis=1))) <= allowed

    holds()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_rows_from_1e_minus_15_to_1e15_long_are_right(implementation, dtype):
    @LIMIT
    @given(grids(zeros=False), temperatures, st.randoms(use_true_random=False))
    def holds(z, temperature, chooser):
        length = np.array([10.0 ** chooser.uniform(-15, 15) for _ in z])[:, None]
        length[0], length[-1] = 1e-15, 1e15
        rows = reference.normalise_rows(z) * length
        rows = rows.astype(tf.as_dtype(dtype).as_numpy_dtype)
        check_gradients(implementation, rows, temperature, cotangents(len(z), dtype, 2.0**15))

    holds()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_eps_is_added_to_a_norm(implementation, dtype):
    """Test rows that are all shorter than 1e-12.

    Some programs add a number such as 1e-12 to a norm to avoid a division by 0. This would change every similarity.
    """
    z = (projections(9, 5, dtype, 0.1, SPREAD) * np.float64(1e-15)).astype(dtype)
    check_gradients(implementation, z, 0.1, cotangents(18, dtype))


def test_a_large_temperature_tends_to_log_2n_minus_1(implementation):
    @LIMIT
    @given(grids(), st.sampled_from([10.0, 1e2, 1e4, 1e6]))
    def holds(z, temperature):
        # All s are between -1/tau and 1/tau. So lse differs from log(2N-1) by at most 1/tau, and s of the positive
        # differs from 0 by at most 1/tau.
        allowed = 2 / temperature + SLACK * EPSILON["float32"] * (1 + math.log(2 * len(z)))
        loss = under(implementation)(z, temperature)
        np.testing.assert_allclose(loss, math.log(len(z) - 1), rtol=0, atol=allowed)

    holds()


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_rows_zero_is_a_collapsed_encoder(implementation, dtype):
    z = tf.zeros([12, 4], dtype)
    loss, dz, dtau = loss_and_gradients(
        implementation.nt_xent, z, tf.constant(0.1, find_accumulation_type(dtype)), tf.constant(cotangents(12, dtype))
    )
    assert_close(loss.numpy(), np.full(12, math.log(11)), None, dtype=dtype, scale=compute_loss_scale(0.1))
    np.testing.assert_array_equal(dz.numpy().astype(np.float64), np.zeros([12, 4]))
    assert dtau.numpy() == 0
    assert not np.any(implementation.contrastive_top1(z).numpy())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [1, 3, 17])
@pytest.mark.parametrize("temperature", [0.005, 0.1])
def test_nan_in_is_nan_out(implementation, temperature, pairs, dtype, value):
    z = projections(pairs, 4, dtype, temperature, SPREAD)
    z[pairs, 2] = value
    loss, dz, dtau = loss_and_gradients(
        implementation.nt_xent,
        tf.constant(z),
        tf.constant(temperature, find_accumulation_type(dtype)),
        tf.constant(cotangents(2 * pairs, dtype)),
    )
    assert np.all(np.isnan(loss.numpy()))
    moved = np.any(z.astype(np.float64) != 0, axis=1)  # the gradient of a zero row is always 0
    assert np.all(np.isnan(dz.numpy().astype(np.float64)[moved]))
    assert np.isnan(dtau.numpy())
    assert not np.any(implementation.contrastive_top1(tf.constant(z)).numpy())


# Arguments that are refused


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (4,), (2, 2, 2), (4, 0)])
def test_refuses_rows_that_are_no_pairs(implementation, shape):
    match = str(shape).replace("(", r"\(").replace(")", r"\)")
    z = tf.ones(shape)
    for refused in (
        lambda: implementation.nt_xent(z, 0.1),
        lambda: implementation.nt_xent_rows(z, 0, 1, 0.1),
        lambda: implementation.nt_xent_and_top1(z, 0.1),
        lambda: implementation.contrastive_top1(z),
    ):
        with pytest.raises(ValueError, match=match):
            refused()


@pytest.mark.parametrize("rows", [0, 3])
@on_the_host
def test_refuses_rows_that_turn_out_to_be_no_pairs(implementation, rows):
    graph = tf.function(lambda z: implementation.nt_xent(z, 0.1), input_signature=[tf.TensorSpec([None, 4])])
    assert graph(tf.eye(4)).shape == (4,)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s)2N rows.*{rows}"):
        graph(tf.ones([rows, 4]))


@pytest.mark.parametrize("temperature", [0.0, -0.25, math.nan, math.inf])
def test_refuses_a_temperature_that_is_not_positive(implementation, temperature):
    z = tf.eye(4)
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        implementation.nt_xent(z, temperature)
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        implementation.nt_xent_rows(z, 0, 1, temperature)
    seen_by = (ValueError, tf.errors.InvalidArgumentError)  # the first comes from Python code, the second from the op
    for given_as in (tf.constant(temperature), tf.Variable(temperature)):
        with pytest.raises(seen_by, match=f"temperature is {temperature:g}"):
            implementation.nt_xent(z, given_as)
        with pytest.raises(seen_by, match=f"temperature is {temperature:g}"):
            implementation.nt_xent_rows(z, 0, 1, given_as)


def test_refuses_a_whole_number_that_no_float_holds(implementation):
    for call in (implementation.nt_xent, reference.nt_xent):
        with pytest.raises(ValueError, match="temperature is inf"):
            call(np.eye(4, dtype=np.float32), 10**400)
        with pytest.raises(ValueError, match="temperature is -inf"):
            call(np.eye(4, dtype=np.float32), -(10**400))


def test_refuses_several_temperatures(implementation):
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        implementation.nt_xent(tf.eye(4), tf.constant([0.1, 0.1, 0.2, 0.2]))


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_refuses_other_types(implementation, dtype):
    with pytest.raises(TypeError, match=dtype):
        implementation.nt_xent(tf.cast(tf.eye(4), dtype), 0.1)


@pytest.mark.parametrize(("first", "pairs"), [(-1, 1), (0, 0), (0, 3), (2, 1)])
def test_refuses_own_pairs_that_do_not_exist(implementation, first, pairs):
    with pytest.raises(ValueError, match=f"first_pair={first} and pairs={pairs}"):
        implementation.nt_xent_rows(tf.eye(4), first, pairs, 0.1)


# Determinism: equal inputs must give equal bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compiled", ["eager", "graph"])
@pytest.mark.parametrize("temperature", [0.005, 0.1])
def test_same_input_same_bits(implementation, temperature, compiled, dtype):
    z = tf.constant(projections(129, 130, dtype, temperature, CROWDED))
    tau, cotangent = tf.constant(temperature, find_accumulation_type(dtype)), tf.constant(cotangents(258, dtype))
    run = lambda: loss_and_gradients(implementation.nt_xent, z, tau, cotangent)  # noqa: E731
    run = tf.function(run) if compiled == "graph" else run
    first = [value.numpy() for value in run()]
    for _ in range(4):
        again = [value.numpy() for value in run()]
        assert [value.tobytes() for value in again] == [value.tobytes() for value in first]


# Mutants: formulas with one mistake


def formula(
    z: tf.Tensor,
    temperature: tf.Tensor,
    *,
    masked: bool = True,
    partner_off: int = 0,
    divisor: Callable[[tf.Tensor], tf.Tensor] = lambda tau: tau,
    both_ways: bool = True,
    columns_off: int = 0,
    eps: float = 0.0,
    column_term: bool = True,
    gradient_factor: float | None = None,
) -> tf.Tensor:
    """Compute the loss in its simplest form, by equation (1) of the paper.

    With their default values, all arguments after `temperature` change nothing. Any other value makes one mistake.
    """
    z = tf.cast(z, find_accumulation_type(z.dtype.name))
    squares = tf.reduce_sum(z**2, axis=1, keepdims=True) + eps
    u = tf.where(squares == 0, tf.zeros_like(z), z / tf.sqrt(tf.where(squares == 0, 1.0, squares)))
    if gradient_factor is not None:
        u = gradient_factor * u + tf.stop_gradient((1 - gradient_factor) * u)
    rows = len(z)
    columns = u if column_term else tf.stop_gradient(u)
    s = tf.matmul(u, columns, transpose_b=True) / divisor(tf.cast(temperature, z.dtype))
    keep = ~np.eye(rows, dtype=bool) if masked else np.ones([rows, rows], bool)
    if not both_ways:  # a row then has only candidates from the other view
        keep[: rows // 2, : rows // 2] = keep[rows // 2 :, rows // 2 :] = False
    keep[:, rows - columns_off :] = False  # as if the last tile of columns ended too early
    of_positive = tf.gather(s, (reference.find_positive(rows) + partner_off) % rows, batch_dims=1)
    return tf.reduce_logsumexp(tf.where(keep, s, -math.inf), axis=1) - of_positive


MUTANTS = {
    "dropped diagonal mask": {"masked": False},
    "off-by-one positive": {"partner_off": 1},
    "off-by-one positive, downwards": {"partner_off": -1},
    "missing 1/tau": {"divisor": tf.ones_like},
    "one direction only": {"both_ways": False},
    "off-by-one tile": {"columns_off": 1},
    "eps in the norm": {"eps": 1e-4},
}
GRADIENT_MUTANTS = {
    "missing 1/tau in the gradient": {"gradient_factor": 0.1},
    "gradient of the rows only, not of the columns": {"column_term": False},
    "gradient twice too large": {"gradient_factor": 2.0},
}


def mutant(switches: dict[str, Any]) -> SimpleNamespace:
    """Return an implementation with the mistakes that `switches` (keyword arguments of `formula`) make."""
    return SimpleNamespace(nt_xent=lambda z, temperature: formula(z, temperature, **switches))


def standard_case() -> tuple[np.ndarray, float]:
    """Return an ordinary batch, (34, 16), and an ordinary temperature, 0.1."""
    return projections(17, 16, "float32", 0.1, SPREAD), 0.1


def test_the_unbroken_formula_passes():
    z, temperature = standard_case()
    check_loss(mutant({}), z, temperature)
    check_gradients(mutant({}), z, temperature, cotangents(34, "float32"))


@pytest.mark.parametrize("name", MUTANTS)
def test_check_of_the_loss_catches(name):
    z, temperature = standard_case()
    with pytest.raises(AssertionError, match="beyond their bound"):
        check_loss(mutant(MUTANTS[name]), z, temperature)


@pytest.mark.parametrize("name", GRADIENT_MUTANTS)
def test_check_of_the_gradient_catches(name):
    z, temperature = standard_case()
    broken = mutant(GRADIENT_MUTANTS[name])
    check_loss(broken, z, temperature)  # the loss is right, only the gradient is wrong
    with pytest.raises(AssertionError, match="beyond their bound"):
        check_gradients(broken, z, temperature, cotangents(34, "float32"))
