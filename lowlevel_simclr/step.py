"""One training step, Algorithm 1 of SimCLR: views, h, z, loss, gradient, update; and several of them in one host call.

Not here: the configuration, files, what is done between two calls (`train.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr import compat
from lowlevel_simclr.distribute import ALONE, Replica
from lowlevel_simclr.optimizer import LarsUpdateAll, LossScale, Optimizer, refuse_missing

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
    nt_xent_rows_forward_and_top1: Callable[..., tuple[tf.Tensor, tf.Tensor, Any]]
    nt_xent_rows_backward: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    lars_update_all: LarsUpdateAll

    @classmethod
    def of(cls, name: str, module: Any) -> Implementation:
        """Everything from one module: `stock`, or `ops`."""
        return cls(name, **{field: getattr(module, field) for field in cls._fields[1:]})


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


def train_step(
    learner: Learner,
    views: Views,
    loss_and_top1: LossAndTop1,
    schedule: Schedule,
    batch: Batch,
    replica: Replica = ALONE,
) -> Metrics:
    """One step of Algorithm 1: two views of each image, h = f(x), z = g(h), NT-Xent, its gradient, one update.

    The same on each of several replicas: `batch` is then its own share, `loss_and_top1` sees the rows of all, and the
    gradients are added up before the update, because the loss already divides by the global 2N.
    """
    x = views(*batch)  # (2N, S, S, C)
    with replica.batch_norm_scope(), tf.GradientTape() as tape:
        z = learner.projection(learner.encoder(x, training=True), training=True)  # (2N, d)
        losses, top1 = loss_and_top1(z)  # (2N,), (2N,)
        loss = tf.reduce_mean(losses) / replica.count
        scaled = learner.loss_scale.scale_loss(loss)
    gradients = tape.gradient(scaled, trainable_variables(learner.encoder, learner.projection))
    return _finish(learner, replica, gradients, schedule, loss, top1)


def cached_step(
    learner: Learner,
    views: Views,
    loss_and_top1: LossAndTop1,
    schedule: Schedule,
    batch: Batch,
    micro_batches: int,
    replica: Replica = ALONE,
) -> Metrics:
    """`train_step` with the memory of one micro-batch: the gradient cache (Gao et al. 2021).

    (1) z of each micro-batch without a tape; (2) loss and dz of the whole batch; (3) each micro-batch again, its views
    made again, under a tape whose output gradients are its rows of dz, and the gradients summed. It is exact for the
    model whose BatchNorm sees one micro-batch at a time. The moving statistics move once, in (3): by the mean over the
    micro-batches (`compat.BatchStatistics`).

    Args:
        learner: as `train_step`.
        views: as `train_step`.
        loss_and_top1: as `train_step`.
        schedule: as `train_step`.
        batch: as `train_step`; micro-batch j is images j m .. (j + 1) m - 1 of it.
        micro_batches: k, how many.
        replica: as `train_step`.

    Raises:
        ValueError: the batch is no whole number of micro-batches.
    """
    parts = _parts(batch, micro_batches)
    with replica.batch_norm_scope():
        z = _together(_each_z(learner, views, parts, micro_batches))  # (2N, d)
    with tf.GradientTape() as tape:
        tape.watch(z)
        losses, top1 = loss_and_top1(z)  # (2N,), (2N,)
        loss = tf.reduce_mean(losses) / replica.count
        scaled = learner.loss_scale.scale_loss(loss)
    dz = _apart(tape.gradient(scaled, z), micro_batches)  # (k, 2m, d)
    with replica.batch_norm_scope():
        gradients = _summed_gradients(learner, views, parts, dz)
    return _finish(learner, replica, gradients, schedule, loss, top1)


def _finish(
    learner: Learner,
    replica: Replica,
    gradients: list[tf.Tensor],
    schedule: Schedule,
    loss: tf.Tensor,
    top1: tf.Tensor,
) -> Metrics:
    """Adds up over replicas the gradients, and the shares of loss and top-1; one update, the same everywhere."""
    refuse_missing(trainable_variables(learner.encoder, learner.projection), gradients)
    gradients = replica.totals(gradients, "gradients")
    replica.agree_on(learner.encoder.non_trainable_variables)
    learning_rate = schedule(learner.step)
    _update(learner, gradients, learning_rate)
    hits = tf.reduce_mean(tf.cast(top1, loss.dtype)) / replica.count
    loss, hits = replica.totals([loss, hits], "metrics")
    return Metrics(loss, tf.cast(hits, tf.float32), learning_rate)


def _parts(batch: Batch, count: int) -> Batch:
    """The batch with its images in micro-batches: epoch (), index (k, m), images (k, m, H, W, C)."""
    epoch, index, images = batch
    pairs = index.shape[0]
    if pairs is None or pairs % count:
        raise ValueError(f"a batch of {pairs} images has no {count} equal micro-batches: give a size that divides it")
    return epoch, tf.reshape(index, [count, -1]), tf.reshape(images, [count, pairs // count, *images.shape[1:]])


def _together(z: tf.Tensor) -> tf.Tensor:
    """Rows of micro-batches, each its first and then its second views, as rows of the batch: (k, 2m, d) -> (2N, d)."""
    count, rows, dim = z.shape
    return tf.reshape(tf.transpose(tf.reshape(z, [count, 2, rows // 2, dim]), [1, 0, 2, 3]), [count * rows, dim])


def _apart(rows: tf.Tensor, count: int) -> tf.Tensor:
    """What `_together` put together: (2N, d) -> (k, 2m, d)."""
    total, dim = rows.shape
    by_part = tf.transpose(tf.reshape(rows, [2, count, total // 2 // count, dim]), [1, 0, 2, 3])
    return tf.reshape(by_part, [count, total // count, dim])


def _z(learner: Learner, views: Views, parts: Batch, place: tf.Tensor) -> tf.Tensor:
    """z (2m, d) of one micro-batch, BatchNorm in training mode."""
    epoch, index, images = parts
    x = views(epoch, index[place], images[place])  # (2m, S, S, C)
    return learner.projection(learner.encoder(x, training=True), training=True)


def _each_z(learner: Learner, views: Views, parts: Batch, count: int) -> tf.Tensor:
    """z of every micro-batch, (k, 2m, d), without a tape and with the moving statistics left alone."""
    dim, rows = learner.projection.output_shape[-1], 2 * parts[1].shape[1]
    dtype = tf.as_dtype(learner.projection.compute_dtype)
    found = tf.TensorArray(dtype, size=count, element_shape=(rows, dim))

    def body(place: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        with compat.batch_statistics(compat.current_statistics(moves=False)):
            return place + 1, found.write(place, _z(learner, views, parts, place))

    # One micro-batch at a time: loops run ten iterations at once if they may, with the memory of ten.
    found = tf.while_loop(lambda place, _: place < count, body, (tf.constant(0), found), parallel_iterations=1)[1]
    return tf.ensure_shape(found.stack(), [count, rows, dim])


def _summed_gradients(learner: Learner, views: Views, parts: Batch, dz: tf.Tensor) -> list[tf.Tensor]:
    """The gradients of all micro-batches, whose dz is (k, 2m, d), added up in their order."""
    count = dz.shape[0]
    variables = trainable_variables(learner.encoder, learner.projection)

    def body(place: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        statistics = compat.current_statistics(first=tf.equal(place, 0), share=1 / count)
        with compat.batch_statistics(statistics), tf.GradientTape() as tape:
            z = _z(learner, views, parts, place)
        gradients = tape.gradient(z, variables, output_gradients=dz[place])
        refuse_missing(variables, gradients)
        return (place + 1, *(total + gradient for total, gradient in zip(sums, gradients)))

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    return list(
        tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *zeros), parallel_iterations=1)[1:]
    )


def trainable_variables(encoder: tf.keras.Model, projection: tf.keras.Model) -> list[tf.Variable]:
    """The variables of f and g that the loss moves, in the order the optimizer knows them by."""
    return [*encoder.trainable_variables, *projection.trainable_variables]


def _update(learner: Learner, gradients: list[tf.Tensor], learning_rate: tf.Tensor) -> None:
    """Moves the weights, or leaves them where a float16 gradient ran over, and counts the step.

    `gradients` are those of the scaled loss.
    """
    gradients, finite = learner.loss_scale.unscale(gradients)
    if learner.loss_scale.dynamic:
        tf.cond(finite, lambda: learner.optimizer.apply(gradients, learning_rate), lambda: None)
    else:
        learner.optimizer.apply(gradients, learning_rate)
    learner.step.assign_add(1)


StepsFunction = Callable[[Iterator[Batch], tf.Tensor], Metrics]


def compile_steps(
    one_step: Callable[[Batch], Metrics],
    jit_compile: bool,
    fetch: Callable[..., Batch] | None = None,
    inline: bool = False,
) -> StepsFunction:
    """`steps(iterator, count)`: `count` steps in one host call, without Python between them.

    Args:
        one_step: a batch -> metrics, as `train_step`.
        jit_compile: compile the step with XLA; the loop and the input stay outside.
        fetch: what makes a batch of what the iterator gives, where that is none yet. Outside the step, so that the
            step is one program, and its numbers the same bits, wherever the images lie. What the iterator gives for all
            steps is read first then: it is small, and a copy to a GPU between two steps waits for the first to end and
            holds up the second.
        inline: make the step's operations the loop's own. Else the loop calls the step as a function, and TensorFlow
            does not keep a frame and an iteration for each of its operations: measured by `bench.bench_step_loop`.
            With `jit_compile` the step is a program, and there is no choice.

    Returns:
        A function whose metrics are (count,) each; `count` is a scalar int32 tensor, so that it never retraces.
    """
    # Nothing of a step needs autograph, whose rewriting of all that is called takes a third of the tracing.
    one_step = tf.autograph.experimental.do_not_convert(one_step)
    if jit_compile:
        called = tf.function(one_step, jit_compile=True)
    else:
        called = one_step if inline else tf.function(one_step, experimental_attributes={"_noinline": True})

    @tf.function
    def steps(iterator: Iterator[Batch], count: tf.Tensor) -> Metrics:
        rows = [tf.TensorArray(tf.float32, size=count, element_shape=()) for _ in Metrics._fields]
        ahead = _read_ahead(iterator, count) if fetch else ()
        for place in tf.range(count):
            metrics = called(fetch(*(each[place] for each in ahead)) if fetch else next(iterator))
            rows = [array.write(place, value) for array, value in zip(rows, metrics)]
        return Metrics(*(array.stack() for array in rows))

    return steps


def _read_ahead(iterator: Any, count: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The next `count` elements, stacked in host memory, then copied at once to where the step runs."""
    with tf.device("/CPU:0"):
        specs = iterator.element_spec
        rows = tuple(tf.TensorArray(spec.dtype, size=count, element_shape=spec.shape) for spec in specs)

        def body(place: tf.Tensor, *rows: tf.TensorArray) -> tuple[Any, ...]:
            return place + 1, *(array.write(place, each) for array, each in zip(rows, next(iterator)))

        found = tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *rows))[1:]
        stacked = [array.stack() for array in found]
    return tuple(tf.identity(each) for each in stacked)


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
