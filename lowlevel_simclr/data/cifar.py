"""Loads CIFAR-10 and CIFAR-100 as uint8 images and labels, downloaded or from a folder.

A data set is published as an archive of a few files, which are called batches. Each batch is a pickle.
`array_pickle.py` reads it without running code. The SHA-256 of an archive is always checked. The MD5 of an unpacked
file is checked if the file has its published size.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from lowlevel_simclr.data.array_pickle import read_pickle
from lowlevel_simclr.data.dataset import DataError, DataSet, Split
from lowlevel_simclr.data.download import fetch

PIXELS = (3, 32, 32)  # layout of a row of 3072 bytes: channel, height, width
_NO_BATCH = "is not a CIFAR batch"
_UNPACK = "Unpack the archive again."


class Published(NamedTuple):
    """A file in a published archive. The MD5 is taken from torchvision's loaders."""

    size: int  # bytes
    md5: str  # 32 hexadecimal digits


class Archive(NamedTuple):
    """The published archive of one of the two data sets.

    The address and the SHA-256 are taken from Keras's own loaders.
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
    published: Mapping[str, Published]  # by file name, for the files whose size is known


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
    published={
        "data_batch_1": Published(31035704, "c99cafc152244af753f735de768cd75f"),
        "data_batch_2": Published(31035320, "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3": Published(31035999, "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4": Published(31035696, "634d18415352ddfa80567beed471001a"),
        "data_batch_5": Published(31035623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        "test_batch": Published(31035526, "40351d587109b95175f43aff81a1287e"),
        "batches.meta": Published(158, "5ff9c542aee3614f3951f8cda6e48888"),
    },
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
    published={
        "train": Published(155249918, "16019d7e3df5f24257cddd939b257f8d"),
        "test": Published(31049707, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        "meta": Published(1473, "7973b15100ade9c7d40fb424638fde48"),
    },
)


def load(archive: Archive, data_dir: str | None = None) -> DataSet:
    """Load the training batches and the test batch of CIFAR-10 or CIFAR-100.

    Args:
        archive: CIFAR10 or CIFAR100.
        data_dir: the folder with the batches, or the folder above it. None uses Keras's cache, and downloads the
            archive if the cache does not have it.

    Raises:
        DataError: if batches are missing, damaged or not CIFAR batches, or if they cannot be downloaded.
    """
    folder = _find_cached(archive) if data_dir is None else _find_given(archive, data_dir)
    _refuse_damaged(archive, folder)
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

    All batches are first unpacked into a temporary folder, and then moved. Another process considers the folder
    complete when it has all batches. So the file of the class names is moved first, and then the batches.

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
            for name in (archive.meta, *archive.train, archive.test):
                with contextlib.suppress(FileNotFoundError):  # an archive without class names
                    os.replace(Path(scratch, name), folder / name)
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises many types, from zlib.error to KeyError and RecursionError
        raise DataError(
            f"Cannot unpack {file} into {cache} ({str(error) or type(error).__name__}). Free some disk space, or "
            "remove the file to download it again."
        ) from error


def _refuse_damaged(archive: Archive, folder: Path) -> None:
    """Check the MD5 of every file that has the published size.

    Files of another size are not checked. They may be parts of a published file, or rewritten copies.

    Raises:
        DataError: if a file differs from the published one, or cannot be read.
    """
    for name, published in archive.published.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != published.size:
            continue
        try:
            found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        except OSError as error:
            raise DataError(f"Cannot read {path} ({error.strerror}). Check its permissions.") from error
        if found != published.md5:
            raise DataError(f"{path} is damaged: its MD5 is {found} instead of {published.md5}. {_UNPACK}")


# Reading the batches


def _read_classes(archive: Archive, path: Path) -> tuple[str, ...]:
    """Return the class names in the meta file, or `archive.classes` if there is no such file."""
    if not path.is_file():
        return archive.classes
    names = read_pickle(path, _UNPACK).get(archive.names_key)
    if not isinstance(names, list) or not names or not all(isinstance(name, (bytes, str)) for name in names):
        raise DataError(f"{path} has no list named {archive.names_key}. Unpack the archive again, or remove this file.")
    return tuple(_to_text(name) for name in names)


def _read_batch(path: Path, labels_key: str, classes: int) -> Split:
    """Return one batch: images (n, 32, 32, 3) uint8 and labels (n,) int64.

    A batch of CIFAR-10 holds 10,000 images. Any other number is accepted too, so that users can make smaller batches.

    Raises:
        DataError: if the file is damaged, or if its images or labels have the wrong shape, type, number or range.
    """
    content = read_pickle(path, _UNPACK)
    data, labels = content.get("data"), content.get(labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DataError(f"{path} {_NO_BATCH}: data is {_describe_value(data)} instead of uint8 (n, 3072). {_UNPACK}")
    if not _are_whole_numbers(labels):
        raise DataError(
            f"{path} {_NO_BATCH}: {labels_key} is {_describe_value(labels)} instead of whole numbers. {_UNPACK}"
        )
    if len(data) == 0 or len(labels) != len(data):
        raise DataError(f"{path} has {len(data)} images and {len(labels)} labels. {_UNPACK}")
    wrong = [label for label in labels if not 0 <= label < classes]  # before the change to int64, which can overflow
    if wrong:
        raise DataError(f"{path} {_NO_BATCH}: it has the label {wrong[0]}, but there are {classes} classes. {_UNPACK}")
    pixels = data.reshape(-1, *PIXELS).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return Split(np.ascontiguousarray(pixels), np.asarray(labels, np.int64))


def _are_whole_numbers(labels: Any) -> TypeGuard[Sequence[int]]:
    """Return whether the labels are a list of int, or an array (n,) of an integer type."""
    if isinstance(labels, np.ndarray):
        return labels.ndim == 1 and labels.dtype.kind in "iu"
    return isinstance(labels, list) and all(type(label) is int for label in labels)


def _describe_value(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _to_text(value: bytes | str) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
