"""Tests the gradient cache: a training step that runs the encoder on one part of the batch (micro-batch) at a time.

Its gradients must equal those of one `tf.GradientTape` over the whole batch. It must need only the memory of one
micro-batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench import harness
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.views import Views, make_two_views
from lowlevel_simclr.model import batch_norm, encoder, projection
from lowlevel_simclr.optim import loss_scale, optimizers
from lowlevel_simclr.runtime.precision import set_precision
from lowlevel_simclr.training import gradient_cache, step
from lowlevel_simclr.training.learner import Learner, list_trainable_variables, start_learner

SIZE, PAIRS, TEMPERATURE = 8, 24, 0.2
# The gradient cache and a single tape compute the same products in float64, but add them in different orders. So their
# rounding errors differ, and BatchNorm amplifies some of these errors when it divides by a small standard deviation.
# The results may differ by up to 2^12 times the spacing of float64 at 1.
CLOSE = 2.0**12 * 2.0**-52
NARROW = encoder.Basic((1, 1), 8, projects=True)
VIEWS = functools.partial(make_two_views, seed=3, recipe=ViewRecipe(), size=SIZE, implementation=stock)
LOSS = functools.partial(ops.nt_xent_and_top1, temperature=TEMPERATURE)


@pytest.fixture(autouse=True)
def float32_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(encoder.BASIC, "narrow", NARROW)
    yield
    set_precision("float32")


def learner_of(precision: str) -> Learner:
    """Return a small ResNet (8 and 16 channels), a projection head, and SGD without momentum and weight decay."""
    set_precision(precision)
    f = encoder._build_basic("narrow", "cifar", (SIZE, SIZE, 3), seed=0)
    g = projection.build_projection_head(f.output_shape[-1], (16, 8), seed=0)
    plain = optimizers.Sgd(list_trainable_variables(f, g), weight_decay=0.0, momentum=0.0)
    return start_learner(f, g, plain, loss_scale.build_loss_scale(precision))


def batch_of(pairs: int = PAIRS, seed: int = 0) -> step.Batch:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (pairs, SIZE, SIZE, 3), dtype=np.uint8)
    return tf.constant(1, tf.int64), tf.constant(random.permutation(pairs), tf.int64), tf.constant(images)


@functools.cache
def made_views() -> tf.Tensor:
    """Return the two views of every image, (images, 2, S, S, 3), made once for all tests.

    Views that are made for one micro-batch differ from those of the whole batch by rounding errors of float32. These
    would hide the errors that the tests look for.
    """
    with tf.init_scope():
        epoch, index, images = batch_of()
        order = tf.argsort(index)
        first, second = tf.split(VIEWS(tf.gather(images, order), epoch, tf.gather(index, order), dtype=tf.float32), 2)
        return tf.stack([first, second], axis=1)


def views_in(dtype: str) -> Views:
    table = tf.cast(made_views(), dtype)
    return lambda epoch, index, images: tf.concat(tf.unstack(tf.gather(table, index), axis=1), axis=0)


def moving(learner: Learner) -> list[np.ndarray]:
    return [variable.numpy() for variable in learner.encoder.non_trainable_variables]


def one_tape(
    learner: Learner, batch: step.Batch, count: int, dtype: str, scale: float = 1.0
) -> tuple[Any, list[Any], list[Any]]:
    """Return loss, gradients and BatchNorm's moving statistics, computed under one tape for all micro-batches.

    The tests take these values as the right ones. This function uses no code of `gradient_cache` or `step`.
    """
    epoch, index, images = batch
    m, norms = len(index) // count, [layer for layer in learner.encoder.layers if "_bn" in layer.name]
    before = moving(learner)
    sums = [np.zeros_like(value) for value in before]
    with tf.GradientTape() as tape:
        first, second = [], []
        for place in range(count):
            rows = slice(place * m, (place + 1) * m)
            x = views_in(dtype)(epoch, index[rows], images[rows])
            z = learner.projection(learner.encoder(x, training=True), training=True)
            first, second = [*first, z[:m]], [*second, z[m:]]
            moved = moving(learner)
            sums = [total + value for total, value in zip(sums, moved)]
            for variable, value in zip(learner.encoder.non_trainable_variables, before):
                variable.assign(value)  # so each micro-batch starts from the same moving statistics
        loss = tf.reduce_mean(stock.nt_xent(tf.concat(first + second, axis=0), TEMPERATURE))
        scaled = scale * loss
    assert norms
    gradients = tape.gradient(scaled, list_trainable_variables(learner.encoder, learner.projection))
    return loss, [value.numpy() / scale for value in gradients], [total / count for total in sums]


def unit_rate(_: tf.Tensor) -> tf.Tensor:
    return tf.constant(1.0, tf.float64)


def by_micro_batches(
    precision: str, count: int, take: Callable[..., step.Metrics] = gradient_cache.train_cached_step
) -> tuple[Any, list[Any], list[Any]]:
    """Return loss, gradients and BatchNorm's moving statistics after one training step with micro-batches.

    SGD with learning rate 1 subtracts the gradient from the weights. So the gradient is the weights before the step
    minus the weights after it.
    """
    learner = learner_of(precision)
    variables = list_trainable_variables(learner.encoder, learner.projection)
    before = [variable.numpy().astype(np.float64) for variable in variables]
    act = tf.function(lambda *batch: take(learner, views_in(precision), LOSS, unit_rate, batch, count))
    metrics = act(*batch_of())
    after = [variable.numpy().astype(np.float64) for variable in variables]
    return metrics.loss, [old - new for old, new in zip(before, after)], moving(learner)


def assert_equal(
    found: tuple[Any, list[Any], list[Any]], wanted: tuple[Any, list[Any], list[Any]], close: float
) -> None:
    """Assert that losses, gradients and statistics differ by at most `close`, as a relative error.

    Errors of gradients are divided by the norm of all gradients together, errors of a statistic by its own norm.
    """
    assert float(found[0]) == pytest.approx(float(wanted[0]), rel=close)
    norm = np.sqrt(sum(np.sum(np.square(value)) for value in wanted[1]))
    for one, other in zip(found[1], wanted[1]):
        assert np.linalg.norm(one - other) <= close * norm
    for one, other in zip(found[2], wanted[2]):
        assert np.linalg.norm(one - other) <= close * np.linalg.norm(other)


@functools.cache
def wanted(count: int) -> tuple[Any, list[Any], list[Any]]:
    return one_tape(learner_of("float64"), batch_of(), count, "float64")


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_gradients_and_statistics_are_those_of_one_tape_over_the_same_model(count: int) -> None:
    assert_equal(by_micro_batches("float64", count), wanted(count), CLOSE)


def test_one_micro_batch_is_the_whole_step() -> None:
    def whole(learner: Learner, views: Any, loss: Any, rate: Any, batch: step.Batch, _: int) -> step.Metrics:
        return step.train_step(learner, views, loss, rate, batch)

    assert_equal(by_micro_batches("float64", 1), by_micro_batches("float64", 1, whole), CLOSE)


def statistics_that_always_move(original: Any, **changed: Any) -> Any:
    return original(**{**changed, "moves": True})


def test_statistics_that_move_in_both_passes_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = functools.partial(statistics_that_always_move, batch_norm.get_batch_statistics)
    monkeypatch.setattr(gradient_cache.batch_norm, "get_batch_statistics", wrong)
    with pytest.raises(AssertionError):
        assert_equal(by_micro_batches("float64", 3), wanted(3), CLOSE)


def shifted(rows: tf.Tensor, count: int) -> tf.Tensor:
    return tf.roll(step_apart(rows, count), 1, axis=1)


def of_neighbour(rows: tf.Tensor, count: int) -> tf.Tensor:
    return tf.roll(step_apart(rows, count), 1, axis=0)


def by_replica_not_by_view(rows: tf.Tensor, count: int) -> tf.Tensor:
    return tf.reshape(rows, [count, -1, rows.shape[1]])


step_apart = gradient_cache._split_rows


@pytest.mark.parametrize("wrong", [shifted, of_neighbour, by_replica_not_by_view])
def test_dz_on_wrong_rows_is_caught(monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., tf.Tensor]) -> None:
    monkeypatch.setattr(gradient_cache, "_split_rows", wrong)
    with pytest.raises(AssertionError):
        assert_equal(by_micro_batches("float64", 3), wanted(3), CLOSE)


def test_an_uneven_tail_is_refused() -> None:
    with pytest.raises(ValueError, match="A batch of 24 images cannot be split into 5 equal micro-batches"):
        by_micro_batches("float64", 5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_and_its_loss_scale_are_those_of_one_tape(precision: str) -> None:
    """Test micro-batches in bfloat16 and float16. The exact gradients are those of a single tape in float32.

    The error of the step with micro-batches may be at most twice the error of a single tape in the same precision.
    """
    _, exact, _ = one_tape(learner_of("float32"), batch_of(), 3, "float32")
    scale = loss_scale.FIRST_SCALE if precision == "float16" else 1.0
    _, halves, _ = one_tape(learner_of(precision), batch_of(), 3, precision, scale)
    _, found, _ = by_micro_batches(precision, 3)

    def error(gradients: list[Any]) -> float:
        return float(np.sqrt(sum(np.sum(np.square(one - other)) for one, other in zip(gradients, exact))))

    assert 0 < error(found) <= 2 * error(halves)


def test_a_float16_gradient_that_overflows_leaves_the_weights_and_halves_the_scale() -> None:
    learner = learner_of("float16")
    learner.loss_scale.scale.assign(2.0**40)
    before = [variable.numpy() for variable in list_trainable_variables(learner.encoder, learner.projection)]
    gradient_cache.train_cached_step(learner, views_in("float16"), LOSS, lambda _: tf.constant(1.0), batch_of(), 2)
    after = [variable.numpy() for variable in list_trainable_variables(learner.encoder, learner.projection)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after))
    assert learner.loss_scale.scale.numpy() == 2.0**39 and learner.step.numpy() == 1


# Memory


def step_views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return VIEWS(images, epoch, index, dtype=dtype)


def measure(started: Callable[[], None], pairs: int, count: int) -> None:
    """Run one step with few images, so that TensorFlow traces it. Then call `started`, and run one with `pairs` images.

    `harness.measure_peak_growth` calls this function in a separate process. It measures from the call of `started` on.
    """
    encoder.BASIC["narrow"] = NARROW
    learner = learner_of("float32")
    views = functools.partial(step_views, dtype=tf.float32)
    act = tf.function(
        lambda *batch: gradient_cache.train_cached_step(learner, views, LOSS, lambda _: tf.constant(0.1), batch, count)
    )
    act(*batch_of(count))
    images = batch_of(pairs)
    started()
    act(*images)


@pytest.mark.slow
def test_sixteen_micro_batches_need_the_memory_of_one() -> None:
    one = harness.measure_peak_growth(measure, 256, 1)
    sixteen = harness.measure_peak_growth(measure, 4096, 16)
    assert isinstance(one, int) and isinstance(sixteen, int)
    print(f"peak memory: batch 256 {one / 2**20:.1f} MiB, batch 4096 by 256 {sixteen / 2**20:.1f} MiB")
    assert sixteen <= 1.25 * one


def test_each_micro_batch_has_the_sizes_of_its_images() -> None:
    """Test with imitated views whose values depend on the size of each image.

    If a micro-batch got the sizes of other images, the loss would change.
    """
    epoch, index, images = batch_of()
    batch = epoch, index, images, tf.stack([index, 2 * index], axis=1)

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        share = tf.cast(sizes[:, 1] + 1, tf.float64)[:, None, None, None] / (2 * PAIRS)
        return views_in("float64")(epoch, index, images) * tf.concat([share, share], axis=0)

    def plain(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        return views(epoch, index, images, tf.stack([index, 2 * index], axis=1))

    losses = []
    for make, given_batch in ((views, batch), (plain, batch[:3])):
        learner = learner_of("float64")
        losses.append(gradient_cache.train_cached_step(learner, make, LOSS, unit_rate, given_batch, 4).loss.numpy())
    assert losses[0] == losses[1]
