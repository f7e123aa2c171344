"""Passes batches from Python to tf.data through a TensorFlow queue. So the graph of tf.data calls no Python function.

A thread takes the batches from an iterator and puts them into the queue. It waits while the queue is full. The thread
ends after the last batch, or when the dataset is no longer used and Python deletes it.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

Element = tuple[np.ndarray | int, ...]
_WAITING = 1  # the largest number of elements in the queue; the iterator may prepare more elements ahead
_ASSERTED, _END = "the batches end here: ", " [end]"  # the text around the message of an exception of the iterator
_SECONDS = 10.0  # how long to wait for the end of the thread when the dataset is deleted


def make_queue_dataset(elements: Iterator[Element], specs: Sequence[tf.TensorSpec], count: int) -> tf.data.Dataset:
    """Return a dataset of the elements of an iterator. The dataset can be iterated only once.

    Args:
        elements: yields `count` tuples. A thread starts to take them at once.
        specs: the shape and type of each member of a tuple.
        count: number of tuples.

    Returns:
        A dataset. If the iterator raises an exception, the dataset raises a `tf.errors.InvalidArgumentError` that
        contains the type and the message of the exception.
    """
    # The number of an element, and the message of an exception. Without an exception, the message is empty.
    note = (tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.string))
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
    """Return type and message of the exception of the iterator that caused an error. None: no exception caused it."""
    found = re.search(re.escape(_ASSERTED) + "(.*)" + re.escape(_END), error.message or "")
    if found is None:
        return None
    return re.sub(r"\\([0-7]{3}|.)", _unescape, found.group(1))


def _unescape(found: re.Match[str]) -> str:
    """Return the character of an escape sequence of C. TensorFlow escapes quotes and control characters in messages."""
    text = found.group(1)
    return chr(int(text, 8)) if len(text) == 3 else {"n": "\n", "r": "\r", "t": "\t"}.get(text, text)


def _fill(elements: Iterator[Element], specs: Sequence[tf.TensorSpec], queue: tf.queue.QueueBase) -> None:
    """Put all elements into the queue. If the iterator raises an exception, report it with `_report`."""
    place = 0
    try:
        with tf.device("cpu:0"):
            for element in elements:
                queue.enqueue((*element, place, ""))
                place += 1
            queue.close()
    except tf.errors.CancelledError:  # `_stop` has closed the queue
        return
    except Exception as error:
        _report(f"{type(error).__name__}: {error}", place, specs, queue)


def _report(problem: str, place: int, specs: Sequence[tf.TensorSpec], queue: tf.queue.QueueBase) -> None:
    """Put an element with the message of an exception into the queue. This element makes the graph raise an error."""
    empty = [np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for spec in specs]
    try:
        with tf.device("cpu:0"):
            queue.enqueue((*empty, place, problem.encode("utf-8", "backslashreplace")))
            queue.close()
    except tf.errors.CancelledError:  # `_stop` has closed the queue
        return


def _stop(queue: tf.queue.QueueBase, thread: threading.Thread) -> None:
    """Close the queue, which makes the thread end, and wait for the thread."""
    with tf.init_scope():  # Python may delete a dataset at any time, even while a graph is traced
        queue.close(cancel_pending_enqueues=True)
    if thread is not threading.current_thread():
        thread.join(_SECONDS)
