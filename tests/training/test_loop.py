"""Tests the loop over training steps that runs inside one call of TensorFlow from Python (a host call)."""

from __future__ import annotations

import pytest
import tensorflow as tf

from lowlevel_simclr.training import loop, step


def counted(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return epoch, index, tf.cast(index, tf.float32)


def one_step(batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> step.Metrics:
    epoch, index, images = batch
    return step.Metrics(tf.reduce_sum(images), tf.cast(index[0], tf.float32), tf.cast(epoch, tf.float32))


@pytest.mark.parametrize("fetched", [True, False])
@pytest.mark.parametrize(("jit", "inline"), [(True, False), (False, False), (False, True)])
def test_a_host_call_takes_its_batches_in_order_and_none_of_the_next(fetched: bool, jit: bool, inline: bool) -> None:
    batches = tf.data.Dataset.range(7).map(lambda place: (place // 4, tf.stack([place, place + 10])))
    steps = loop.compile_steps(one_step, jit, counted if fetched else None, inline)
    iterator = iter(batches if fetched else batches.map(counted))
    for first, count in ((0, 3), (3, 1), (4, 2)):
        found = steps(iterator, tf.constant(count))
        places = range(first, first + count)
        assert found.loss.numpy().tolist() == [2 * place + 10 for place in places]
        assert found.top1.numpy().tolist() == list(places)
        assert found.learning_rate.numpy().tolist() == [place // 4 for place in places]
    assert int(next(iterator)[1][0]) == 6


def test_a_host_call_beyond_the_last_batch_says_that_the_input_ended() -> None:
    batches = tf.data.Dataset.range(2).map(lambda place: (place, tf.stack([place, place])))
    steps = loop.compile_steps(one_step, False, counted)
    with pytest.raises(tf.errors.OutOfRangeError):
        steps(iter(batches), tf.constant(3))


@pytest.mark.parametrize("inline", [False, True])
def test_the_loop_calls_a_step_that_keeps_its_operations_to_itself(inline: bool) -> None:
    batches = iter(tf.data.Dataset.range(2).map(lambda place: (place, tf.stack([place, place]))))
    steps = loop.compile_steps(one_step, False, counted, inline)
    graph = steps.get_concrete_function(batches, tf.constant(1)).graph.as_graph_def()
    apart = [each.signature.name for each in graph.library.function if each.attr["_noinline"].b]
    assert [name.startswith("__inference_one_step") for name in apart] == ([] if inline else [True])
