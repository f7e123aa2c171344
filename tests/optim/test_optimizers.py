"""Tests the optimizers (SGD, LARS, AdamW, LAMB): each must follow its formulas, computed in float64 with NumPy.

Further tests check properties of the formulas, for example that a gradient of zero changes no weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops
from lowlevel_simclr.config.choices import OPTIMIZERS
from lowlevel_simclr.optim import optimizers
from lowlevel_simclr.reference.lamb import adamw_update, lamb_update
from lowlevel_simclr.reference.lars_update import lars_update, sgd_update
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.precision import set_precision
from tests.support.host import on_the_host
from tests.support.op_modes import needs_xla

EPS = float(np.finfo(np.float32).eps)
# Variables of ranks 4, 2, 1 and 0. The rank must decide which variables have weight decay. The names are misleading on
# purpose: an optimizer that decides by the name must fail the tests.
SHAPES = {"gamma": (3, 3, 2, 4), "bias": (5, 7), "kernel": (7,), "gain": ()}
CHOICES: dict[str, float] = {
    "momentum": 0.9,
    "weight_decay": 0.02,
    "trust_coefficient": 0.01,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-6,
}
RATE, STEPS = 0.05, 10


def draw(seed: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=shape), np.float32) for shape in SHAPES.values()]


def variables() -> list[tf.Variable]:
    return [tf.Variable(value, name=name) for name, value in zip(SHAPES, draw([1]))]


def tensors(values: list[np.ndarray]) -> list[tf.Tensor]:
    return [tf.constant(value) for value in values]


def numbers(trained: list[tf.Variable]) -> list[np.ndarray]:
    return [variable.numpy() for variable in trained]


def reference_step(name: str, weight: Any, gradient: Any, slots: list[Any], count: int) -> tuple[Any, list[Any]]:
    choice = dict(CHOICES, learning_rate=RATE)
    if name in ("sgd", "lars"):
        names = ["learning_rate", "momentum", "weight_decay", *(["trust_coefficient"] if name == "lars" else [])]
        update = lars_update if name == "lars" else sgd_update
        weight, velocity = update(weight, gradient, slots[0], **{key: choice[key] for key in names})
        return weight, [velocity, slots[1]]
    names = ["learning_rate", "weight_decay", "beta_1", "beta_2", "epsilon"]
    update = lamb_update if name == "lamb" else adamw_update
    weight, *slots = update(weight, gradient, *slots, count, **{key: choice[key] for key in names})
    return weight, slots


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_follow_the_formulas(name: str, how: str) -> None:
    trained = variables()
    chosen = optimizers.build_optimizer(name, trained, **CHOICES)
    apply = chosen.apply if how == "eager" else tf.function(chosen.apply, jit_compile=how == "xla")
    expected = [value.astype(np.float64) for value in numbers(trained)]
    slots: list[list[Any]] = [[np.zeros(shape), np.zeros(shape)] for shape in SHAPES.values()]
    travelled = np.zeros(len(SHAPES))
    for count in range(1, STEPS + 1):
        gradients = draw([2, count])
        apply(tensors(gradients), tf.constant(RATE))
        for place, gradient in enumerate(gradients):
            before = expected[place]
            expected[place], slots[place] = reference_step(name, before, gradient, slots[place], count)
            travelled[place] += np.abs(expected[place] - before).max()
    for place, (found, right) in enumerate(zip(numbers(trained), expected)):
        # Each step rounds the weight once, and the update a few times. With momentum m, and with Adam's moments, an
        # error of the update lasts for about 1 / (1 - m) steps. AdamW and LAMB divide by 1 - b2^t in step t, where b2
        # is beta_2. In the first step, this number has a relative error of about eps / (1 - b2) in float32.
        of_the_step = 8 / (1 - CHOICES["momentum"]) + (1 / (1 - CHOICES["beta_2"]) if name in ("adamw", "lamb") else 0)
        allowed = EPS * (STEPS * np.abs(right).max() + of_the_step * travelled[place])
        assert np.abs(found - right).max() <= allowed, list(SHAPES)[place]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_rank_2_and_more_decays(name: str) -> None:
    trained = variables()
    before = numbers(trained)
    chosen = optimizers.build_optimizer(name, trained, **CHOICES)
    chosen.apply([tf.zeros(shape) for shape in SHAPES.values()], tf.constant(RATE))
    assert chosen.decayed == [True, True, False, False]
    for value, found, decays in zip(before, numbers(trained), chosen.decayed):
        if decays:
            assert np.linalg.norm(found.ravel()) < np.linalg.norm(value.ravel())
        else:
            assert np.array_equal(found, value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_optimizer_goes_on_to_the_same_bits(name: str) -> None:
    def learner() -> tuple[list[tf.Variable], optimizers.Optimizer]:
        trained = variables()
        return trained, optimizers.build_optimizer(name, trained, **CHOICES)

    trained, chosen = learner()
    for count in range(3):
        chosen.apply(tensors(draw([2, count])), tf.constant(RATE))
    saved = numbers([*trained, *chosen.variables])
    other, resumed = learner()
    for variable, value in zip([*other, *resumed.variables], saved, strict=True):
        variable.assign(value)
    for count in range(3, 6):
        chosen.apply(tensors(draw([2, count])), tf.constant(RATE))
        resumed.apply(tensors(draw([2, count])), tf.constant(RATE))
    for uninterrupted, found in zip([*trained, *chosen.variables], [*other, *resumed.variables], strict=True):
        assert np.array_equal(uninterrupted.numpy(), found.numpy())


def test_lars_with_trust_ratio_1_and_no_decay_is_sgd() -> None:
    eta = 2.0**-10
    by_lars, by_sgd = variables(), variables()
    lars = optimizers.build_optimizer("lars", by_lars, momentum=0.9, weight_decay=0.0, trust_coefficient=eta)
    sgd = optimizers.build_optimizer("sgd", by_sgd, momentum=0.9, weight_decay=0.0)
    for _ in range(5):
        # The gradient g is eta times the weight w. This product is exact, because eta is a power of two. So the trust
        # ratio eta |w| / |g| is 1.
        gradients = [variable * eta for variable in by_lars]
        lars.apply(gradients, tf.constant(RATE))
        sgd.apply(gradients, tf.constant(RATE))
    for one, other, start in zip(numbers(by_lars), numbers(by_sgd), draw([1])):
        assert np.array_equal(one, other) and not np.array_equal(one, start)


@pytest.mark.parametrize("factor", [8.0, 2.0**-20])
def test_lars_without_decay_does_not_see_the_scale_of_a_gradient(factor: float) -> None:
    found = []
    for scale in (1.0, factor):
        trained = variables()
        lars = optimizers.build_optimizer("lars", trained, momentum=0.9, weight_decay=0.0, trust_coefficient=0.01)
        for count in range(3):
            lars.apply([tf.constant(gradient) * scale for gradient in draw([2, count])], tf.constant(RATE))
        found.append(numbers(trained))
    for name, one, other in zip(SHAPES, *found):
        assert np.array_equal(one, other) == (name in ("gamma", "bias"))  # only ranks 4 and 2 have a trust ratio


def test_lars_of_a_zero_weight_takes_ratio_1() -> None:
    gradient = draw([2, 0])[1]
    weight = tf.Variable(tf.zeros_like(gradient))
    lars = optimizers.build_optimizer("lars", [weight], momentum=0.9, weight_decay=0.02, trust_coefficient=0.01)
    lars.apply([tf.constant(gradient)], tf.constant(RATE))
    assert np.array_equal(weight.numpy(), -(np.float32(RATE) * gradient))


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_zero_gradient_without_decay_moves_nothing(name: str) -> None:
    trained = variables()
    chosen = optimizers.build_optimizer(name, trained, weight_decay=0.0)
    chosen.apply([tf.zeros(shape) for shape in SHAPES.values()], tf.constant(RATE))
    for found, start in zip(numbers(trained), draw([1])):
        assert np.array_equal(found, start)


def test_our_lamb_is_that_of_tensorflow_addons() -> None:
    if keras.import_tensorflow_addons() is None:
        pytest.skip("tensorflow-addons is not installed")
    given = [CHOICES[key] for key in ("weight_decay", "beta_1", "beta_2", "epsilon")]
    ours, theirs = variables(), variables()
    both = optimizers.Lamb(ours, *given), optimizers.AddonsLamb(theirs, *given)
    travelled = np.zeros(len(SHAPES))
    for count in range(STEPS):
        before = numbers(ours)
        for each in both:
            each.apply(tensors(draw([2, count])), tf.constant(RATE))
        travelled += [np.abs(after - value).max() for after, value in zip(numbers(ours), before)]
    for one, other, distance in zip(numbers(ours), numbers(theirs), travelled):
        # test_ten_steps_follow_the_formulas explains this bound.
        allowed = EPS * (STEPS * np.abs(one).max() + 2 * distance / (1 - CHOICES["beta_2"]))
        assert np.abs(one - other).max() <= allowed


def test_the_learning_rate_is_no_constant_of_the_graph() -> None:
    traces = []
    weight = tf.Variable([1.0, 1.0])
    sgd = optimizers.build_optimizer("sgd", [weight], momentum=0.0)

    @tf.function
    def step(rate: tf.Tensor) -> None:
        traces.append(1)
        sgd.apply([tf.ones(2)], rate)

    step(tf.constant(0.25))
    step(tf.constant(0.5))
    assert weight.numpy().tolist() == [0.25, 0.25] and len(traces) == 1


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_variable_without_gradient_is_named(name: str) -> None:
    chosen = optimizers.build_optimizer(name, variables())
    gradients: list[tf.Tensor | None] = tensors(draw([2, 0]))
    with pytest.raises(ValueError, match="kernel"):
        chosen.apply([*gradients[:2], None, gradients[3]], tf.constant(RATE))


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="no optimizer 'adagrad'.*lars"):
        optimizers.build_optimizer("adagrad", variables())


def test_the_description_says_what_decays() -> None:
    rows = optimizers.describe_variables(optimizers.build_optimizer("lars", variables()))
    assert [(row["shape"], row["decayed"]) for row in rows] == [
        ([3, 3, 2, 4], True),
        ([5, 7], True),
        ([7], False),
        ([], False),
    ]


# LARS updates all variables in one call


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=needs_xla)])
def test_lars_moves_all_variables_at_once_as_one_by_one(jit: bool) -> None:
    starts, gradients = draw([1]), [draw([2, step]) for step in range(3)]

    def one_by_one(*moved: list[tf.Tensor], **choices: Any) -> Any:
        return tuple(zip(*(ops.lars_update(*each, **choices) for each in zip(*moved))))

    def trained(update_all: Any) -> list[np.ndarray]:
        moved = variables()
        chosen = optimizers.build_optimizer("lars", moved, weight_decay=0.1, lars_update_all=update_all)
        step = tf.function(lambda given: chosen.apply(given, tf.constant(0.1)), jit_compile=jit)
        for given in gradients:
            step(tensors(given))
        return numbers([*moved, *chosen.variables])

    together, alone = trained(ops.lars_update_all), trained(one_by_one)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(together, alone, strict=True))
    assert not np.array_equal(together[0], starts[0])


# Gradients in bfloat16


@on_the_host
def test_lars_reads_the_bfloat16_that_a_gradient_was_widened_from() -> None:
    """Test a bfloat16 gradient that was cast to float32. LARS must read the bfloat16 tensor from before the cast.

    The result must have the same bits as with the float32 tensor. If a gradient is not the direct result of a cast,
    LARS reads the gradient itself.
    """
    set_precision("bfloat16")
    try:
        layer = tf.keras.layers.Dense(5, kernel_initializer=tf.keras.initializers.GlorotUniform(3))
        layer.build((None, 7))
    finally:
        set_precision("float32")
    start, x = [variable.numpy() for variable in layer.trainable_variables], tf.constant(draw([5])[1])

    def trained(read: Any) -> tuple[list[np.ndarray], list[tf.DType]]:
        for variable, value in zip(layer.trainable_variables, start):
            variable.assign(value)
        seen: list[tf.DType] = []

        def update_all(weights: Any, gradients: Any, velocities: Any, **choices: Any) -> Any:
            seen.extend(gradient.dtype for gradient in gradients)
            return ops.lars_update_all(weights, gradients, velocities, **choices)

        chosen = optimizers.build_optimizer(
            "lars", layer.trainable_variables, weight_decay=0.1, lars_update_all=update_all
        )

        @tf.function
        def step() -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(tf.cast(layer(x), tf.float32)))
            chosen.apply(read(tape.gradient(loss, layer.trainable_variables)), tf.constant(0.1))

        for _ in range(3):
            step()
        return numbers([*layer.trainable_variables, *chosen.variables]), seen

    direct, kinds = trained(lambda gradients: gradients)
    widened, others = trained(lambda gradients: [tf.identity(gradient) for gradient in gradients])
    assert kinds == [tf.bfloat16] * 2 and others == [tf.float32] * 2
    assert all(one.tobytes() == other.tobytes() for one, other in zip(direct, widened, strict=True))
    assert not np.array_equal(direct[0], start[0])


def test_a_cast_that_changes_numbers_is_no_widening() -> None:
    @tf.function
    def kinds(x: tf.Tensor) -> None:
        whole, double = tf.cast(x, tf.int32), tf.cast(x, tf.float64)
        for source in (whole, double, tf.cast(x, tf.float16)):
            wide = tf.cast(source, tf.float32)
            assert optimizers.find_before_widening(wide) is wide
        assert optimizers.find_before_widening(tf.cast(tf.cast(x, tf.bfloat16), tf.float32)).dtype == tf.bfloat16

    kinds(tf.constant([1.5]))
    eager = tf.cast(tf.constant([1.5], tf.bfloat16), tf.float32)
    assert optimizers.find_before_widening(eager) is eager
