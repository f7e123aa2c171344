"""Hands batches from Python to tf.data through a queue of TensorFlow. So the graph of tf.data calls no Python function.

A thread takes the batches from an iterator and puts them into the queue. It waits while the queue is full. The thread
ends with the last batch, or when the program has dropped the dataset and its iterator.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

Element = tuple[np.ndarray | int, ...]
_WAITING = 1  # elements in the queue, besides those that the producer prepares ahead
_ASSERTED, _END = "the batches end here: ", " [end]"  # the text before and after an exception of the iterator
_SECONDS = 10.0  # how long to wait for the thread when the dataset is dropped


def make_queue_dataset(elements: Iterator[Element], specs: Sequence[tf.TensorSpec], count: int) -> tf.data.Dataset:
    """Return a dataset of the elements of an iterator. It can be iterated once.

    Args:
        elements: yields `count` tuples. A thread starts to take them at once.
        specs: the shapes and types of a tuple.
        count: number of tuples.

    Returns:
        A dataset. An exception of the iterator becomes a `tf.errors.InvalidArgumentError` with its type and its text.
    """
    note = (tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.string))  # the place of an element, and what went wrong
    kinds = [*specs, *note]
    with tf.device("cpu:0"):
        queue = tf.queue.FIFOQueue(_WAITING, [kind.dtype for kind in kinds], [kind.shape for kind in kinds])
    thread = threading.Thread(target=_fill, args=(elements, specs, queue), daemon=True, name="batches")

    def take(place: tf.Tensor) -> tuple[tf.Tensor, ...]:
        *element, found, problem = queue.dequeue()
        once = "these batches were read before: call make_batches again"
        checks = [
            tf.debugging.Assert(tf.equal(problem, ""), [tf.strings.join([_ASSERTED, problem, _END])]),
            tf.debugging.Assert(tf.equal(found, place), [tf.constant(once)]),
        ]
        with tf.control_dependencies(checks):
            return tuple(tf.identity(each) for each in element)

    made = tf.data.Dataset.range(count).map(tf.autograph.experimental.do_not_convert(take))
    weakref.finalize(made, _stop, queue, thread)
    thread.start()
    return made


def recover_problem(error: tf.errors.OpError) -> str | None:
    """Return the type and the text of the exception that an iterator raised, or None if the error is another one."""
    found = re.search(re.escape(_ASSERTED) + "(.*)" + re.escape(_END), error.message or "")
    if found is None:
        return None
    return re.sub(r"\\([0-7]{3}|.)", _unescape, found.group(1))


def _unescape(found: re.Match[str]) -> str:
    """Return the character of an escape sequence of C, in which TensorFlow writes quotes and control characters."""
    text = found.group(1)
    return chr(int(text, 8)) if len(text) == 3 else {"n": "\n", "r": "\r", "t": "\t"}.get(text, text)


def _fill(elements: Iterator[Element], specs: Sequence[tf.TensorSpec], queue: tf.queue.QueueBase) -> None:
    """Put all elements into the queue. If the iterator raises an exception, put an element that carries its text."""
    place = 0
    try:
        with tf.device("cpu:0"):
            for element in elements:
                queue.enqueue((*element, place, ""))
                place += 1
            queue.close()
    except tf.errors.CancelledError:  # by `_stop`
        return
    except Exception as error:
        _report(f"{type(error).__name__}: {error}", place, specs, queue)


def _report(problem: str, place: int, specs: Sequence[tf.TensorSpec], queue: tf.queue.QueueBase) -> None:
    """Put an element into the queue that raises an error in the graph."""
    empty = [np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for spec in specs]
    try:
        with tf.device("cpu:0"):
            queue.enqueue((*empty, place, problem.encode("utf-8", "backslashreplace")))
            queue.close()
    except tf.errors.CancelledError:  # by `_stop`
        return


def _stop(queue: tf.queue.QueueBase, thread: threading.Thread) -> None:
    """End the thread."""
    with tf.init_scope():  # Python may drop a dataset at any time, also while a graph is traced
        queue.close(cancel_pending_enqueues=True)
    if thread is not threading.current_thread():
        thread.join(_SECONDS)
