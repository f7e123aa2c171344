"""CIFAR-10 and CIFAR-100 as uint8 images and labels, downloaded or read from a folder.

A file of batches is a pickle, and unpickling can run code. The reader here accepts containers, numbers, text and arrays
of numbers, and refuses everything else.
"""

from __future__ import annotations

import os
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lowlevel_simclr.data.dataset import DataError, DataSet, Split
from lowlevel_simclr.data.download import fetch

PIXELS = (3, 32, 32)  # layout of a row of 3072 bytes: channel, height, width
_NO_BATCH = "is not a CIFAR batch"
_UNPACK = "Unpack the archive again."


class Archive(NamedTuple):
    """One of the two data sets as it is published.

    The address and the SHA-256 are those in Keras's own loaders.
    """

    name: str
    title: str
    folder: str
    file: str
    url: str
    sha256: str
    train: tuple[str, ...]
    test: str
    meta: str  # file of the class names; a copy without this file can be read too
    labels_key: str
    names_key: str
    classes: tuple[str, ...]  # class names if there is no meta file


CIFAR10 = Archive(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    file="cifar-10-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    train=tuple(f"data_batch_{part}" for part in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels_key="labels",
    names_key="label_names",
    classes=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
)
CIFAR100 = Archive(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    file="cifar-100-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    train=("train",),
    test="test",
    meta="meta",
    labels_key="fine_labels",
    names_key="fine_label_names",
    classes=tuple(f"class {number}" for number in range(100)),
)


def load(archive: Archive, data_dir: str | None = None) -> DataSet:
    """Load the training batches and the test batch of CIFAR-10 or CIFAR-100.

    Args:
        archive: CIFAR10 or CIFAR100.
        data_dir: the folder with the batches, or the folder that contains it. None uses Keras's cache, and downloads
            the archive if it is not there.

    Raises:
        DataError: if batches are missing, damaged or not CIFAR batches, or if they cannot be downloaded.
    """
    folder = _find_cached(archive) if data_dir is None else _find_given(archive, data_dir)
    classes = _read_classes(archive, folder / archive.meta)
    parts = [_read_batch(folder / name, archive.labels_key, len(classes)) for name in archive.train]
    train = Split(*(np.concatenate(column) for column in zip(*parts)))
    return DataSet(archive.name, train, _read_batch(folder / archive.test, archive.labels_key, len(classes)), classes)


# Finding the batches


def find_cache_folder() -> Path:
    """Return the folder of Keras's data sets: $KERAS_HOME/datasets, by default ~/.keras/datasets."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def _list_missing(archive: Archive, folder: Path) -> list[str]:
    """Return the names of the batches that are not in the folder."""
    return [name for name in (*archive.train, archive.test) if not (folder / name).is_file()]


def _find_given(archive: Archive, data_dir: str) -> Path:
    """Return the folder with the batches: `data_dir` itself, or the archive's folder inside it.

    Raises:
        DataError: if `data_dir` is not a folder, or if batches are missing. The message names them.
    """
    given = Path(data_dir).expanduser()
    if not given.is_dir():
        raise DataError(f"--data-dir {data_dir} is not a folder. Give the folder that contains {archive.folder}.")
    folder = given / archive.folder if (given / archive.folder).is_dir() else given
    missing = _list_missing(archive, folder)
    if missing:
        raise DataError(
            f"{folder} does not contain {', '.join(missing)} of {archive.title}. Unpack {archive.file} there with "
            "tar -xzf, give another --data-dir, or omit it to download the archive."
        )
    return folder


def _find_cached(archive: Archive) -> Path:
    """Return the folder with the batches in Keras's cache. Download and unpack them if they are not there.

    Raises:
        DataError: if they are not there and cannot be downloaded.
    """
    cache = find_cache_folder()
    # The newest Keras unpacks into another folder.
    for folder in (cache / archive.folder, cache / f"{archive.folder}-target" / archive.folder):
        if not _list_missing(archive, folder):
            return folder
    file = cache / archive.file
    remedy = f"Put {archive.file} into {cache}, or give the folder that contains {archive.folder} with --data-dir."
    fetch(archive.url, file, archive.sha256, remedy)
    _unpack(archive, file, cache)
    return cache / archive.folder


def _unpack(archive: Archive, file: Path, cache: Path) -> None:
    """Unpack the batches of an archive into the cache.

    They are unpacked into a temporary folder, and moved once all of them are there.

    Raises:
        DataError: if the archive is damaged or lacks a batch, or if the disk is full.
    """
    wanted = {f"{archive.folder}/{name}" for name in (*archive.train, archive.test, archive.meta)}
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix=archive.folder + ".") as scratch:
            with tarfile.open(file) as members:
                for member in members:
                    content = members.extractfile(member) if member.name in wanted else None
                    if content is not None:
                        (Path(scratch) / Path(member.name).name).write_bytes(content.read())
            missing = _list_missing(archive, Path(scratch))
            if missing:
                raise DataError(
                    f"{file} does not contain {', '.join(missing)}. Remove it, and run the same command again to "
                    "download it."
                )
            folder = cache / archive.folder
            folder.mkdir(exist_ok=True)
            for path in Path(scratch).iterdir():
                os.replace(path, folder / path.name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"Cannot unpack {file} into {cache} ({error}). Free some disk space, or remove the file to download it "
            "again."
        ) from error


# Reading the batches


def _read_classes(archive: Archive, path: Path) -> tuple[str, ...]:
    """Return the class names in the meta file, or the archive's own if there is no such file."""
    if not path.is_file():
        return archive.classes
    names = _read_pickle(path).get(archive.names_key)
    if not isinstance(names, list) or not names or not all(isinstance(name, (bytes, str)) for name in names):
        raise DataError(f"{path} has no list named {archive.names_key}. Unpack the archive again, or remove this file.")
    return tuple(_to_text(name) for name in names)


def _read_batch(path: Path, labels_key: str, classes: int) -> Split:
    """Return one batch: images (n, 32, 32, 3) uint8 and labels (n,) int64.

    A batch of CIFAR-10 holds 10,000 images. Any other number is accepted, so that a part of the data is enough.

    Raises:
        DataError: if the file is damaged, or if its images or labels have another shape, type, number or range.
    """
    content = _read_pickle(path)
    data, labels = content.get("data"), content.get(labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{path} {_NO_BATCH}: data is {_describe_value(data)} instead of uint8 (n, 3072). {_UNPACK}")
    if not _are_whole_numbers(labels):
        raise DataError(
            f"{path} {_NO_BATCH}: {labels_key} is {_describe_value(labels)} instead of whole numbers. {_UNPACK}"
        )
    numbers = np.asarray(labels, np.int64)
    if len(data) == 0 or len(numbers) != len(data):
        raise DataError(f"{path} has {len(data)} images and {len(numbers)} labels. {_UNPACK}")
    wrong = numbers[(numbers < 0) | (numbers >= classes)]
    if wrong.size:
        raise DataError(f"{path} {_NO_BATCH}: it has the label {wrong[0]}, but there are {classes} classes. {_UNPACK}")
    pixels = data.reshape(-1, *PIXELS).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return Split(np.ascontiguousarray(pixels), numbers)


def _are_whole_numbers(labels: Any) -> bool:
    """Return whether the labels are a list of int, or an array (n,) of an integer type."""
    if isinstance(labels, np.ndarray):
        return labels.ndim == 1 and labels.dtype.kind in "iu"
    return isinstance(labels, list) and all(type(label) is int for label in labels)


def _describe_value(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


# Unpickling without running code


class _StoredType:
    """The dtype of a pickled array. `__init__` receives its code, `__setstate__` its byte order."""

    def __init__(self, code: bytes | str, *flags: Any) -> None:
        self.dtype = np.dtype(_to_text(code))

    def __setstate__(self, state: Sequence[Any]) -> None:
        order: Any = _to_text(state[1])
        self.dtype = self.dtype.newbyteorder(order)


class _StoredArray:
    """A pickled array. `__setstate__` receives its shape, dtype, memory order and bytes."""

    def __init__(self, *arguments: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _version, shape, stored, columns_first, raw = state
        self.array = np.frombuffer(raw, stored.dtype).reshape(shape, order="F" if columns_first else "C")


def _read_stored_bytes(text: str, encoding: str) -> bytes:
    """Return the bytes that a pickle stores as text.

    Python 3 writes bytes, such as the content of an array, as text in the pickle protocols of Python 2.
    """
    if encoding != "latin1":
        raise ValueError(f"bytes are stored as latin1, not {encoding}")
    return text.encode("latin1")


# The three definitions above replace the names in a pickled array. NumPy's own unpickling trusts its input, and is
# never reached. NumPy 2 moved `_reconstruct`, so files with either name exist.
_ADMITTED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _StoredArray,
    "numpy._core.multiarray._reconstruct": _StoredArray,
    "numpy.ndarray": _StoredArray,
    "numpy.dtype": _StoredType,
    "_codecs.encode": _read_stored_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler for containers, numbers, text and arrays of numbers. Text of Python 2 becomes bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file, encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the replacement for a name that belongs to an array. Nothing is imported or called.

        Raises:
            DataError: if the pickle contains any other name.
        """
        wanted = f"{module}.{name}"
        if wanted not in _ADMITTED:
            raise DataError(
                f"{self._name} was not read, because it asks for {wanted}. A CIFAR batch contains only NumPy "
                "arrays. Get the file from a source that you trust."
            )
        return _ADMITTED[wanted]


def _read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in a file, with text as keys.

    Raises:
        DataError: if the file cannot be read, is damaged, holds something else, or asks for code.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, path.name).load()
        if not isinstance(content, dict):
            raise DataError(
                f"{path} {_NO_BATCH}: it contains {_describe_value(content)} instead of a dictionary. {_UNPACK}"
            )
        return {_to_text(key): _unwrap(value) for key, value in content.items()}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"Cannot read {path} ({error.strerror}). Check its permissions.") from error
    except Exception as error:  # pickle does not document what a damaged file raises
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is damaged or truncated ({what}). {_UNPACK}") from error


def _unwrap(value: Any) -> Any:
    return value.array if isinstance(value, _StoredArray) else value


def _to_text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
