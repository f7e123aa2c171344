"""Tests the weight update of the optimizer LARS, in C++ (native) and in TensorFlow's own ops (stock).

Both must agree with the float64 reference in NumPy. The C++ op must also give the same bits with and without XLA, reuse
memory correctly, and refuse wrong inputs. LARS multiplies the step of each variable by a trust ratio, which is
proportional to the norm of the weight divided by the norm of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, stock
from lowlevel_simclr.ops import _route
from lowlevel_simclr.reference.lars_update import lars_update as reference
from tests.support.closeness import assert_close
from tests.support.op_modes import needs_xla

CHOICES = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.02, "trust_coefficient": 0.01}
# Shapes of ranks 0 to 4, and an empty one. Some lengths are near a limit of the kernel: the length of a vector
# register; 32,768, the number of elements that are summed as one piece; and 131,072, above which its stores bypass the
# caches.
SHAPES = [(), (1,), (7,), (64,), (1, 1), (5, 7), (3, 3, 2, 4), (181, 181), (256, 257), (512, 256), (419, 421), (2, 0)]
FORMS: dict[str, Callable[..., Any]] = {"native": ops.lars_update, "stock": stock.lars_update}


def draw(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> list[np.ndarray]:
    """Return a random weight w, gradient g and velocity v of this shape."""
    rng = np.random.default_rng([seed, *shape])
    return [np.asarray(rng.normal(size=shape) * scale, np.float32) for _ in range(3)]


def rounded(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays with a gradient that bfloat16 can hold exactly. The gradient is still stored as float32."""
    return [arrays[0], tf.cast(tf.cast(arrays[1], tf.bfloat16), tf.float32).numpy(), arrays[2]]


def call(form: str, arrays: list[np.ndarray], graph: bool = False, **changed: float) -> list[np.ndarray]:
    choices = CHOICES | changed

    def compute(*tensors: tf.Tensor) -> Any:
        return FORMS[form](*tensors, **choices)

    compute = tf.function(compute) if graph else compute
    return [found.numpy() for found in compute(*map(tf.constant, arrays))]


def sizes(arrays: list[np.ndarray], expected: list[np.ndarray]) -> list[np.ndarray]:
    """Return for each element of the new weight and velocity the size of the largest term in the sum that gives it."""
    weight, _, velocity = (np.abs(np.asarray(array, np.float64)) for array in arrays)
    of_velocity = np.maximum(CHOICES["momentum"] * velocity, np.abs(expected[1] - CHOICES["momentum"] * arrays[2]))
    return [np.maximum(weight, of_velocity), of_velocity]


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_is_that_of_the_reference(shape: tuple[int, ...], form: str, graph: bool) -> None:
    arrays = draw(shape)
    expected = [np.asarray(array) for array in reference(*arrays, **CHOICES)]
    # The trust ratio is a quotient of two sums, each with a relative error of at most eps. Three more results are
    # rounded twice each: gradient plus weight decay, the new velocity, and the new weight. So the bound of 8 eps
    # (verification/bound.py) is enough, even without the error of a stock formula (None).
    for found, right, size in zip(call(form, arrays, graph), expected, sizes(arrays, expected)):
        assert_close(found, right, None, dtype="float32", scale=size)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_bfloat16_gradient_gives_the_bits_that_its_float32_gives(
    shape: tuple[int, ...], form: str, graph: bool
) -> None:
    arrays = rounded(draw(shape))

    def compute(weight: tf.Tensor, gradient: tf.Tensor, velocity: tf.Tensor) -> Any:
        return FORMS[form](weight, tf.cast(gradient, tf.bfloat16), velocity, **CHOICES)

    found = (tf.function(compute) if graph else compute)(*map(tf.constant, arrays))
    for one, other in zip(found, call(form, arrays, graph)):
        assert one.dtype == tf.float32 and one.numpy().tobytes() == other.tobytes()


def test_gradients_of_other_types_are_refused() -> None:
    weight, gradient, velocity = map(tf.constant, draw((5, 7)))
    with (
        tf.device("/CPU:0"),
        pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError), match="float, bfloat16|float16"),
    ):
        ops.lars_update(weight, tf.cast(gradient, tf.float16), velocity, **CHOICES)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_norms_neither_vanish_nor_overflow(scale: float) -> None:
    """Test arrays so small or so large that their squares become 0 or infinite in float32.

    The trust ratio and the new weights must still be right.
    """
    arrays = draw((40, 50), scale=scale)
    expected = reference(*arrays, **CHOICES)
    for found, right, size in zip(call("native", arrays), expected, sizes(arrays, list(expected))):
        assert_close(found, right, None, dtype="float32", scale=size)


@pytest.mark.parametrize("zero", [0, 1], ids=["weight", "gradient"])
def test_a_norm_of_zero_means_ratio_1(zero: int) -> None:
    arrays = draw((5, 7))
    arrays[zero] = np.zeros_like(arrays[zero])
    weight, velocity = call("native", arrays, weight_decay=0.0)
    right = np.float64(0.9) * arrays[2] + 0.05 * arrays[1]
    assert_close(velocity, right, None, dtype="float32", scale=np.abs(arrays[2]) + np.abs(arrays[1]))
    assert np.array_equal(weight, arrays[0] - velocity)


@pytest.mark.parametrize("place", [0, 1], ids=["weight", "gradient"])
def test_no_number_anywhere_reaches_everything(place: int) -> None:
    """Test that one NaN in the weight or the gradient makes every element of the result NaN, as in the reference.

    With a NaN, the norm is NaN. So the trust ratio is NaN, and it multiplies every element.
    """
    arrays = draw((5, 7))
    arrays[place][2, 3] = np.nan
    for found in (*(found for form in FORMS for found in call(form, arrays)), *reference(*arrays, **CHOICES)):
        assert np.all(np.isnan(found))


def test_an_infinite_gradient_has_a_ratio_of_0() -> None:
    arrays = draw((5, 7))
    arrays[1][2, 3] = np.inf
    _, velocity = call("native", arrays)
    elsewhere = np.arange(35).reshape(5, 7) != 2 * 7 + 3
    assert np.isnan(velocity[2, 3]) and np.array_equal(velocity[elsewhere], np.float32(0.9) * arrays[2][elsewhere])


def test_no_number_in_a_variable_of_rank_1_stays_where_it_is() -> None:
    arrays = draw((7,))
    arrays[1][3] = np.nan
    for found in call("native", arrays):
        assert np.array_equal(np.isnan(found), np.arange(7) == 3)


def test_arguments_that_others_read_are_left_alone() -> None:
    """Test a gradient that another op reads too. The update must not overwrite the gradient's memory."""
    arrays = draw((300, 300))
    tensors = [tf.constant(array) for array in arrays]

    @tf.function
    def step(weight: tf.Tensor, gradient: tf.Tensor, velocity: tf.Tensor) -> Any:
        fresh = gradient * 2
        return ops.lars_update(weight, fresh, velocity, **CHOICES), fresh

    (_, _), fresh = step(*tensors)
    assert np.array_equal(fresh.numpy(), arrays[1] * 2)
    for tensor, array in zip(tensors, arrays):
        assert np.array_equal(tensor.numpy(), array)


def test_a_gradient_that_nobody_else_reads_gives_its_memory() -> None:
    """Test a gradient that no other op reads. The update may write the new weight into the gradient's memory.

    The new weight must still be right.
    """
    arrays = draw((300, 300))

    @tf.function
    def step(weight: tf.Tensor, gradient: tf.Tensor, velocity: tf.Tensor) -> Any:
        return ops.lars_update(weight, gradient * 2, velocity, **CHOICES)

    doubled = [arrays[0], arrays[1] * 2, arrays[2]]
    for one, other in zip(step(*map(tf.constant, arrays)), call("native", doubled)):
        assert np.array_equal(one.numpy(), other)


def test_shapes_that_differ_are_refused() -> None:
    weight, gradient, velocity = draw((5, 7))
    with pytest.raises(ValueError, match="the same shape"):
        call("native", [weight, gradient[:4], velocity])
    with pytest.raises(ValueError, match="the same shape"):
        call("native", [weight, gradient, velocity.reshape(7, 5)])
    with pytest.raises(ValueError, match="learning_rate must be one number"):
        ops.lars_update(weight, gradient, velocity, **(CHOICES | {"learning_rate": tf.zeros(2)}))


# The update, compiled by XLA


def compiled(arrays: list[np.ndarray], **changed: float) -> list[np.ndarray]:
    choices = CHOICES | changed
    update = tf.function(lambda *tensors: ops.lars_update(*tensors, **choices), jit_compile=True)
    return [found.numpy() for found in update(*map(tf.constant, arrays))]


@needs_xla
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_jit_gives_the_bits_that_the_op_gives(shape: tuple[int, ...]) -> None:
    """Test that the op gives the same bits with and without XLA, because the same kernel runs."""
    arrays = draw(shape)
    for one, other in zip(compiled(arrays), call("native", arrays)):
        assert one.shape == other.shape and one.tobytes() == other.tobytes()


@needs_xla
def test_jit_widens_a_bfloat16_gradient() -> None:
    weight, gradient, velocity = rounded(draw((300, 401)))
    found = compiled([weight, tf.cast(gradient, tf.bfloat16), velocity])
    for one, other in zip(found, call("native", [weight, gradient, velocity])):
        assert one.tobytes() == other.tobytes()


@needs_xla
def test_the_scalars_keep_their_order_under_jit() -> None:
    arrays = draw((40, 50))
    for name in CHOICES:
        changed = {name: 0.37}
        before, found = compiled(arrays), compiled(arrays, **changed)
        assert not np.array_equal(before[1], found[1])
        assert np.array_equal(found[1], call("native", arrays, **changed)[1])


@needs_xla
def test_a_learning_rate_may_be_computed_under_jit() -> None:
    arrays = draw((5, 7))

    @tf.function(jit_compile=True)
    def update(rate: tf.Tensor, *tensors: tf.Tensor) -> Any:
        return ops.lars_update(*tensors, **(CHOICES | {"learning_rate": rate * 2}))

    found = update(tf.constant(0.25), *map(tf.constant, arrays))
    for one, other in zip(found, call("native", arrays, learning_rate=0.5)):
        assert np.array_equal(one.numpy(), other)


@needs_xla
def test_jit_leaves_arguments_alone() -> None:
    arrays = draw((300, 300))
    tensors = [tf.constant(array) for array in arrays]
    found = tf.function(lambda *tensors: ops.lars_update(*tensors, **CHOICES), jit_compile=True)(*tensors)
    assert len(found) == 2
    for tensor, array in zip(tensors, arrays):
        assert np.array_equal(tensor.numpy(), array)


@needs_xla
def test_jit_refuses_shapes_that_differ() -> None:
    weight, gradient, velocity = draw((5, 7))
    for wrong in ([gradient[:4], velocity], [gradient, velocity.reshape(7, 5)], [gradient, velocity[:, :, None]]):
        with pytest.raises(ValueError, match="the same shape"):
            compiled([weight, *wrong])


@needs_xla
def test_jit_refuses_unknown_shapes_with_a_sentence() -> None:
    signature = [tf.TensorSpec([None, 7], tf.float32)] * 3
    update = tf.function(
        lambda *tensors: ops.lars_update(*tensors, **CHOICES), jit_compile=True, input_signature=signature
    )
    with pytest.raises(ValueError, match="static shapes.*lars_update"):
        update(*map(tf.constant, draw((5, 7))))


# The update of many variables in one call


def draw_all() -> list[list[np.ndarray]]:
    """Return the weights, gradients and velocities of variables of several ranks."""
    return [list(arrays) for arrays in zip(*map(draw, SHAPES))]


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=needs_xla)])
def test_variables_move_together_as_each_alone(jit: bool) -> None:
    given = draw_all()
    update = tf.function(lambda *arrays: ops.lars_update_all(*arrays, **CHOICES), jit_compile=jit)
    found = update(*[list(map(tf.constant, arrays)) for arrays in given])
    for moved, arrays in zip(zip(*found, strict=True), zip(*given), strict=True):
        for one, other in zip(moved, call("native", list(arrays)), strict=True):
            assert one.shape == other.shape and one.numpy().tobytes() == other.tobytes()


@needs_xla
def test_variables_that_move_in_place_leave_other_readers_what_they_read() -> None:
    """Test an update for which XLA writes the new weights into the memory of the old ones.

    If another op reads an old weight later, XLA must copy it first.
    """
    given = draw_all()

    @tf.function(jit_compile=True)
    def update(weights: Any, gradients: Any, velocities: Any) -> Any:
        moved = ops.lars_update_all(weights, gradients, velocities, **CHOICES)
        again = ops.lars_update_all(weights, gradients, velocities, **CHOICES)
        return moved, again, [weight * 2 for weight in weights]

    tensors = [list(map(tf.constant, arrays)) for arrays in given]
    moved, again, doubled = update(*tensors)
    for one, other in zip(tf.nest.flatten(moved), tf.nest.flatten(again), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
    assert all(np.array_equal(one, 2 * array) for one, array in zip(doubled, given[0], strict=True))
    for arrays, kept in zip(given, tensors, strict=True):
        assert all(np.array_equal(array, tensor) for array, tensor in zip(arrays, kept, strict=True))


def test_as_many_gradients_as_weights_are_needed_and_none_of_each_is_nothing() -> None:
    weights, gradients, velocities = draw_all()
    with pytest.raises(ValueError, match=f"{len(weights)} weights, {len(weights) - 1} gradients"):
        ops.lars_update_all(weights, gradients[1:], velocities, **CHOICES)
    assert ops.lars_update_all([], [], [], **CHOICES) == ([], [])


@needs_xla
def test_one_wrong_shape_among_many_is_refused() -> None:
    weights, gradients, velocities = draw_all()
    velocities[-1] = velocities[-1][..., None]
    update = tf.function(lambda *arrays: ops.lars_update_all(*arrays, **CHOICES), jit_compile=True)
    with pytest.raises(ValueError, match="the same shape"):
        update(*[list(map(tf.constant, arrays)) for arrays in (weights, gradients, velocities)])


# Errors of the handler (the C++ function that XLA calls), and of a TensorFlow whose XLA cannot call it


@needs_xla
@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ([(4,), (5, 7), (5, 7), (7, 5)], [(5, 7), (5, 7)], "must have the same shape"),
        ([(4,), (5, 7), (5, 7), (5, 7)], [(5, 7), (7, 5)], "must have the same shape"),
        ([(3,), (5, 7), (5, 7), (5, 7)], [(5, 7), (5, 7)], "scalars must be learning_rate"),
        ([(4,), (5, 7), (5, 7)], [(5, 7), (5, 7)], "three arrays"),
        ([(4,), (5, 7), (5, 7), (5, 7)], [(5, 7)], "two results"),
    ],
)
def test_the_handler_refuses_what_its_caller_never_sends(inputs: Any, outputs: Any, why: str) -> None:
    specs = [(shape, tf.float32) for shape in outputs]
    call = tf.function(
        lambda: _route.call_handler("lowlevel_simclr_lars_update", [tf.ones(shape) for shape in inputs], specs),
        jit_compile=True,
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=why):
        call()


@needs_xla
def test_the_handler_refuses_other_types() -> None:
    arrays = [tf.ones(4), *[tf.ones((5, 7), tf.float64)] * 3]
    specs = [((5, 7), tf.float64)] * 2
    call = tf.function(lambda: _route.call_handler("lowlevel_simclr_lars_update", arrays, specs), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be float32"):
        call()


@pytest.mark.skipif(_route.find_route_error() is None, reason="this TensorFlow's XLA can call the native library")
def test_jit_without_a_route_is_an_error_that_names_versions() -> None:
    with pytest.raises(Exception, match=f"TensorFlow {tf.__version__}.*2.18 or later"):
        compiled(draw((5, 7)))
