"""Tests the weight update of the optimizer LARS with wrong arguments.

The update exists in NumPy (reference), in TensorFlow's own ops (stock) and in C++ (native). All three must refuse wrong
arguments with the same message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, stock
from lowlevel_simclr.reference.lars_update import lars_update as reference
from tests.support.host import on_the_host

FORMS: dict[str, Callable[..., Any]] = {"reference": reference, "stock": stock.lars_update, "native": ops.lars_update}
IN_TENSORFLOW = pytest.mark.parametrize("form", ["stock", "native"])
ONES = np.ones((2, 3), np.float32)
SOUND: dict[str, Any] = {
    **{name: ONES for name in ("weight", "gradient", "velocity")},
    **{"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 1e-3},
}
CHOICES = ("learning_rate", "momentum", "weight_decay", "trust_coefficient")
NOT_NUMBERS = {"text": "text", "bytes": b"bytes", "None": None, "object": object(), "dictionary": {}, "complex": 1j}
OUTSIDE = {
    "NaN": np.nan,
    "infinite": -np.inf,
    "1e308": 1e308,
    "2^200": 2**200,
    "10^400": 10**400,
    "half": np.float16("inf"),
}
SHAPES = {
    "of one row": np.ones((1, 3), np.float32),
    "a scalar": np.float32(1),
    "empty": np.ones((0,), np.float32),
    "of another rank": np.ones((2, 3, 1), np.float32),
}
TYPES = {
    "int32": np.ones((2, 3), np.int32),
    "bool": np.ones((2, 3), bool),
    "complex64": np.ones((2, 3), np.complex64),
    "float16": np.ones((2, 3), np.float16),
    "text": "text",
    "None": None,
    "dictionary": {},
    "2^64": 2**64,
}


def update(form: str, **given: Any) -> Any:
    return FORMS[form](**{**SOUND, **given})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", NOT_NUMBERS)
@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_that_is_no_number_is_refused(form: str, choice: str, what: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{choice} is |convert"):
        update(form, **{choice: NOT_NUMBERS[what]})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", OUTSIDE)
@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_that_float32_cannot_hold_is_refused(form: str, choice: str, what: str) -> None:
    with pytest.raises(ValueError, match=rf"{choice} is .*It must be finite and fit into float32\."):
        update(form, **{choice: OUTSIDE[what]})


@IN_TENSORFLOW
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_of_two_numbers_is_refused(form: str, graph: bool, choice: str) -> None:
    def call() -> Any:
        return update(form, **{choice: tf.ones([2])})

    with pytest.raises(ValueError, match=rf"{choice} has shape \(2,\)\. {choice} must be one number\."):
        (tf.function(call) if graph else call)()


@IN_TENSORFLOW
@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_may_be_a_scalar_of_any_kind(form: str, choice: str) -> None:
    expected = update(form, **{choice: 0.5})
    for value in (np.array(0.5), tf.constant(0.5, tf.float64), tf.Variable(0.5)):
        for found, right in zip(update(form, **{choice: value}), expected, strict=True):
            np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.parametrize("array", ["weight", "gradient", "velocity"])
def test_shapes_that_differ_are_refused(form: str, array: str, what: str) -> None:
    """Test arrays of different shapes. They must be refused, and not be broadcast to a common shape."""
    with pytest.raises(ValueError, match="weight, gradient and velocity must have the same shape, but have"):
        update(form, **{array: SHAPES[what]})


@IN_TENSORFLOW
@on_the_host
def test_shapes_that_a_graph_does_not_know_are_refused_when_it_runs(form: str) -> None:
    signature = [tf.TensorSpec([None, 3], tf.float32)] * 3

    def call(weight: tf.Tensor, gradient: tf.Tensor, velocity: tf.Tensor) -> Any:
        return update(form, weight=weight, gradient=gradient, velocity=velocity)

    run = tf.function(call, input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match="weight, gradient and velocity must have the same shape"):
        run(ONES, ONES, ONES[:1])
    np.testing.assert_array_equal(run(ONES, ONES, ONES)[0], update(form)[0])


@IN_TENSORFLOW
@pytest.mark.parametrize("what", TYPES)
@pytest.mark.parametrize("array", ["weight", "gradient", "velocity"])
def test_types_that_do_not_fit_are_refused(form: str, array: str, what: str) -> None:
    with pytest.raises((TypeError, ValueError), match="All must be float32|[Cc]onvert"):
        update(form, **{array: TYPES[what]})


@pytest.mark.parametrize("what", ["bool", "complex64", "text", "None", "dictionary"])
@pytest.mark.parametrize("array", ["weight", "gradient", "velocity"])
def test_the_reference_takes_numbers_only(array: str, what: str) -> None:
    with pytest.raises(TypeError, match=f"{array} is .*It must be an array of numbers"):
        update("reference", **{array: TYPES[what]})


def test_native_refuses_float64_and_names_the_op_that_takes_it() -> None:
    wide = {name: ONES.astype(np.float64) for name in ("weight", "gradient", "velocity")}
    with pytest.raises(TypeError, match=r"are float64, float64 and float64.*--ops stock"):
        update("native", **wide)
    assert update("stock", **wide)[0].dtype == tf.float64
