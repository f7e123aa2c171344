"""Images in memory, and the order training sees them in: uint8 arrays -> batches of (epoch, index, images).

Not here: augmentation, floats, drawing the shapes (`shapes.py`).
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr import shapes, stock

DATASETS = ("shapes", "cifar10")
SHAPES_TRAIN, SHAPES_TEST = 5000, 1000  # images drawn for each split

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_TRAIN = tuple(f"data_batch_{part}" for part in range(1, 6))
CIFAR10_TEST = "test_batch"
CIFAR10_META = "batches.meta"  # the names of the classes; a copy without it is read all the same
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR10_PIXELS = (3, 32, 32)  # how a row of 3072 bytes is laid out: channel, height, width
_NO_BATCH = "it is no batch of CIFAR-10, unpack the archive again"

PREFETCHED = 4  # batches waiting in memory: enough for an uneven step, few megabytes


class DataError(ValueError):
    """The data are missing, damaged or not enough; the text is one sentence that says what to do."""


class Split(NamedTuple):
    """Images uint8 (n, H, W, C) and their labels int64 (n,), class numbers from 0."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A named data set: what is trained on, what is held out, and what the class numbers mean."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]


def load(dataset: str, data_dir: str | None = None, seed: int = 0) -> DataSet:
    """The data set of that name, whole and in memory.

    Args:
        dataset: 'shapes', drawn from the seed, or 'cifar10', read from data_dir.
        data_dir: the folder with the files of cifar10, or with cifar-10-batches-py in it; unused by shapes.
        seed: what the shapes are drawn from; unused by cifar10.

    Raises:
        DataError: there is no such data set, or its files are missing, damaged or hold anything but a batch.
    """
    if dataset == "shapes":
        return _shapes(seed)
    if dataset == "cifar10":
        return _cifar10(data_dir)
    raise DataError(f"there is no data set '{dataset}': give one of {', '.join(DATASETS)}")


def _shapes(seed: int) -> DataSet:
    """One stretch of the drawn images, cut in two: no image is in both splits."""
    images, labels = shapes.draw(SHAPES_TRAIN + SHAPES_TEST, seed)
    train = Split(images[:SHAPES_TRAIN], labels[:SHAPES_TRAIN])
    test = Split(images[SHAPES_TRAIN:], labels[SHAPES_TRAIN:])
    return DataSet("shapes", train, test, shapes.CLASSES)


# Batches: the stream that training reads


def steps_per_epoch(count: int, batch_size: int) -> int:
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


def batches(
    images: np.ndarray,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    own: np.ndarray | None = None,
) -> tf.data.Dataset:
    """The batches of the steps first_step .. last_step - 1, counted from 0 over the whole run.

    Epoch e visits the images in the order `epoch_order(seed, e, n)`, in whole batches. A batch depends on the
    seed and its step alone, so a run that resumes at any step reads on exactly where it stopped; the batches
    before `first_step` cost next to nothing, because no image of theirs is gathered.

    Args:
        images: (n, H, W, C) uint8, kept in host memory as one tensor.
        batch_size: N, images a batch.
        seed: the run's.
        first_step: the first step that is wanted.
        last_step: the first step that is not.
        own: (n,) places in a batch, the share of one of several replicas; no other image is gathered. None for all.

    Returns:
        A dataset of epoch () int64, index (N,) int64 (rows of `images`), images (N, H, W, C) uint8; n instead of N
        where there is a share.

    Raises:
        DataError: there are fewer images than a batch.
        ValueError: the steps are negative or run backwards.
    """
    if not 0 <= first_step <= last_step:
        raise ValueError(f"steps {first_step} to {last_step} are none: give 0 <= first_step <= last_step")
    per_epoch = steps_per_epoch(len(images), batch_size)
    first_epoch = first_step // per_epoch
    with tf.device("cpu:0"):  # captured, not embedded: a graph holds at most 2 GiB of constants
        held = tf.convert_to_tensor(images)  # (n, H, W, C)

    def indices(epoch: tf.Tensor) -> tf.data.Dataset:
        order = stock.epoch_order(seed, epoch, len(images))[: per_epoch * batch_size]
        order = tf.reshape(order, (per_epoch, batch_size))
        rows = tf.data.Dataset.from_tensor_slices(order if own is None else tf.gather(order, own, axis=1))
        return rows.map(lambda index: (epoch, index))

    def gather(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return epoch, index, tf.gather(held, index)  # (), (N,), (N, H, W, C)

    epochs = tf.data.Dataset.range(first_epoch, -(-last_step // per_epoch))
    wanted = epochs.flat_map(indices).skip(first_step - first_epoch * per_epoch).take(last_step - first_step)
    return wanted.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(PREFETCHED)


# CIFAR-10 in its standard batches


def _cifar10(data_dir: str | None) -> DataSet:
    """Five training batches and one test batch from the folder that holds them."""
    folder = _cifar10_folder(data_dir)
    classes = _cifar10_classes(folder / CIFAR10_META)
    parts = [_cifar10_batch(folder / name, len(classes)) for name in CIFAR10_TRAIN]
    train = Split(*(np.concatenate(column) for column in zip(*parts)))
    return DataSet("cifar10", train, _cifar10_batch(folder / CIFAR10_TEST, len(classes)), classes)


def _cifar10_folder(data_dir: str | None) -> Path:
    """The folder that holds the six batches: data_dir, or cifar-10-batches-py in it.

    Raises:
        DataError: data_dir is not given or no folder, or batches are missing; they are named.
    """
    if data_dir is None:
        raise DataError(f"cifar10 needs --data-dir: the folder that holds {CIFAR10_FOLDER}")
    given = Path(data_dir).expanduser()
    if not given.is_dir():
        raise DataError(f"--data-dir {data_dir} is no folder: give the one that holds {CIFAR10_FOLDER}")
    folder = given / CIFAR10_FOLDER if (given / CIFAR10_FOLDER).is_dir() else given
    missing = [name for name in (*CIFAR10_TRAIN, CIFAR10_TEST) if not (folder / name).is_file()]
    if missing:
        archive = next(iter(sorted(given.glob("cifar-10-python*.tar.gz"))), None)
        archive_name = archive.name if archive else "cifar-10-python.tar.gz"
        raise DataError(
            f"{folder} lacks {', '.join(missing)} of CIFAR-10: "
            f"unpack {archive_name} there with tar -xzf, or give another --data-dir"
        )
    return folder


def _cifar10_classes(path: Path) -> tuple[str, ...]:
    """The names in batches.meta, or the ten that everybody knows where the file is missing."""
    if not path.is_file():
        return CIFAR10_CLASSES
    names = _read_pickle(path).get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, (bytes, str)) for name in names):
        raise DataError(f"{path} has no list of label_names: unpack the archive again, or remove this file")
    return tuple(_text(name) for name in names)


def _cifar10_batch(path: Path, classes: int) -> Split:
    """One batch: images (n, 32, 32, 3) uint8 and labels (n,) int64.

    The original files hold 10,000 images each; another number is taken as it is, so that a part will do.

    Raises:
        DataError: the file is damaged, or holds images or labels of another shape, type, number or range.
    """
    content = _read_pickle(path)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{path} holds {_described(data)} as data, not uint8 (n, 3072): {_NO_BATCH}")
    if not _whole_numbers(labels):
        raise DataError(f"{path} holds {_described(labels)} as labels, not whole numbers: {_NO_BATCH}")
    numbers = np.asarray(labels, np.int64)
    if len(data) == 0 or len(numbers) != len(data):
        raise DataError(f"{path} has {len(data)} images and {len(numbers)} labels: unpack the archive again")
    wrong = numbers[(numbers < 0) | (numbers >= classes)]
    if wrong.size:
        raise DataError(f"{path} has the label {wrong[0]}, and there are {classes} classes: {_NO_BATCH}")
    pixels = data.reshape(-1, *CIFAR10_PIXELS).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return Split(np.ascontiguousarray(pixels), numbers)


def _whole_numbers(labels: Any) -> bool:
    """Whether labels are what they should be: a list of int, or an array of an integer type."""
    if isinstance(labels, np.ndarray):
        return labels.ndim == 1 and labels.dtype.kind in "iu"
    return isinstance(labels, list) and all(type(label) is int for label in labels)


def _described(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


# Pickles that may hold NumPy arrays and nothing else


class _StoredType:
    """What a pickle says of an array's dtype: its code when made, its byte order by `__setstate__`."""

    def __init__(self, code: bytes | str, *flags: Any) -> None:
        self.dtype = np.dtype(_text(code))

    def __setstate__(self, state: Sequence[Any]) -> None:
        order: Any = _text(state[1])
        self.dtype = self.dtype.newbyteorder(order)


class _StoredArray:
    """What a pickle says of an array: nothing when made; shape, dtype, order and bytes by `__setstate__`."""

    def __init__(self, *arguments: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _version, shape, stored, columns_first, raw = state
        self.array = np.frombuffer(raw, stored.dtype).reshape(shape, order="F" if columns_first else "C")


def _stored_bytes(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in Python 2's protocols, an array's own among them."""
    if encoding != "latin1":
        raise ValueError(f"bytes are stored as latin1, not {encoding}")
    return text.encode("latin1")


# A pickle's names for an array are answered with the three above: none of NumPy's own unpickling, which trusts
# what it is given, is reached. NumPy 2 moved `_reconstruct`; both names are in files that people have.
_ADMITTED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _StoredArray,
    "numpy._core.multiarray._reconstruct": _StoredArray,
    "numpy.ndarray": _StoredArray,
    "numpy.dtype": _StoredType,
    "_codecs.encode": _stored_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers, numbers, text and NumPy arrays of numbers; Python 2's text comes out as bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file, encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Admits what an array needs and refuses everything else by name; nothing is imported or called."""
        wanted = f"{module}.{name}"
        if wanted not in _ADMITTED:
            raise DataError(
                f"{self._name} asks for {wanted}; a batch holds NumPy arrays and nothing else, "
                "so it was not read: get the file from a source that you trust"
            )
        return _ADMITTED[wanted]


def _read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a file, its keys as text.

    Raises:
        DataError: the file cannot be read, is damaged, holds something else, or asks for code.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, path.name).load()
        if not isinstance(content, dict):
            raise DataError(f"{path} holds {_described(content)}, not a dictionary: {_NO_BATCH}")
        return {_text(key): _unwrapped(value) for key, value in content.items()}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    except Exception as error:  # pickle promises no particular exceptions for a damaged file
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is damaged or cut off ({what}): unpack the archive again") from error


def _unwrapped(value: Any) -> Any:
    return value.array if isinstance(value, _StoredArray) else value


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
