"""The order in which training sees the images: batches of (epoch, index, images uint8).

Not here: views, floats, how a data set is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.contract import philox
from lowlevel_simclr.data import image_folder
from lowlevel_simclr.data.dataset import DataError

PREFETCHED = 4  # batches waiting in memory: enough for an uneven step
PREFETCHED_BYTES = 2**24  # of arrays; a batch of 4096 small images is as much, and its step takes the longer


# Batches: the stream that training reads


def count_steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in one pass over `count` images; what is left over is in no batch of that epoch.

    Raises:
        DataError: there is not one whole batch.
    """
    if not 1 <= batch_size <= count:
        raise DataError(
            f"the batch size is {batch_size} and there are {count} images to train on: "
            f"give a batch size from 1 to {count}"
        )
    return count // batch_size


def make_batches(
    images: Any,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    own: np.ndarray | None = None,
    with_images: bool = True,
) -> tf.data.Dataset:
    """The batches of the steps first_step .. last_step - 1, counted from 0 over the whole run.

    Epoch e visits the images in the order `epoch_order(seed, e, n)`, in whole batches. A batch depends on the
    seed and its step alone, so a run that resumes at any step reads on exactly where it stopped; the batches
    before `first_step` cost next to nothing, because no image of theirs is gathered.

    Args:
        images: (n, H, W, C) uint8: an array, kept in host memory as one tensor, or files, decoded as they are wanted.
        batch_size: N, images a batch.
        seed: the run's.
        first_step: the first step that is wanted.
        last_step: the first step that is not.
        own: (n,) places in a batch, the share of one of several replicas; no other image is gathered. None for all.
        with_images: False for the index alone, which `resident` takes; of an array only.

    Returns:
        A dataset of epoch () int64, index (N,) int64 (rows of `images`), images (N, H, W, C) uint8; n instead of N
        where there is a share.

    Raises:
        DataError: there are fewer images than a batch.
        ValueError: the steps are negative or run backwards, or files are wanted without their images.
    """
    if not 0 <= first_step <= last_step:
        raise ValueError(f"steps {first_step} to {last_step} are none: give 0 <= first_step <= last_step")
    per_epoch = count_steps_per_epoch(len(images), batch_size)
    if isinstance(images, image_folder.FolderImages):
        if not with_images:
            raise ValueError("images that are decoded as they are needed lie on no device: give with_images=True")
        return _stream_batches(images, batch_size, seed, range(first_step, last_step), own)
    first_epoch = first_step // per_epoch
    epochs = tf.data.Dataset.range(first_epoch, -(-last_step // per_epoch))
    wanted = epochs.flat_map(_disable_autograph(lambda epoch: _make_indices(epoch, len(images), batch_size, seed, own)))
    wanted = wanted.skip(first_step - first_epoch * per_epoch).take(last_step - first_step)
    if with_images:
        wanted = wanted.map(_make_gather(images, "cpu:0"), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    rows = batch_size if own is None else len(own)
    return wanted.prefetch(count_prefetched(rows * images[0].nbytes if with_images else 0))


def _disable_autograph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without autograph: nothing here has Python's loops, and rewriting it is most of the pipeline's making."""
    return tf.autograph.experimental.do_not_convert(function)


def _make_indices(epoch: tf.Tensor, count: int, batch_size: int, seed: int, own: np.ndarray | None) -> tf.data.Dataset:
    """The whole batches of one epoch: epoch () and index (N,), or the places `own` of it."""
    per_epoch = count_steps_per_epoch(count, batch_size)
    order = stock.draw_epoch_order(seed, epoch, count)[: per_epoch * batch_size]
    order = tf.reshape(order, (per_epoch, batch_size))
    rows = tf.data.Dataset.from_tensor_slices(order if own is None else tf.gather(order, own, axis=1))
    return rows.map(_disable_autograph(lambda index: (epoch, index)))


Gather = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]  # epoch, index -> with the images


def _make_gather(images: np.ndarray, device: str) -> Gather:
    """Rows by number out of one tensor on a device."""
    with tf.device(device):  # captured, not embedded: a graph holds at most 2 GiB of constants
        held = tf.convert_to_tensor(images)  # (n, H, W, C)
    return _disable_autograph(lambda epoch, index: (epoch, index, tf.gather(held, index)))  # (), (N,), (N, H, W, C)


def count_prefetched(batch_bytes: int) -> int:
    """How many batches of so many bytes wait in memory: PREFETCHED, of large ones fewer, one at least."""
    return max(1, min(PREFETCHED, PREFETCHED_BYTES // max(batch_bytes, 1)))


def keep_on_device(images: np.ndarray, on_gpu: bool) -> Gather:
    """Puts images on a device once -> a function that makes batches there of what `batches` gives without images.

    Args:
        images: (n, H, W, C) uint8.
        on_gpu: on the first GPU, else on the CPU. XLA compiles the gather on a GPU, whatever becomes of the step:
            an op that has no kernel of its own there would fetch all images back to the host, at every step.

    Returns:
        epoch (), index (N,) int64 -> the same, and images (N, H, W, C) uint8.

    Raises:
        DataError: the device has not the memory.
    """
    try:
        gather = _make_gather(images, "gpu:0" if on_gpu else "cpu:0")
    except tf.errors.ResourceExhaustedError as error:
        raise DataError(
            f"--data-on is device and its memory has no room for {images.nbytes} bytes of images: give host"
        ) from error
    return tf.function(gather, jit_compile=on_gpu)


def _stream_batches(
    images: image_folder.FolderImages, batch_size: int, seed: int, steps: range, own: np.ndarray | None
) -> tf.data.Dataset:
    """`batches` of files: threads decode some batches ahead."""
    share = np.arange(batch_size) if own is None else own

    def rows() -> Iterator[tuple[int, np.ndarray]]:
        return ((epoch, index[share]) for epoch, index in _iterate_rows(len(images), batch_size, seed, steps))

    def produce() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        read = images.ahead((index for _, index in rows()), PREFETCHED)
        return ((epoch, index, batch) for (epoch, index), batch in zip(rows(), read))

    kinds = (
        tf.TensorSpec((), tf.int64),
        tf.TensorSpec((len(share),), tf.int64),
        tf.TensorSpec((len(share), *images.shape[1:]), tf.uint8),
    )
    return tf.data.Dataset.from_generator(produce, output_signature=kinds).prefetch(1)


def recover_data_error(error: tf.errors.OpError) -> DataError | None:
    """The DataError of `batches`, such as a file that has gone, out of what TensorFlow makes of it; None: another."""
    found = re.search(r"DataError: (.+)", error.message or "")
    return DataError(found.group(1)) if found else None


def _iterate_rows(count: int, batch_size: int, seed: int, steps: range) -> Iterator[tuple[int, np.ndarray]]:
    """(epoch, index (N,)) of each step."""
    per_epoch, order, drawn = count // batch_size, np.empty(0, np.int64), -1
    for step in steps:
        epoch, place = divmod(step, per_epoch)
        if epoch != drawn:
            order, drawn = philox.draw_epoch_order(seed, epoch, count), epoch
        yield epoch, order[place * batch_size : (place + 1) * batch_size]
