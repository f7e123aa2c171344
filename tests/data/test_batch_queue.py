"""Tests `make_queue_dataset`, which makes a tf.data dataset from a Python iterator, with a queue between the two."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data.batch_queue import make_queue_dataset, recover_problem

SPECS = (tf.TensorSpec((), tf.int64), tf.TensorSpec((3,), tf.uint8))


def count_up(last: int, fails: Exception | None = None, taken: list[int] | None = None) -> Iterator[Any]:
    for number in range(last):
        if taken is not None:
            taken.append(number)
        yield number, np.full(3, number, np.uint8)
    if fails:
        raise fails


def list_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_elements_come_in_order_without_a_python_function_in_the_graph() -> None:
    made = make_queue_dataset(count_up(9), SPECS, 9)
    assert made.element_spec == SPECS
    graph = str(made.map(lambda *element: element)._functions()) + str(
        [function.graph.as_graph_def() for each in (made,) for function in [each._map_func.function]]
    )
    assert "PyFunc" not in graph and "QueueDequeue" in graph
    assert [(int(number), pixels.numpy().tolist()) for number, pixels in made] == [(n, [n] * 3) for n in range(9)]


def test_a_compiled_loop_reads_them() -> None:
    iterator = iter(make_queue_dataset(count_up(6), SPECS, 6).prefetch(1))

    @tf.function
    def add(iterator: Any, count: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0, tf.int64)
        for _ in tf.range(count):
            total += next(iterator)[0]
        return total

    assert int(add(iterator, tf.constant(4))) == 6 and int(add(iterator, tf.constant(2))) == 9


@pytest.mark.parametrize("text", ["no file 'caf\u00e9/[1].png' \u732b", "two\nlines \\\\ here", ""])
def test_an_exception_comes_after_the_elements_before_it(text: str) -> None:
    seen = []
    with pytest.raises(tf.errors.InvalidArgumentError) as told:
        for number, _ in make_queue_dataset(count_up(2, ValueError(text)), SPECS, 5):
            seen.append(int(number))
    assert seen == [0, 1] and recover_problem(told.value) == f"ValueError: {text}"
    assert recover_problem(tf.errors.UnknownError(None, None, "another")) is None


def test_the_producer_waits_and_ends_with_the_dataset() -> None:
    before, taken = set(list_threads()), []
    made = make_queue_dataset(count_up(1000, taken=taken), SPECS, 1000)
    iterator = iter(made)
    next(iterator)
    time.sleep(0.2)
    assert len(taken) < 10  # the thread that fills the queue waits
    (thread,) = set(list_threads()) - before
    del made
    gc.collect()
    assert int(next(iterator)[0]) == 1  # the iterator keeps the queue alive
    del iterator
    gc.collect()
    assert not thread.is_alive()


def test_a_dataset_may_go_while_a_graph_is_traced() -> None:
    """Test a dataset that is deleted while TensorFlow traces a graph.

    Deleting it closes the queue with an op. This op must not become a part of the graph.
    """
    held = [make_queue_dataset(count_up(1000), SPECS, 1000)]

    @tf.function
    def drop() -> tf.Tensor:
        held.clear()
        gc.collect()
        return tf.constant(1)

    assert int(drop()) == 1
    assert not [
        operation.name for operation in drop.get_concrete_function().graph.get_operations() if "Close" in operation.name
    ]


def test_a_second_iteration_is_an_error_and_no_other_order() -> None:
    made = make_queue_dataset(count_up(3), SPECS, 3)
    assert len(list(made)) == 3
    with pytest.raises(tf.errors.OpError, match="closed"):
        list(made)
    made = make_queue_dataset(count_up(3), SPECS, 3)
    next(iter(made))
    with pytest.raises(tf.errors.InvalidArgumentError, match="call make_batches again"):
        list(made)
