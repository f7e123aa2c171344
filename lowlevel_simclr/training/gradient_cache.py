"""A training step that needs only the memory of one micro-batch (a part of a batch).

This method is called gradient cache (Gao et al. 2021).
"""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.data.views import Views
from lowlevel_simclr.model import batch_norm
from lowlevel_simclr.optim.optimizers import refuse_missing
from lowlevel_simclr.training.learner import Learner, list_trainable_variables
from lowlevel_simclr.training.loss import LossAndTop1
from lowlevel_simclr.training.replicas import ALONE, Replica
from lowlevel_simclr.training.step import Batch, Due, Metrics, Schedule, finish_step


def train_cached_step(
    learner: Learner,
    views: Views,
    loss_and_top1: LossAndTop1,
    schedule: Schedule,
    batch: Batch,
    micro_batches: int,
    replica: Replica = ALONE,
    is_measured: Due | None = None,
) -> Metrics:
    """Make the same step as `train_step` with the memory of one micro-batch.

    1. Compute z (the projections) of every micro-batch, without a gradient tape.
    2. Compute the loss of the whole batch and its gradient dz.
    3. Compute z of every micro-batch again from its images, now under a tape. With the rows of dz that belong to it,
       compute the gradient of the weights. Add up the gradients of all micro-batches.

    The gradient is exact for a model whose BatchNorm sees one micro-batch at a time. The moving statistics of BatchNorm
    change once per step, in part 3, by the mean over the micro-batches (`batch_norm.BatchStatistics`).

    Args:
        learner: see `train_step`.
        views: see `train_step`.
        loss_and_top1: see `train_step`.
        schedule: see `train_step`.
        batch: see `train_step`. With m images in a micro-batch, micro-batch j has the images j m .. (j + 1) m - 1.
        micro_batches: k, the number of micro-batches.
        replica: see `train_step`.
        is_measured: see `train_step`.

    Returns:
        The metrics of the step, over all replicas.

    Raises:
        ValueError: if the batch cannot be split into k equal micro-batches.
    """
    parts = _split_batch(batch, micro_batches)
    with replica.use_batch_norm():
        z = _join_rows(replica.call_loop(lambda: _project_each(learner, views, parts, micro_batches)))  # (2N, d)
    with tf.GradientTape() as tape:
        tape.watch(z)
        losses, top1 = loss_and_top1(z)  # (2N,), (2N,)
        loss = tf.reduce_mean(losses) / replica.count
        scaled = learner.loss_scale.scale_loss(loss)
    dz = _split_rows(tape.gradient(scaled, z), micro_batches)  # (k, 2m, d)
    with replica.use_batch_norm():
        gradients = replica.call_loop(lambda: _sum_gradients(learner, views, parts, dz))
    return finish_step(learner, replica, gradients, schedule, loss, top1, is_measured)


def _split_batch(batch: Batch, count: int) -> Batch:
    """Return the batch cut into k micro-batches: epoch (), index (k, m), images (k, m, H, W, C), and sizes if given."""
    epoch, *rows = batch
    pairs = rows[0].shape[0]
    if pairs is None or pairs % count:
        raise ValueError(
            f"A batch of {pairs} images cannot be split into {count} equal micro-batches. Use a micro-batch size that "
            f"divides {pairs}."
        )
    return epoch, *(tf.reshape(each, [count, pairs // count, *each.shape[1:]]) for each in rows)


def _join_rows(z: tf.Tensor) -> tf.Tensor:
    """Return the rows of all micro-batches (k, 2m, d) as rows of the batch (2N, d).

    The rows of a micro-batch are its first views, then its second views. The rows of the batch have the same order.
    """
    count, rows, dim = z.shape
    return tf.reshape(tf.transpose(tf.reshape(z, [count, 2, rows // 2, dim]), [1, 0, 2, 3]), [count * rows, dim])


def _split_rows(rows: tf.Tensor, count: int) -> tf.Tensor:
    """Undo `_join_rows`: return the rows of the batch (2N, d) split into micro-batches, (k, 2m, d)."""
    total, dim = rows.shape
    by_part = tf.transpose(tf.reshape(rows, [2, count, total // 2 // count, dim]), [1, 0, 2, 3])
    return tf.reshape(by_part, [count, total // count, dim])


def _project(learner: Learner, views: Views, parts: Batch, place: tf.Tensor) -> tf.Tensor:
    """Return z (2m, d) of micro-batch number `place`, with BatchNorm in training mode."""
    epoch, *rows = parts
    x = views(epoch, *(each[place] for each in rows))  # (2m, S, S, C)
    return learner.projection(learner.encoder(x, training=True), training=True)


def _project_each(learner: Learner, views: Views, parts: Batch, count: int) -> tf.Tensor:
    """Return z (k, 2m, d) of all micro-batches, without a tape. BatchNorm's moving statistics do not change."""
    dim, rows = learner.projection.output_shape[-1], 2 * parts[1].shape[1]
    dtype = tf.as_dtype(learner.projection.compute_dtype)
    found = tf.TensorArray(dtype, size=count, element_shape=(rows, dim))

    def body(place: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        with batch_norm.use_batch_statistics(batch_norm.get_batch_statistics(moves=False)):
            return place + 1, found.write(place, _project(learner, views, parts, place))

    # One micro-batch runs at a time. By default, TensorFlow would run ten of them at once, with ten times the memory.
    found = tf.while_loop(lambda place, _: place < count, body, (tf.constant(0), found), parallel_iterations=1)[1]
    return tf.ensure_shape(found.stack(), [count, rows, dim])


def _sum_gradients(learner: Learner, views: Views, parts: Batch, dz: tf.Tensor) -> list[tf.Tensor]:
    """Return the gradients of all micro-batches, added up in their order. `dz` is (k, 2m, d)."""
    count = dz.shape[0]
    variables = list_trainable_variables(learner.encoder, learner.projection)

    def body(place: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        statistics = batch_norm.get_batch_statistics(first=tf.equal(place, 0), share=1 / count)
        with batch_norm.use_batch_statistics(statistics), tf.GradientTape() as tape:
            z = _project(learner, views, parts, place)
        gradients = tape.gradient(z, variables, output_gradients=dz[place])
        refuse_missing(variables, gradients)
        return (place + 1, *(total + gradient for total, gradient in zip(sums, gradients)))

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    return list(
        tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *zeros), parallel_iterations=1)[1:]
    )
