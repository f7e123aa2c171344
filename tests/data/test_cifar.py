"""Tests the data sets CIFAR-10 and CIFAR-100: reading their files, errors, and the download of missing files.

The files are pickles. The package must read them as data, and must never run the code that a pickle can contain.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import catalog, cifar, dataset

REAL = os.environ.get("LOWLEVEL_SIMCLR_CIFAR10")
FILES = (*cifar.CIFAR10.train, cifar.CIFAR10.test)


def batch(seed: int, count: int = 6) -> dict[bytes, Any]:
    """Return random pixels and labels, in the form of one of CIFAR-10's files (a batch)."""
    random = np.random.default_rng(seed)
    labels = [int(label) for label in random.integers(0, 10, count)]
    return {b"data": random.integers(0, 256, (count, 3072), np.uint8), b"labels": labels}


def python_2_bytes(content: dict[bytes, Any]) -> bytes:
    """Return a pickle in the form of the original files, which were written with Python 2.

    They have the old name of a NumPy module (numpy.core), and integers as the flags of a dtype.
    """

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    rows = content[b"data"]
    # The pickle of a call _reconstruct(ndarray, (0,), "b"), which makes an empty array.
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    stored = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(b"M" + struct.pack("<H", extent) for extent in rows.shape) + b"\x86"
    array += b"(K\x01" + shape + stored + b"\x89" + text(rows.tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in content[b"labels"]) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


WRITERS: dict[str, Callable[[dict[bytes, Any]], bytes]] = {
    "Python 2": python_2_bytes,
    "protocol 2": lambda content: pickle.dumps(content, protocol=2),
    "protocol 4": lambda content: pickle.dumps(content, protocol=4),
    "protocol 5": lambda content: pickle.dumps(content, protocol=5),
    "text keys": lambda content: pickle.dumps({key.decode(): value for key, value in content.items()}, protocol=4),
    "column-major": lambda content: pickle.dumps({**content, b"data": np.asfortranarray(content[b"data"])}, 4),
    "column-major 5": lambda content: pickle.dumps({**content, b"data": np.asfortranarray(content[b"data"])}, 5),
    "label array": lambda content: pickle.dumps({**content, b"labels": np.array(content[b"labels"], ">i4")}),
}


def write_batches(folder: Path, write: Callable[[dict[bytes, Any]], bytes] = WRITERS["protocol 4"]) -> Path:
    """Write the six files of CIFAR-10, with six images in each."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(FILES):
        (folder / name).write_bytes(write(batch(seed)))
    return folder


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("inner", ["", cifar.CIFAR10.folder])
def test_batches_are_read_as_they_were_written(tmp_path: Path, writer: str, inner: str) -> None:
    write_batches(tmp_path / inner, WRITERS[writer])
    images = catalog.load_dataset("cifar10", str(tmp_path))
    pixels = np.concatenate([batch(seed)[b"data"] for seed in range(5)])
    for channel, (row, column) in [(0, (0, 0)), (1, (0, 31)), (2, (31, 7))]:
        stored = pixels[:, channel * 1024 + row * 32 + column]  # a file stores each channel row by row
        np.testing.assert_array_equal(images.train.images[:, row, column, channel], stored)
    np.testing.assert_array_equal(images.test.labels, batch(5)[b"labels"])
    assert images.train.images.shape == (30, 32, 32, 3)
    assert (images.train.images.dtype, images.train.labels.dtype) == (np.uint8, np.int64)
    assert images.classes == cifar.CIFAR10.classes


def test_the_names_of_the_classes_come_from_the_files(tmp_path: Path) -> None:
    names = [f"class {number}".encode() for number in range(10)]
    write_batches(tmp_path)
    (tmp_path / cifar.CIFAR10.meta).write_bytes(pickle.dumps({b"label_names": names}))
    assert catalog.load_dataset("cifar10", str(tmp_path)).classes == tuple(name.decode() for name in names)


# The files are read as data and never run as code


class Runs:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (os.system, ("touch INSTEAD",), f"{os.system.__module__}.system"),
        (eval, ("open('INSTEAD', 'w')",), "builtins.eval"),
        (getattr, ("", "join"), "builtins.getattr"),
        (np.load, ("INSTEAD",), "numpy.load"),
        (np.float64, (1.0,), "numpy.float64"),
        (io.open, ("INSTEAD", "w"), "_?io.open"),
        (bytearray, (b"a",), "builtins.bytearray"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, arguments: Any, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_batches(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Runs(call, *arguments)}, protocol=protocol))
    name = name.replace("builtins", "(builtins|__builtin__)")
    with pytest.raises(
        dataset.DataError, match=f"data_batch_3 was not read, because it asks for {name}. A CIFAR batch contains"
    ):
        catalog.load_dataset("cifar10", str(tmp_path))
    assert not (tmp_path / "INSTEAD").exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    write_batches(tmp_path, lambda content: pickle.dumps({**content, b"data": np.array([[1], [2]], object)}))
    with pytest.raises(dataset.DataError, match="data_batch_1 is damaged"):
        catalog.load_dataset("cifar10", str(tmp_path))


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
@pytest.mark.parametrize("writer", ["Python 2", "protocol 4"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, kept: int, writer: str) -> None:
    write_batches(tmp_path, WRITERS[writer])
    path = tmp_path / "data_batch_2"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(dataset.DataError, match="data_batch_2 is damaged or truncated .*. Unpack the archive again"):
        catalog.load_dataset("cifar10", str(tmp_path))


def test_no_damage_ends_in_another_exception(tmp_path: Path) -> None:
    """Test files with one changed byte, in the part that describes the arrays.

    Reading such a file must succeed or raise DataError.
    """
    write_batches(tmp_path)
    path, random = tmp_path / "data_batch_1", np.random.default_rng(0)
    small = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}
    whole = pickle.dumps(small, protocol=4)
    described = [place for place in range(len(whole)) if whole[place] or place < 60]  # not the pixels, which are zeros
    refused = 0
    for place in random.choice(described, 150):
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            catalog.load_dataset("cifar10", str(tmp_path))
        except dataset.DataError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"labels": [0, 1, 2, 3, 4, 2**64]}, "label 18446744073709551616, but there are 10 classes"),
        ({b"data": np.zeros((6, 3072), np.float32)}, r"data is .*float32 \(6, 3072\) instead of uint8 \(n, 3072\)"),
        ({b"data": np.zeros((6, 1024), np.uint8)}, r"data is .*uint8 \(6, 1024\) instead"),
        ({b"data": b"pixels"}, "data is bytes instead"),
        ({b"data": np.zeros((5, 3072), np.uint8)}, "5 images and 6 labels"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "0 images and 0 labels"),
        ({b"labels": [0, 1, 2, 3, 4, 10]}, "label 10, but there are 10 classes"),
        ({b"labels": [0, 1, 2, 3, 4, -1]}, "label -1, but there are 10 classes"),
        ({b"labels": [0, 1, 2, 3, 4, 1.5]}, "labels is list instead of whole numbers"),
        ({b"labels": None}, "labels is NoneType instead of whole numbers"),
    ],
)
def test_contents_that_cannot_be_are_refused(tmp_path: Path, change: dict[bytes, Any], message: str) -> None:
    write_batches(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({**batch(5), **change}))
    with pytest.raises(dataset.DataError, match=f"test_batch .*{message}"):
        catalog.load_dataset("cifar10", str(tmp_path))


def test_something_else_in_the_file_is_refused(tmp_path: Path) -> None:
    write_batches(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(
        dataset.DataError, match="data_batch_1 is not a CIFAR batch: it contains list instead of a dictionary"
    ):
        catalog.load_dataset("cifar10", str(tmp_path))


# Missing files, and the original files


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_batches(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    (tmp_path / "test_batch").unlink()
    with pytest.raises(dataset.DataError, match="contain data_batch_4, test_batch of CIFAR-10. Unpack cifar-10-python"):
        catalog.load_dataset("cifar10", str(tmp_path))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(dataset.DataError, match="--data-dir .*/nowhere is not a folder. Give the folder that"):
        catalog.load_dataset("cifar10", str(tmp_path / "nowhere"))


@pytest.mark.skipif(REAL is None, reason="LOWLEVEL_SIMCLR_CIFAR10 names no folder with the batches of CIFAR-10")
def test_the_real_images() -> None:
    images = catalog.load_dataset("cifar10", REAL)
    for split, each in ((images.train, 5000), (images.test, 1000)):
        np.testing.assert_array_equal(np.bincount(split.labels), [each] * 10)
        assert split.images.shape == (10 * each, 32, 32, 3)
        # In a photograph, neighbouring pixels are similar. If rows and columns were mixed up, they would not be.
        for axis in (1, 2):
            assert np.abs(np.diff(split.images[:500].astype(int), axis=axis)).mean() < 20
    assert images.classes == cifar.CIFAR10.classes


# CIFAR-100, and the cache of downloaded files


def test_cifar100_has_fine_labels_and_their_names(tmp_path: Path) -> None:
    folder = tmp_path / cifar.CIFAR100.folder
    folder.mkdir()
    for seed, name in enumerate(("train", "test")):
        content = batch(seed)
        content[b"coarse_labels"] = [0] * 6
        content[b"fine_labels"] = [99, 98, 5, 4, 3, seed]
        del content[b"labels"]
        (folder / name).write_bytes(pickle.dumps(content))
    names = [f"n{number}".encode() for number in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": names, b"coarse_label_names": [b"x"]}))
    images = catalog.load_dataset("cifar100", str(tmp_path))
    np.testing.assert_array_equal(images.train.labels, [99, 98, 5, 4, 3, 0])
    assert len(images.classes) == 100 and images.classes[99] == "n99"
    assert images.test.images.shape == (6, 32, 32, 3)


def packed(names: tuple[str, ...] = FILES) -> bytes:
    """Return a tar archive with the folders and file names of the published archive, but small files."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as archive:
        for seed, name in enumerate(names):
            content = pickle.dumps(batch(seed), protocol=4)
            member = tarfile.TarInfo(f"{cifar.CIFAR10.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stored.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    return tmp_path / "keras" / "datasets"


def put(cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, name: str = "CIFAR10") -> Path:
    """Put an archive into the cache folder, as a user might do. Make the package expect the hash of this archive."""
    archive = getattr(cifar, name)._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(cifar, name, archive)
    (cache / archive.file).write_bytes(content)
    return cache / archive.file


def test_an_archive_in_the_cache_is_unpacked_and_read_without_a_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, packed(), monkeypatch)
    images = catalog.load_dataset("cifar10")
    (cache / cifar.CIFAR10.file).unlink()
    again = catalog.load_dataset("cifar10")
    np.testing.assert_array_equal(images.train.images, again.train.images)
    assert len(images.train.images) == 30 and [path.name for path in cache.iterdir()] == [cifar.CIFAR10.folder]


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_an_archive_that_was_put_there_by_hand_is_checked(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Test an archive with one flipped bit.

    Many such archives can be unpacked, and some would give wrong pixels. Only the hash shows the damage.
    """
    path = put(cache, packed(), monkeypatch, name)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        dataset.DataError, match=f"{path.name} is damaged, or is another file: its SHA-256 is .* Remove"
    ):
        catalog.load_dataset(name.lower())
    assert [each.name for each in cache.iterdir()] == [path.name] and path.read_bytes() == damaged


def test_a_batch_of_the_published_size_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a file that has the right size, but one wrong pixel, for example after an error of the disk."""
    path = write_batches(tmp_path) / "data_batch_3"
    content = path.read_bytes()
    whole = cifar.Published(len(content), hashlib.md5(content).hexdigest())
    monkeypatch.setattr(cifar, "CIFAR10", cifar.CIFAR10._replace(published={path.name: whole}))
    assert len(catalog.load_dataset("cifar10", str(tmp_path)).train.images) == 30
    pixel = content.index(batch(2)[b"data"].tobytes()) + 5000
    path.write_bytes(content[:pixel] + bytes([content[pixel] ^ 1]) + content[pixel + 1 :])
    with pytest.raises(
        dataset.DataError, match="data_batch_3 is damaged: its MD5 is [0-9a-f]{32} instead of .* Unpack"
    ):
        catalog.load_dataset("cifar10", str(tmp_path))


def test_what_another_keras_unpacked_is_used(cache: Path) -> None:
    write_batches(cache / f"{cifar.CIFAR10.folder}-target" / cifar.CIFAR10.folder)
    assert len(catalog.load_dataset("cifar10").test.images) == 6


def test_an_unpacking_that_is_interrupted_is_begun_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test unpacking that is interrupted after three files were moved into their final folder.

    The first of them must be the file with the names of the classes. Without it, the classes would get other names.
    """
    names = (*FILES, cifar.CIFAR10.meta)
    put(cache, packed(names), monkeypatch)
    replace, moved = os.replace, []

    def interrupted(source: Any, target: Any) -> None:
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        catalog.load_dataset("cifar10")
    assert moved[0] == cifar.CIFAR10.meta
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(dataset.DataError, match="batches.meta has no list named label_names"):  # the file has images
        catalog.load_dataset("cifar10")
    assert sorted(path.name for path in (cache / cifar.CIFAR10.folder).iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed()[:-200], "Cannot unpack .*/cifar-10-python.tar.gz into .*Free some disk space, or remove"),
        (b"no archive", "Cannot unpack .*/cifar-10-python.tar.gz into"),
        (packed(FILES[:-1]), "cifar-10-python.tar.gz does not contain test_batch. Remove it, and run the"),
    ],
    ids=["cut off", "something else", "a batch less"],
)
def test_an_archive_that_is_not_whole_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    put(cache, content, monkeypatch)
    with pytest.raises(dataset.DataError, match=message):
        catalog.load_dataset("cifar10")
    assert [path.name for path in cache.iterdir()] == [cifar.CIFAR10.file]


@pytest.mark.parametrize("error", [KeyError("linkname"), RecursionError("maximum depth"), zlib.error("invalid code")])
def test_whatever_a_damaged_archive_raises_is_a_sentence(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def raise_error(*_: Any) -> None:
        raise error

    put(cache, packed(), monkeypatch)
    monkeypatch.setattr(tarfile.TarFile, "next", raise_error)
    with pytest.raises(dataset.DataError, match="Cannot unpack .*/cifar-10-python.tar.gz into .*or remove the file"):
        catalog.load_dataset("cifar10")


def test_without_a_network_one_sentence_names_file_and_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = cifar.CIFAR10._replace(url="http://127.0.0.1:1/cifar-10-python.tar.gz")  # an address without a server
    with pytest.raises(dataset.DataError) as told:
        cifar.load(nowhere)
    sentence = f"Put cifar-10-python.tar.gz into {cache}, or give the folder that contains cifar-10-batches-py with "
    assert "Connection refused" in str(told.value) and sentence in str(told.value)


@pytest.mark.parametrize("archive", [cifar.CIFAR10, cifar.CIFAR100], ids=lambda archive: archive.name)
def test_every_file_that_is_read_has_a_published_hash(archive: cifar.Archive) -> None:
    assert set(archive.published) == {*archive.train, archive.test, archive.meta}
    for published in archive.published.values():
        assert len(published.md5) == 32 and set(published.md5) <= set("0123456789abcdef") and published.size > 100
    assert len({published.md5 for published in archive.published.values()}) == len(archive.published)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_each_file_of_cifar100_is_checked_against_its_hash(tmp_path: Path, name: str) -> None:
    """Test a file that has the published size, but other content. It must be refused before it is read."""
    for each in ("train", "test", "meta"):
        (tmp_path / each).write_bytes(b"")
    with open(tmp_path / name, "wb") as file:
        file.truncate(cifar.CIFAR100.published[name].size)
    with pytest.raises(dataset.DataError, match=f"{name} is damaged: its MD5 is .* instead of .* Unpack"):
        catalog.load_dataset("cifar100", str(tmp_path))


def test_the_published_hashes_are_those_of_keras() -> None:
    """Test that this package expects the same hashes of CIFAR's archives as the installed Keras."""
    import tensorflow as tf

    for archive in (cifar.CIFAR10, cifar.CIFAR100):
        loader = getattr(tf.keras.datasets, archive.name).load_data
        source = Path(loader.__code__.co_filename).read_text()
        assert archive.url in source and archive.sha256 in source


def test_the_download_is_the_archive_with_the_pinned_hash(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, path: Path, sha256: str, remedy: str) -> None:
        asked.append((url, path, sha256))
        path.write_bytes(packed())

    monkeypatch.setattr(cifar, "fetch", fetch)
    assert len(catalog.load_dataset("cifar10").train.images) == 30
    assert asked == [(cifar.CIFAR10.url, cache / cifar.CIFAR10.file, cifar.CIFAR10.sha256)]
    assert hashlib.sha256(packed()).hexdigest() != cifar.CIFAR10.sha256
