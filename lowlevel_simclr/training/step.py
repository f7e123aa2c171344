"""One training step (Algorithm 1 of SimCLR): augments images, computes outputs, loss and gradient, updates the weights.

The module knows no configuration and no files. `loop.py` makes several steps in one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.views import Views
from lowlevel_simclr.optim.optimizers import Optimizer, find_before_widening, refuse_missing
from lowlevel_simclr.runtime.xla import is_inside_xla
from lowlevel_simclr.training.learner import Learner, list_trainable_variables
from lowlevel_simclr.training.loss import LossAndTop1
from lowlevel_simclr.training.replicas import ALONE, Replica

Schedule = Callable[[tf.Tensor], tf.Tensor]  # takes the step, counted from 0; returns the learning rate
Due = Callable[[tf.Tensor], tf.Tensor]  # takes the step, counted from 0; returns whether its gradient is measured
# epoch (), index (N,) int64, images (N, H, W, C) uint8, and, if the images differ in size, their sizes (N, 2) int32
Batch = tuple[tf.Tensor, ...]


class NonFiniteLoss(ArithmeticError):
    """A loss that became NaN or infinite. The message names the step."""


class Metrics(NamedTuple):
    """The metrics of one step, float32 scalars, or of k steps, (k,) float32.

    Attributes:
        loss: the training loss, a mean over the 2N views.
        top1: the share of views whose most similar view, of the 2N - 1 others, is the other view of the same image.
        learning_rate: the learning rate that the step used.
        gradient_norm: the length of the gradient of all weights, or NaN if it was not measured at this step.
    """

    loss: tf.Tensor
    top1: tf.Tensor
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor | float = math.nan


def train_step(
    learner: Learner,
    views: Views,
    loss_and_top1: LossAndTop1,
    schedule: Schedule,
    batch: Batch,
    replica: Replica = ALONE,
    is_measured: Due | None = None,
) -> Metrics:
    """Make one step: views x, outputs of the encoder h = f(x) and of the head z = g(h), loss, gradient, and one update.

    With several replicas (copies of the model on several devices), every replica makes this step. Its `batch` is its
    share of the whole batch, and `loss_and_top1` compares its rows with the rows of all replicas. The gradients of all
    replicas are added up before the update. They need no division, because the loss is already divided by the number of
    views of the whole batch.

    Args:
        learner: the networks and the optimizer that the step trains.
        views: the function (epoch, index, images, sizes) -> views (2N, S, S, C), see `compile_views`.
        loss_and_top1: the function that takes z (2N, d) and returns the loss (2N,) and top-1 (2N,) of each view.
        schedule: the function that takes the step, counted from 0, and returns the learning rate.
        batch: epoch (), index (N,) int64, images (N, H, W, C) uint8, and sizes (N, 2) int32 if the images differ in
            size.
        replica: the replica that makes the step.
        is_measured: the function that says at which steps the gradient norm is measured. None: at no step.

    Returns:
        The metrics of the step, over all replicas.
    """
    x = views(*batch)  # (2N, S, S, C)
    with replica.use_batch_norm(), tf.GradientTape() as tape:
        z = learner.projection(learner.encoder(x, training=True), training=True)  # (2N, d)
        losses, top1 = loss_and_top1(z)  # (2N,), (2N,)
        loss = tf.reduce_mean(losses) / replica.count
        scaled = learner.loss_scale.scale_loss(loss)
    gradients = tape.gradient(scaled, list_trainable_variables(learner.encoder, learner.projection))
    return finish_step(learner, replica, gradients, schedule, loss, top1, is_measured)


def finish_step(
    learner: Learner,
    replica: Replica,
    gradients: list[tf.Tensor],
    schedule: Schedule,
    loss: tf.Tensor,
    top1: tf.Tensor,
    is_measured: Due | None = None,
) -> Metrics:
    """Add up the gradients and the metrics over the replicas, and make one update, which is the same on every replica.

    Args:
        learner: the networks and the optimizer that the step trains.
        replica: the replica that makes the step.
        gradients: the gradients of the scaled loss, one for each trainable variable.
        schedule: the function that takes the step, counted from 0, and returns the learning rate.
        loss: scalar, this replica's share of the loss.
        top1: (2N,) bool, the top-1 of this replica's rows.
        is_measured: see `train_step`.

    Returns:
        The metrics of the step, over all replicas.
    """
    refuse_missing(list_trainable_variables(learner.encoder, learner.projection), gradients)
    gradients = replica.add_up_each(gradients, "gradients")
    replica.average_moving_statistics(learner.encoder.non_trainable_variables)
    learning_rate = schedule(learner.step)
    due = is_measured(learner.step) if is_measured else None
    norm = _update_weights(learner, gradients, learning_rate, due)
    hits = tf.reduce_mean(tf.cast(top1, loss.dtype)) / replica.count
    loss, hits = replica.add_up_each([loss, hits], "metrics")
    return Metrics(loss, tf.cast(hits, tf.float32), learning_rate, norm)


def _update_weights(
    learner: Learner, gradients: list[tf.Tensor], learning_rate: tf.Tensor, due: tf.Tensor | None
) -> tf.Tensor:
    """Update the weights and count the step. If a float16 gradient overflowed, the weights do not change.

    `gradients` are the gradients of the scaled loss. The function returns the length of the gradient of the loss if
    `due` is true, otherwise NaN.
    """
    gradients, finite = learner.loss_scale.unscale(gradients)
    norm = _measure_length(gradients, due)
    if is_inside_xla():
        learning_rate = _wait_for_all(gradients, learning_rate)
    if not learner.loss_scale.dynamic:
        learner.optimizer.apply(gradients, learning_rate)
    elif is_inside_xla():
        _apply_where(finite, learner.optimizer, gradients, learning_rate)
    else:
        tf.cond(finite, lambda: learner.optimizer.apply(gradients, learning_rate), lambda: None)
    learner.step.assign_add(1)
    return norm


def _apply_where(
    finite: tf.Tensor, optimizer: Optimizer, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor
) -> None:
    """Update the weights and the slots if `finite` is true. XLA makes the choice a part of each update.

    Around a branch, XLA copies every weight and every slot in each step.
    """
    changed = [*optimizer.trained, *optimizer.variables]
    before = [tf.convert_to_tensor(variable) for variable in changed]
    optimizer.apply(gradients, learning_rate)
    for variable, old in zip(changed, before):
        variable.assign(tf.where(finite, tf.convert_to_tensor(variable), old))


def _measure_length(gradients: Sequence[tf.Tensor], due: tf.Tensor | None) -> tf.Tensor:
    """Return the length of the gradients as one vector if `due` is true, otherwise NaN.

    The condition saves the work of reading all gradients in the steps that do not need their length.
    """
    if due is None:
        return tf.constant(math.nan)
    # The branch casts a bfloat16 gradient to float32. Outside the branch, every step would write the cast gradient to
    # memory, see `Lars`.
    narrow = [find_before_widening(gradient) for gradient in gradients]

    def measure() -> tf.Tensor:
        return tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(tf.cast(each, tf.float32)) for each in narrow]))

    return tf.cond(due, measure, lambda: tf.constant(math.nan))


def _wait_for_all(gradients: list[tf.Tensor], learning_rate: tf.Tensor) -> tf.Tensor:
    """Return the same learning rate, but computed from every gradient.

    So no update can start before the last gradient is computed. XLA may update a weight in place only if it knows
    that nothing reads the old weight later. Without this dependence, XLA copies every weight in each step (counted by
    `tests/training/test_program.py`). XLA removes its own optimization barriers too early to help.

    The other argument of the maximum is at most -1, so the learning rate does not change. It becomes NaN if a gradient
    is NaN, but then the weights become NaN anyway.
    """
    first = [tf.cast(tf.reshape(gradient, [-1])[0], learning_rate.dtype) for gradient in gradients]
    return tf.maximum(learning_rate, -1 - tf.reduce_max(tf.abs(tf.stack(first))))


def refuse_non_finite_loss(metrics: Metrics, first_step: int) -> None:
    """Check that the losses of some steps are finite.

    Args:
        metrics: the metrics of k steps.
        first_step: the number of the first of these steps, for the message.

    Raises:
        NonFiniteLoss: if the loss of a step is NaN or infinite.
    """
    loss = np.asarray(metrics.loss)
    bad = np.flatnonzero(~np.isfinite(loss))
    if bad.size:
        raise NonFiniteLoss(
            f"The loss became NaN or infinite ({loss[bad[0]]}) at step {first_step + bad[0]}. Try a lower "
            "--learning-rate, a longer warm-up or --precision float32."
        )
