"""The projection head: Dense and ReLU as the paper has them, from a seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import compat, projection

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    yield
    compat.set_precision("float32")


@pytest.mark.parametrize("widths", [(5,), (16, 5), (16, 8, 5)])
def test_the_head_is_dense_relu_dense(widths: tuple[int, ...]) -> None:
    h = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    head = projection.build(12, widths)
    z, size, terms = h.astype(np.float64), np.abs(h).astype(np.float64), 0
    weights = head.get_weights()
    for place, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2])):
        z, size, terms = z @ kernel + bias, size @ np.abs(kernel) + np.abs(bias), terms + len(kernel) + 2
        if place + 1 < len(widths):
            z = np.maximum(z, 0)
    found = head(h, training=True).numpy()
    # A sum of n products is off by at most n roundings of the sum of their sizes, layer after layer.
    assert found.shape == (6, widths[-1]) and np.all(np.abs(found - z) <= terms * EPS * size)
    assert found.min() < 0  # nothing cuts z off


def test_the_default_head_is_the_issues() -> None:
    head = projection.build(64)
    assert [tuple(kernel.shape) for kernel in head.get_weights()[::2]] == [(64, 256), (256, 128)]


def test_the_weights_are_a_function_of_the_seed() -> None:
    first = projection.build(8, (8, 8), seed=3).get_weights()
    tf.keras.layers.Dense(3).build((None, 4))  # what is built in between must not matter
    again, other = projection.build(8, (8, 8), seed=3).get_weights(), projection.build(8, (8, 8), seed=4).get_weights()
    assert all(np.array_equal(one, two) for one, two in zip(first, again))
    assert not any(np.array_equal(one, two) for one, two in zip(first[::2], other[::2]))
    assert not np.array_equal(first[0], first[2])  # two layers of one shape differ


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_half_precision_head_keeps_float32_weights(precision: str) -> None:
    compat.set_precision(precision)
    head = projection.build(8, (8, 4))
    z = head(tf.ones((2, 8), precision), training=True)
    assert z.dtype == precision and {tf.as_dtype(variable.dtype) for variable in head.variables} == {tf.float32}


@pytest.mark.parametrize("widths", [(), (16, 0)])
def test_a_head_without_layers_or_width_is_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="projection widths"):
        projection.build(8, widths)
