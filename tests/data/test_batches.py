"""Tests which images each training step gets. The seed alone must decide, also if training was interrupted.

It must not matter whether the images are in main memory, in the GPU's memory or on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.contract import philox
from lowlevel_simclr.data import batches, dataset


def numbered(count: int) -> np.ndarray:
    """Return images (count, 2, 3, 1). All pixels of image n have the value n."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 1)).copy()


Row = tuple[int, np.ndarray, np.ndarray]  # epoch, index (N,), images (N, 2, 3, 1)


def stream(count: int, batch_size: int, first: int, last: int, seed: int = 5) -> list[Row]:
    rows = batches.make_batches(numbered(count), batch_size, seed, first, last)
    return [(int(epoch), index.numpy(), images.numpy()) for epoch, index, images in rows]


def test_batches_follow_the_reference_order() -> None:
    count, batch_size, seed = 23, 4, 5  # an epoch has 5 whole batches, and 3 images are left over
    rows = stream(count, batch_size, 0, 12, seed)
    for step, (epoch, index, images) in enumerate(rows):
        assert epoch == step // 5
        place = slice(step % 5 * batch_size, (step % 5 + 1) * batch_size)
        np.testing.assert_array_equal(index, philox.draw_epoch_order(seed, epoch, count)[place])
        np.testing.assert_array_equal(images, numbered(count)[index])
    assert len(rows) == 12


def test_an_epoch_shows_no_image_twice_and_epochs_differ() -> None:
    rows = stream(40, 8, 0, 10)
    epochs = [np.concatenate([index for epoch, index, _ in rows if epoch == which]) for which in (0, 1)]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), np.arange(40))
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("first", [0, 1, 5, 7, 10, 14])
def test_a_resumed_stream_is_the_tail_of_the_whole(first: int) -> None:
    whole, resumed = stream(23, 4, 0, 14), stream(23, 4, first, 14)
    assert len(resumed) == 14 - first
    for before, after in zip(whole[first:], resumed):
        for one, other in zip(before, after):
            np.testing.assert_array_equal(one, other)


def test_a_share_is_its_own_places_of_every_batch() -> None:
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    own = np.array([3, 1])
    whole, share = batches.make_batches(pixels, 4, 7, 1, 5), batches.make_batches(pixels, 4, 7, 1, 5, own)
    pairs = list(zip(whole.as_numpy_iterator(), share.as_numpy_iterator()))
    assert len(pairs) == 4
    for (epoch, index, images), (own_epoch, own_index, own_images) in pairs:
        assert own_epoch == epoch
        assert np.array_equal(own_index, index[own]) and np.array_equal(own_images, images[own])


def test_the_seed_changes_the_order() -> None:
    assert (stream(40, 40, 0, 1, seed=1)[0][1] != stream(40, 40, 0, 1, seed=2)[0][1]).any()


def test_shapes_and_types_are_static() -> None:
    rows = batches.make_batches(numbered(23), 4, 0, 0, 1)
    epoch, index, images = rows.element_spec
    assert (epoch.shape, epoch.dtype) == ((), tf.int64)
    assert (index.shape, index.dtype) == ((4,), tf.int64)
    assert (images.shape, images.dtype) == ((4, 2, 3, 1), tf.uint8)


def test_images_are_captured_and_not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test that the graph of the input pipeline does not contain the images.

    If `tf.gather` got a NumPy array, TensorFlow would store it in the graph as a constant. A graph can hold at most
    2 GiB, so this would fail for large data sets.
    """
    gather, gathered_from = tf.gather, []

    def spy(params: Any, indices: Any) -> tf.Tensor:
        gathered_from.append(params)
        return gather(params, indices)

    monkeypatch.setattr(tf, "gather", spy)
    batches.make_batches(numbered(23), 4, 0, 0, 1)
    assert [isinstance(params, tf.Tensor) for params in gathered_from] == [True]


def test_images_on_the_device_make_the_same_batches() -> None:
    images = numbered(23)
    rows = batches.make_batches(images, 4, 5, 3, 12, with_images=False)
    assert [(spec.shape, spec.dtype) for spec in rows.element_spec] == [((), tf.int64), ((4,), tf.int64)]
    fetch = batches.keep_on_device(images, on_gpu=False)
    found, expected = [fetch(*row) for row in rows], stream(23, 4, 3, 12)
    assert len(found) == len(expected) == 9
    for made, gathered in zip(found, expected):
        for one, other in zip(made, gathered):
            np.testing.assert_array_equal(one, other)
    assert [made[2].dtype for made in found] == [tf.uint8] * 9


def test_images_on_the_device_are_captured_and_not_embedded() -> None:
    fetch = batches.keep_on_device(numbered(23), on_gpu=False)
    traced = fetch.get_concrete_function(tf.TensorSpec((), tf.int64), tf.TensorSpec((4,), tf.int64))
    assert [tuple(tensor.shape) for tensor in traced.captured_inputs] == [(23, 2, 3, 1)]


def test_a_device_without_the_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(images: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "no room")

    monkeypatch.setattr(tf, "convert_to_tensor", full)
    with pytest.raises(dataset.DataError, match="has no room for 138 bytes of images. Use --data-on host"):
        batches.keep_on_device(numbered(23), on_gpu=False)


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_larger_than_the_data_is_refused(batch_size: int) -> None:
    with pytest.raises(dataset.DataError, match=rf"batch size \({batch_size}\) .* \(23 images\).* from 2 to 23"):
        batches.make_batches(numbered(23), batch_size, 0, 0, 1)


@pytest.mark.parametrize("steps", [(3, 2), (-1, 2)])
def test_steps_that_run_backwards_are_refused(steps: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"first_step is {steps[0]} and last_step is {steps[1]}"):
        batches.make_batches(numbered(23), 4, 0, *steps)


@pytest.mark.parametrize(("pairs", "size", "waiting"), [(256, 32, 4), (4096, 32, 1), (256, 224, 1), (2048, 32, 2)])
def test_few_batches_wait_where_they_are_large(pairs: int, size: int, waiting: int) -> None:
    assert batches.count_prefetched(pairs * size * size * 3) == waiting
