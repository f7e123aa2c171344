"""Tests the loss scale, a factor that keeps small gradients from becoming 0 in float16.

If a gradient overflows, the weights must not change, and the factor must become smaller.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.optim import loss_scale


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_only_float16_has_a_loss_scale(precision: str) -> None:
    none = loss_scale.build_loss_scale(precision)
    gradients, finite = none.unscale([tf.constant([1.0, 3.0])])
    assert not none.dynamic and none.variables == [] and bool(finite)
    assert float(none.scale_loss(tf.constant(3.0))) == 3.0 and gradients[0].numpy().tolist() == [1.0, 3.0]


def test_scaled_and_unscaled_is_what_it_was() -> None:
    scale = loss_scale.build_loss_scale("float16")
    scaled = scale.scale_loss(tf.constant(3.0))
    gradients, finite = scale.unscale([scaled, tf.constant([2.0**15], tf.float16)])
    assert scale.dynamic and float(scaled) == 3 * 2.0**15 and bool(finite)
    assert float(gradients[0]) == 3.0 and gradients[1].numpy().tolist() == [1.0] and gradients[1].dtype == tf.float32


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_ran_over_halves_the_scale(bad: float) -> None:
    scale = loss_scale.build_loss_scale("float16")
    scale.good_steps.assign(7)
    _, finite = scale.unscale([tf.constant([1.0]), tf.constant([1.0, bad])])
    assert not bool(finite)
    assert [float(variable) for variable in scale.variables] == [2.0**14, 0.0]


def test_the_scale_doubles_after_2000_good_steps_in_a_row() -> None:
    scale = loss_scale.build_loss_scale("float16")
    scale.good_steps.assign(1998)
    scale.unscale([tf.constant([1.0])])
    assert [float(variable) for variable in scale.variables] == [2.0**15, 1999.0]
    scale.unscale([tf.constant([1.0])])
    assert [float(variable) for variable in scale.variables] == [2.0**16, 0.0]


@pytest.mark.parametrize(("first", "gradient"), [(1.0, np.inf), (loss_scale.LARGEST_SCALE, 1.0)])
def test_the_scale_stays_within_its_bounds(first: float, gradient: float) -> None:
    scale = loss_scale.build_loss_scale("float16")
    scale.scale.assign(first)
    scale.good_steps.assign(1999)
    scale.unscale([tf.constant([gradient])])
    assert float(scale.scale) == first
