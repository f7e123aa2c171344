"""One training step, Algorithm 1 of SimCLR: views, h, z, loss, gradient, update; and several of them in one host call.

Not here: the configuration, files, what is done between two calls (`train.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr import compat, stock
from lowlevel_simclr.optimizer import LarsUpdate, LossScale, Optimizer

Views = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]  # (epoch, index, images) -> (2N, S, S, C)
LossAndTop1 = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # z (2N, d) -> loss (2N,), top1 (2N,) bool
Schedule = Callable[[tf.Tensor], tf.Tensor]  # step, from 0 -> learning rate
Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # epoch (), index (N,) int64, images (N, H, W, C) uint8


class NonFiniteLoss(ArithmeticError):
    """Training produced a number that is none; the text names the step and the quantity."""


class Metrics(NamedTuple):
    """What a step tells: scalars float32, or (k,) for k steps.

    loss: mean over the 2N views. top1: share of views whose positive is the most similar of the 2N - 1 candidates.
    learning_rate: the one the step used.
    """

    loss: tf.Tensor
    top1: tf.Tensor
    learning_rate: tf.Tensor


class Implementation(NamedTuple):
    """Whose loss, views and update are used.

    name: as it is said to the user. The functions have the signatures of those in `stock`.
    """

    name: str
    nt_xent_and_top1: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    draw_view_params: Callable[..., Any]
    make_views: Callable[..., tf.Tensor]
    lars_update: LarsUpdate = stock.lars_update


@dataclasses.dataclass(frozen=True)
class Learner:
    """What is trained and what training keeps: f, g, the optimizer's slots, the loss scale, the step counter."""

    encoder: tf.keras.Model
    projection: tf.keras.Model
    optimizer: Optimizer
    loss_scale: LossScale
    step: tf.Variable  # () int64, steps done

    def named_state(self) -> dict[str, tf.Variable]:
        """Every variable that the next step depends on, by a name that stays the same from one program to the next."""
        named = {
            **compat.named_variables("encoder", self.encoder),
            **compat.named_variables("projection", self.projection),
        }
        named |= {f"optimizer/{place:04d}": slot for place, slot in enumerate(self.optimizer.variables)}
        named |= {f"loss_scale/{place}": variable for place, variable in enumerate(self.loss_scale.variables)}
        return named | {"step": self.step}

    def snapshot(self) -> dict[str, tf.Tensor]:
        """The state of this moment, whatever training does next: costs nothing now, its memory once training moves on.

        Tensors that share the variables' memory. TensorFlow gives a variable new memory where a tensor still holds the
        old one, and the native update never writes in place.
        """
        return {name: compat.tensorflow_variable(each).read_value() for name, each in self.named_state().items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays, to be saved."""
        return {name: tensor.numpy() for name, tensor in self.snapshot().items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave.

        Raises:
            ValueError: the names or shapes are those of another model or optimizer.
        """
        compat.assign_named(self.named_state(), arrays)


def new_learner(
    encoder: tf.keras.Model, projection: tf.keras.Model, optimizer: Optimizer, loss_scale: LossScale
) -> Learner:
    """A learner before its first step."""
    return Learner(encoder, projection, optimizer, loss_scale, tf.Variable(0, dtype=tf.int64, trainable=False))


def train_step(learner: Learner, views: Views, loss_and_top1: LossAndTop1, schedule: Schedule, batch: Batch) -> Metrics:
    """One step of Algorithm 1: two views of each image, h = f(x), z = g(h), NT-Xent, its gradient, one update."""
    x = views(*batch)  # (2N, S, S, C)
    with tf.GradientTape() as tape:
        z = learner.projection(learner.encoder(x, training=True), training=True)  # (2N, d)
        losses, top1 = loss_and_top1(z)  # (2N,), (2N,)
        loss = tf.reduce_mean(losses)
        scaled = learner.loss_scale.scale_loss(loss)
    learning_rate = schedule(learner.step)
    _update(learner, tape, scaled, learning_rate)
    return Metrics(loss, tf.reduce_mean(tf.cast(top1, tf.float32)), learning_rate)


def trainable_variables(encoder: tf.keras.Model, projection: tf.keras.Model) -> list[tf.Variable]:
    """The variables of f and g that the loss moves, in the order the optimizer knows them by."""
    return [*encoder.trainable_variables, *projection.trainable_variables]


def _update(learner: Learner, tape: tf.GradientTape, scaled: tf.Tensor, learning_rate: tf.Tensor) -> None:
    """Moves the weights, or leaves them where a float16 gradient ran over, and counts the step."""
    gradients = tape.gradient(scaled, trainable_variables(learner.encoder, learner.projection))
    gradients, finite = learner.loss_scale.unscale(gradients)
    if learner.loss_scale.dynamic:
        tf.cond(finite, lambda: learner.optimizer.apply(gradients, learning_rate), lambda: None)
    else:
        learner.optimizer.apply(gradients, learning_rate)
    learner.step.assign_add(1)


StepsFunction = Callable[[Iterator[Batch], tf.Tensor], Metrics]


def compile_steps(one_step: Callable[[Batch], Metrics], jit_compile: bool) -> StepsFunction:
    """`steps(iterator, count)`: `count` steps in one host call, without Python between them.

    Args:
        one_step: a batch -> metrics, as `train_step`.
        jit_compile: compile the step with XLA; the loop and the input stay outside.

    Returns:
        A function whose metrics are (count,) each; `count` is a scalar int32 tensor, so that it never retraces.
    """
    compiled = tf.function(one_step, jit_compile=True) if jit_compile else one_step

    @tf.function
    def steps(iterator: Iterator[Batch], count: tf.Tensor) -> Metrics:
        rows = [tf.TensorArray(tf.float32, size=count, element_shape=()) for _ in Metrics._fields]
        for place in tf.range(count):
            metrics = compiled(next(iterator))
            rows = [array.write(place, value) for array, value in zip(rows, metrics)]
        return Metrics(*(array.stack() for array in rows))

    return steps


def refuse_non_finite(metrics: Metrics, first_step: int) -> None:
    """Looks at the losses of steps first_step, first_step + 1 ...

    Raises:
        NonFiniteLoss: the loss of a step is infinite or no number.
    """
    loss = np.asarray(metrics.loss)
    bad = np.flatnonzero(~np.isfinite(loss))
    if bad.size:
        raise NonFiniteLoss(
            f"the loss of step {first_step + bad[0]} is {loss[bad[0]]}: a lower --learning-rate, a longer warm-up or "
            "--precision float32 usually helps"
        )
