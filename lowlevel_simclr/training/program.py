"""Compiles several training steps, with the loop over the steps, into one XLA program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from lowlevel_simclr.training.step import Batch, Metrics

StepsFunction = Callable[[Iterator[Batch], tf.Tensor], Metrics]


def compile_program(
    one_step: Callable[[Batch], Metrics], most: int, fetch: Callable[..., Batch] | None = None
) -> StepsFunction:
    """Return `steps(iterator, count)`, which makes `count` training steps. An XLA program makes `most` steps at a time.

    The loop over the steps is part of the program. XLA updates the weights, the optimizer's variables and the loss
    scale in place. The device does not wait for the host between two steps. For this, the number of iterations must be
    a constant of the program. Otherwise XLA would ask the host after each iteration whether to continue.

    Only two programs are compiled: one with `most` steps, and one with a single step, for the steps that are left over.

    Args:
        one_step: a function that takes a batch and returns metrics, such as `train_step` with its other arguments
            filled in.
        most: the number of steps in one program, at least 1.
        fetch: optional function that turns an iterator element into a batch. The program calls it for each step.

    Returns:
        A function whose metrics are (count,) each.
    """
    read, run = tf.function(read_ahead, autograph=False), compile_loop(one_step, fetch)

    def steps(iterator: Iterator[Batch], count: tf.Tensor) -> Metrics:
        parts = [run(read(iterator, tf.constant(size))) for size in split_count(int(count), most)]
        return parts[0] if len(parts) == 1 else Metrics(*(tf.concat(each, 0) for each in zip(*parts)))

    return steps


def compile_loop(
    one_step: Callable[[Batch], Metrics], fetch: Callable[..., Batch] | None = None
) -> Callable[[tuple[tf.Tensor, ...]], Metrics]:
    """Return the program of `compile_program`. Its argument holds k elements, stacked (k, ...), and it makes k steps.

    Args:
        one_step: see `compile_program`.
        fetch: see `compile_program`.
    """

    @tf.function(jit_compile=True, autograph=False)
    def run(elements: tuple[tf.Tensor, ...]) -> Metrics:
        count = elements[0].shape[0]

        def body(place: tf.Tensor, *rows: tf.TensorArray) -> tuple[tf.Tensor | tf.TensorArray, ...]:
            element = tuple(each[place] for each in elements)
            metrics = one_step(fetch(*element) if fetch else element)
            return place + 1, *(array.write(place, value) for array, value in zip(rows, metrics))

        rows = tuple(tf.TensorArray(tf.float32, size=count, element_shape=()) for _ in Metrics._fields)
        found = tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *rows))
        return Metrics(*(array.stack() for array in found[1:]))

    return run


def split_count(count: int, most: int) -> list[int]:
    """Return how many steps each call of a program makes, so that all calls together make `count` steps.

    Args:
        count: the number of steps, at least 1.
        most: the number of steps of the large program. The small program makes a single step.

    Example:
        >>> split_count(11, most=4)
        [4, 4, 1, 1, 1]
    """
    return [most] * (count // most) + [1] * (count % most)


def read_ahead(iterator: Any, count: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Read the next `count` elements, stack them in host memory, and copy the whole stack to the step's device."""
    with tf.device("/CPU:0"):
        specs = iterator.element_spec
        rows = tuple(tf.TensorArray(spec.dtype, size=count, element_shape=spec.shape) for spec in specs)

        def body(place: tf.Tensor, *rows: tf.TensorArray) -> tuple[Any, ...]:
            return place + 1, *(array.write(place, each) for array, each in zip(rows, next(iterator)))

        found = tf.while_loop(lambda place, *_: place < count, body, (tf.constant(0), *rows))[1:]
        stacked = [array.stack() for array in found]
    return tuple(tf.identity(each) for each in stacked)
