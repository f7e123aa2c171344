"""Makes the batches of training, with the images in a random order.

A batch has the epoch, the positions of its images in the data set (index), and the images. If the images differ in
size, it also has their sizes. `views.py` turns a batch into views (random crops of the images). `catalog.py` reads the
data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config.choices import SMALLEST_BATCH
from lowlevel_simclr.contract import philox
from lowlevel_simclr.data import image_folder
from lowlevel_simclr.data.batch_queue import make_queue_dataset, recover_problem
from lowlevel_simclr.data.dataset import DataError, explain_too_few
from lowlevel_simclr.data.framed_images import FramedImages, get_canvases
from lowlevel_simclr.data.packed_images import PackedImages
from lowlevel_simclr.data.streamed import StreamedImages

PREFETCHED = 4  # batches that are made ahead and wait in memory; enough even if steps take unequal times
# The images of the waiting batches take at most this many bytes, but at least one batch waits. A batch of 4096 small
# images is about as large as this limit. A training step on such a batch is so long that one waiting batch is enough.
PREFETCHED_BYTES = 2**24


# Making batches


def count_steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of whole batches in one pass over the images.

    The remaining images, which do not fill a batch, are not used in that epoch.

    Args:
        count: number of images.
        batch_size: N, images per batch.

    Raises:
        DataError: if the batch size is below SMALLEST_BATCH or above the number of images.

    Examples:
        >>> count_steps_per_epoch(1000, 128)
        7
    """
    if count < SMALLEST_BATCH:
        raise DataError(explain_too_few(count))
    if not SMALLEST_BATCH <= batch_size <= count:
        raise DataError(
            f"The batch size ({batch_size}) does not fit the training set ({count} images). "
            f"Use a batch size from {SMALLEST_BATCH} to {count}."
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
    """Return the batches of the steps `first_step` to `last_step - 1`, counted from 0 over the whole run.

    Epoch e visits the images in the order `philox.draw_epoch_order(seed, e, n)`, in whole batches. A batch depends only
    on the seed and on its step. A run that resumes at any step therefore continues exactly where it stopped. The
    batches before `first_step` cost almost nothing, because their images are never gathered.

    Args:
        images: (n, H, W, C) uint8. An array is kept in host memory as one tensor. If a batch needs images, those of
            `PackedImages` (decoded pixels in a file) are copied, and those of `FolderImages` (image files) are decoded.
        batch_size: N, images per batch over all replicas (devices that share each batch).
        seed: seed of the run, in [0, 2^64).
        first_step: the first step to return, at least 0.
        last_step: the step after the last one, at least `first_step`.
        own: (m,) positions in a batch that belong to one of several replicas. Only these images are gathered. None
            means the whole batch.
        with_images: whether a batch holds its images. False leaves them out, because the function that `keep_on_device`
            returns adds them later. `StreamedImages` (images in files) need True.

    Returns:
        A dataset of epoch () int64, index (N,) int64 and images (N, H, W, C) uint8. The index holds row numbers of the
        argument `images`. With `own`, a batch has m rows instead of N. For `FramedImages` (images of different sizes),
        the images are the padded arrays (canvases), and the sizes (N, 2) int32 follow. A dataset of `FolderImages` can
        be iterated only once, because threads start to decode its batches immediately.

    Raises:
        DataError: if there are fewer images than a batch holds.
        ValueError: if `first_step` is negative or above `last_step`, or if `with_images` is False for `StreamedImages`.
    """
    if not 0 <= first_step <= last_step:
        raise ValueError(
            f"first_step is {first_step} and last_step is {last_step}. They must satisfy 0 <= first_step <= last_step."
        )
    per_epoch = count_steps_per_epoch(len(images), batch_size)
    if isinstance(images, FramedImages):
        made = make_batches(images.canvases, batch_size, seed, first_step, last_step, own, with_images)
        return made.map(_make_size_gather(images.sizes, "cpu:0")) if with_images else made
    if isinstance(images, StreamedImages) and not with_images:
        raise ValueError("Images that are streamed from files cannot be kept on a device. Use with_images=True.")
    if isinstance(images, image_folder.FolderImages):
        return _stream_batches(images, batch_size, seed, range(first_step, last_step), own)
    first_epoch = first_step // per_epoch
    epochs = tf.data.Dataset.range(first_epoch, -(-last_step // per_epoch))
    wanted = epochs.flat_map(_disable_autograph(lambda epoch: _make_indices(epoch, len(images), batch_size, seed, own)))
    wanted = wanted.skip(first_step - first_epoch * per_epoch).take(last_step - first_step)
    if with_images:
        # One call at a time: with deterministic ops, TensorFlow would rewrite parallel calls that read a variable into
        # this form anyway, and print an error message about it.
        wanted = wanted.map(_make_gather_on_host(images))
    rows = batch_size if own is None else len(own)
    return wanted.prefetch(count_prefetched(rows * images[0].nbytes if with_images else 0))


def _make_gather_on_host(images: Any) -> Gather:
    """Return a function that gathers images by row number from host memory, or from a file mapped into memory.

    A variable holds the images. The function could also use their tensor itself, but TensorFlow 2.15 and 2.21 copy such
    tensors before the first batch, even those of a mapped file. So the first batch of 3 GB of mapped images needed
    3.2 GB more memory, and took 1.7 seconds instead of 15 milliseconds. With more images than memory, the process ended
    with a segmentation fault.
    """
    packed = isinstance(images, PackedImages)
    with tf.device("cpu:0"):
        # (m, H, W, C). For a mapped file, these lines neither copy nor read the pixels.
        tensor = tf.experimental.dlpack.from_dlpack(images.pixels.__dlpack__()) if packed else images
        held = tf.Variable(tensor, trainable=False)
        chosen = tf.constant(images.chosen) if packed else None  # (n,)

    def gather(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = index if chosen is None else tf.gather(chosen, index)
        # A direct gather from the variable copies all images, because their memory is not its own. Reading it does not.
        return epoch, index, tf.gather(held.read_value(), rows)

    return _disable_autograph(gather)


def _disable_autograph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn autograph off for a function of the input pipeline.

    These functions have no Python loops or branches over tensors, so autograph need not rewrite them. The rewriting
    would take most of the time in which the pipeline is built.
    """
    return tf.autograph.experimental.do_not_convert(function)


def _make_indices(epoch: tf.Tensor, count: int, batch_size: int, seed: int, own: np.ndarray | None) -> tf.data.Dataset:
    """Return the whole batches of one epoch as epoch () and index (N,). With `own`, index has only these positions."""
    per_epoch = count_steps_per_epoch(count, batch_size)
    order = stock.draw_epoch_order(seed, epoch, count)[: per_epoch * batch_size]
    order = tf.reshape(order, (per_epoch, batch_size))
    rows = tf.data.Dataset.from_tensor_slices(order if own is None else tf.gather(order, own, axis=1))
    return rows.map(_disable_autograph(lambda index: (epoch, index)))


# A function from (epoch, index) to (epoch, index, images) or to (epoch, index, images, sizes).
Gather = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]]


def _make_gather(images: np.ndarray, device: str) -> Gather:
    """Return a function that gathers images by row number from one tensor on a device."""
    with tf.device(device):  # a tensor outside the graph, because a graph holds at most 2 GiB of constants
        held = tf.convert_to_tensor(images)  # (n, H, W, C)
    return _disable_autograph(lambda epoch, index: (epoch, index, tf.gather(held, index)))  # (), (N,), (N, H, W, C)


def _make_size_gather(sizes: np.ndarray, device: str) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Return a function that adds the sizes (N, 2) int32 of the images to a batch."""
    with tf.device(device):
        held = tf.constant(sizes, tf.int32)  # (n, 2)
    return _disable_autograph(lambda epoch, index, images: (epoch, index, images, tf.gather(held, index)))


def count_prefetched(batch_bytes: int) -> int:
    """Return how many batches wait in memory, from 1 to PREFETCHED.

    Args:
        batch_bytes: bytes of the images in one batch. Large batches are limited by PREFETCHED_BYTES.
    """
    return max(1, min(PREFETCHED, PREFETCHED_BYTES // max(batch_bytes, 1)))


def keep_on_device(images: Any, on_gpu: bool) -> Gather:
    """Copy the images to a device once, and return a function that gathers batches there.

    The returned function takes the elements of `make_batches(..., with_images=False)`.

    Args:
        images: (n, H, W, C) uint8, or `FramedImages` of an array.
        on_gpu: True for the first GPU, False for the CPU. On a GPU, XLA compiles the returned function, even if it does
            not compile the training step. Without XLA, an op that has no GPU kernel would make TensorFlow copy all
            images back to the host at every step.

    Returns:
        A function from epoch () and index (N,) int64 to epoch, index and images (N, H, W, C) uint8. With
        `FramedImages`, the sizes (N, 2) int32 of the images follow.

    Raises:
        DataError: if the device does not have enough memory.
    """
    device = "gpu:0" if on_gpu else "cpu:0"
    try:
        gather = _make_gather(get_canvases(images), device)
    except tf.errors.ResourceExhaustedError as error:
        raise DataError(
            f"--data-on is device, but the device has no room for {images.nbytes} bytes of images. Use --data-on host."
        ) from error
    if isinstance(images, FramedImages):
        add_sizes = _make_size_gather(images.sizes, device)
        return tf.function(lambda epoch, index: add_sizes(*gather(epoch, index)), jit_compile=on_gpu)
    return tf.function(gather, jit_compile=on_gpu)


def _stream_batches(
    images: image_folder.FolderImages, batch_size: int, seed: int, steps: range, own: np.ndarray | None
) -> tf.data.Dataset:
    """Return the batches of images in files. Threads decode some batches ahead."""
    share = np.arange(batch_size) if own is None else own

    def list_rows() -> Iterator[tuple[int, np.ndarray]]:
        return ((epoch, index[share]) for epoch, index in _iterate_rows(len(images), batch_size, seed, steps))

    def produce() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        read = images.read_ahead((index for _, index in list_rows()), PREFETCHED)
        return ((epoch, index, batch) for (epoch, index), batch in zip(list_rows(), read))

    specs = (
        tf.TensorSpec((), tf.int64),
        tf.TensorSpec((len(share),), tf.int64),
        tf.TensorSpec((len(share), *images.shape[1:]), tf.uint8),
    )
    return make_queue_dataset(produce(), specs, len(steps)).prefetch(1)


def recover_data_error(error: tf.errors.OpError) -> DataError | None:
    """Return the DataError that is wrapped inside a TensorFlow error, or None.

    For example, a batch of `make_batches` raises a DataError if one of its files is gone. TensorFlow turns this
    DataError into an OpError.
    """
    kind, _, text = (recover_problem(error) or "").partition(": ")
    return DataError(text) if kind == DataError.__name__ else None


def _iterate_rows(count: int, batch_size: int, seed: int, steps: range) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (epoch, index (N,)) for each step."""
    per_epoch, order, drawn = count // batch_size, np.empty(0, np.int64), -1
    for step in steps:
        epoch, place = divmod(step, per_epoch)
        if epoch != drawn:
            order, drawn = philox.draw_epoch_order(seed, epoch, count), epoch
        yield epoch, order[place * batch_size : (place + 1) * batch_size]
