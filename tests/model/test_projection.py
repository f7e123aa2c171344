"""Tests the projection head, the small network that maps the encoder's output h to z, on which the loss is computed.

It must consist of Dense and ReLU layers as in the paper, with weights that depend only on the seed.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.model import projection
from lowlevel_simclr.model.batch_norm import BatchStatistics, use_batch_statistics
from lowlevel_simclr.runtime.precision import set_precision

EPS = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("widths", [(5,), (16, 5), (16, 8, 5)])
def test_the_head_is_dense_relu_dense(widths: tuple[int, ...]) -> None:
    h = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    head = projection.build_projection_head(12, widths)
    z, size, terms = h.astype(np.float64), np.abs(h).astype(np.float64), 0
    weights = head.get_weights()
    for place, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2])):
        z, size, terms = z @ kernel + bias, size @ np.abs(kernel) + np.abs(bias), terms + len(kernel) + 2
        if place + 1 < len(widths):
            z = np.maximum(z, 0)
    found = head(h, training=True).numpy()
    # A sum of n products has an error of at most n * eps times the sum of the products' absolute values. The errors of
    # all layers add up.
    assert found.shape == (6, widths[-1]) and np.all(np.abs(found - z) <= terms * EPS * size)
    assert found.min() < 0  # some z are negative, so no ReLU follows the last layer


def test_the_default_head_is_the_issues() -> None:
    head = projection.build_projection_head(64)
    assert [tuple(kernel.shape) for kernel in head.get_weights()[::2]] == [(64, 256), (256, 128)]


def test_the_weights_are_a_function_of_the_seed() -> None:
    first = projection.build_projection_head(8, (8, 8), seed=3).get_weights()
    tf.keras.layers.Dense(3).build((None, 4))  # building another layer must not change the weights
    again, other = (
        projection.build_projection_head(8, (8, 8), seed=3).get_weights(),
        projection.build_projection_head(8, (8, 8), seed=4).get_weights(),
    )
    assert all(np.array_equal(one, two) for one, two in zip(first, again))
    assert not any(np.array_equal(one, two) for one, two in zip(first[::2], other[::2]))
    assert not np.array_equal(first[0], first[2])  # two layers of equal shape have different weights


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_half_precision_head_keeps_float32_weights(precision: str) -> None:
    set_precision(precision)
    head = projection.build_projection_head(8, (8, 4))
    z = head(tf.ones((2, 8), precision), training=True)
    assert z.dtype == precision and {tf.as_dtype(variable.dtype) for variable in head.variables} == {tf.float32}


@pytest.mark.parametrize("widths", [(), (16, 0)])
def test_a_head_without_layers_or_width_is_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="projection widths"):
        projection.build_projection_head(8, widths)


# BatchNorm in the head


@pytest.mark.parametrize(
    ("batch_norm", "normalised", "shifted"),
    [
        ("none", [False, False, False], [True, True, True]),
        ("hidden", [True, True, False], [True, True, True]),
        ("all", [True, True, True], [True, True, True]),
        ("google", [True, True, True], [True, True, False]),
    ],
)
def test_batch_norm_stands_between_dense_and_relu(batch_norm: str, normalised: list, shifted: list) -> None:
    h = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    head = projection.build_projection_head(6, (7, 5, 4), batch_norm=batch_norm)
    random = np.random.default_rng(1)
    head.set_weights([weight + 0.1 * random.normal(size=weight.shape) for weight in head.get_weights()])
    z = h.astype(np.float64)
    for place, (has_norm, has_shift) in enumerate(zip(normalised, shifted), 1):
        dense = head.get_layer(f"dense{place}").get_weights()
        z = z @ dense[0] + (0 if has_norm else dense[1])
        assert len(dense) == (1 if has_norm else 2)  # no bias before BatchNorm, because BatchNorm would subtract it
        if has_norm:
            gamma, beta, *_ = [*head.get_layer(f"bn{place}").get_weights()[:1], 0.0]
            if has_shift:
                beta = head.get_layer(f"bn{place}").get_weights()[1]
            assert len(head.get_layer(f"bn{place}").get_weights()) == (4 if has_shift else 3)
            z = gamma * (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + projection.EPSILON) + beta
        z = np.maximum(z, 0) if place < 3 else z
    # BatchNorm divides the rounding errors of a column by its standard deviation, which may be small.
    np.testing.assert_allclose(head(h, training=True).numpy(), z, atol=1e-4 * np.abs(z).max())


def test_an_unknown_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="no BatchNorm 'some' of the projection head. Use one of none"):
        projection.build_projection_head(8, (4,), batch_norm="some")


@pytest.mark.parametrize("batch_norm", ["all", "google"])
def test_statistics_of_all_replicas_are_those_of_one_with_and_without_a_shift(batch_norm: str) -> None:
    """Test BatchNorm that averages its statistics over all replicas (devices). With one replica, nothing may change."""
    h = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    head = projection.build_projection_head(6, (5, 4), batch_norm=batch_norm)
    alone = head(h, training=True).numpy()
    exchanged = BatchStatistics(gather=lambda x: x, add_up=lambda x: x)
    with use_batch_statistics(exchanged):
        together = head(h, training=True).numpy()
    np.testing.assert_allclose(together, alone, atol=1e-5)
