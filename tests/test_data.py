"""data.py: the batches of a step are the same whenever a run resumes, and a file of batches is data, never code."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import data, reference, shapes

REAL = os.environ.get("LOWLEVEL_SIMCLR_CIFAR10")
FILES = (*data.CIFAR10_TRAIN, data.CIFAR10_TEST)


# Batches


def numbered(count: int) -> np.ndarray:
    """Images (count, 2, 3, 1) whose pixels tell which image they are."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 1)).copy()


Row = tuple[int, np.ndarray, np.ndarray]  # epoch, index (N,), images (N, 2, 3, 1)


def stream(count: int, batch_size: int, first: int, last: int, seed: int = 5) -> list[Row]:
    rows = data.batches(numbered(count), batch_size, seed, first, last)
    return [(int(epoch), index.numpy(), images.numpy()) for epoch, index, images in rows]


def test_batches_follow_the_reference_order() -> None:
    count, batch_size, seed = 23, 4, 5  # 5 whole batches an epoch, 3 images in none
    rows = stream(count, batch_size, 0, 12, seed)
    for step, (epoch, index, images) in enumerate(rows):
        assert epoch == step // 5
        place = slice(step % 5 * batch_size, (step % 5 + 1) * batch_size)
        np.testing.assert_array_equal(index, reference.epoch_order(seed, epoch, count)[place])
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


def test_the_seed_changes_the_order() -> None:
    assert (stream(40, 40, 0, 1, seed=1)[0][1] != stream(40, 40, 0, 1, seed=2)[0][1]).any()


def test_shapes_and_types_are_static() -> None:
    rows = data.batches(numbered(23), 4, 0, 0, 1)
    epoch, index, images = rows.element_spec
    assert (epoch.shape, epoch.dtype) == ((), tf.int64)
    assert (index.shape, index.dtype) == ((4,), tf.int64)
    assert (images.shape, images.dtype) == ((4, 2, 3, 1), tf.uint8)


def test_images_are_captured_and_not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a graph is given as an array becomes a constant of it, and a graph holds at most 2 GiB of them."""
    gather, gathered_from = tf.gather, []

    def spy(params: Any, indices: Any) -> tf.Tensor:
        gathered_from.append(params)
        return gather(params, indices)

    monkeypatch.setattr(tf, "gather", spy)
    data.batches(numbered(23), 4, 0, 0, 1)
    assert [isinstance(params, tf.Tensor) for params in gathered_from] == [True]


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_larger_than_the_data_is_refused(batch_size: int) -> None:
    with pytest.raises(data.DataError, match=f"batch size is {batch_size} and there are 23 images .* from 1 to 23"):
        data.batches(numbered(23), batch_size, 0, 0, 1)


@pytest.mark.parametrize("steps", [(3, 2), (-1, 2)])
def test_steps_that_run_backwards_are_refused(steps: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"steps {steps[0]} to {steps[1]} are none"):
        data.batches(numbered(23), 4, 0, *steps)


# The data sets


def test_shapes_are_two_disjoint_splits() -> None:
    images = data.load("shapes", seed=3)
    drawn, labels = shapes.draw(6000, 3)
    np.testing.assert_array_equal(np.concatenate([images.train.images, images.test.images]), drawn)
    np.testing.assert_array_equal(np.concatenate([images.train.labels, images.test.labels]), labels)
    assert (len(images.train.images), len(images.test.images)) == (5000, 1000)
    assert images.classes == shapes.CLASSES


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(data.DataError, match="no data set 'mnist': give one of shapes, cifar10"):
        data.load("mnist")


def batch(seed: int, count: int = 6) -> dict[bytes, Any]:
    """What one file of batches holds."""
    random = np.random.default_rng(seed)
    labels = [int(label) for label in random.integers(0, 10, count)]
    return {b"data": random.integers(0, 256, (count, 3072), np.uint8), b"labels": labels}


def python_2_bytes(content: dict[bytes, Any]) -> bytes:
    """The bytes of the original distribution: Python 2's text, NumPy's old name, flags of a dtype as integers."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    rows = content[b"data"]
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"  # (ndarray, (0,), "b")
    stored = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(b"M" + struct.pack("<H", extent) for extent in rows.shape) + b"\x86"
    array += b"(K\x01" + shape + stored + b"\x89" + text(rows.tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in content[b"labels"]) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


WRITERS: dict[str, Callable[[dict[bytes, Any]], bytes]] = {
    "Python 2": python_2_bytes,
    "protocol 2": lambda content: pickle.dumps(content, protocol=2),
    "protocol 4": lambda content: pickle.dumps(content, protocol=4),
    "text keys": lambda content: pickle.dumps({key.decode(): value for key, value in content.items()}, protocol=4),
    "column-major": lambda content: pickle.dumps({**content, b"data": np.asfortranarray(content[b"data"])}),
    "label array": lambda content: pickle.dumps({**content, b"labels": np.array(content[b"labels"], ">i4")}),
}


def write_batches(folder: Path, write: Callable[[dict[bytes, Any]], bytes] = WRITERS["protocol 4"]) -> Path:
    """The six files with six images each."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(FILES):
        (folder / name).write_bytes(write(batch(seed)))
    return folder


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("inner", ["", data.CIFAR10_FOLDER])
def test_batches_are_read_as_they_were_written(tmp_path: Path, writer: str, inner: str) -> None:
    write_batches(tmp_path / inner, WRITERS[writer])
    images = data.load("cifar10", str(tmp_path))
    pixels = np.concatenate([batch(seed)[b"data"] for seed in range(5)])
    for channel, (row, column) in [(0, (0, 0)), (1, (0, 31)), (2, (31, 7))]:
        stored = pixels[:, channel * 1024 + row * 32 + column]  # channel by channel, row by row
        np.testing.assert_array_equal(images.train.images[:, row, column, channel], stored)
    np.testing.assert_array_equal(images.test.labels, batch(5)[b"labels"])
    assert images.train.images.shape == (30, 32, 32, 3)
    assert (images.train.images.dtype, images.train.labels.dtype) == (np.uint8, np.int64)
    assert images.classes == data.CIFAR10_CLASSES


def test_the_names_of_the_classes_come_from_the_files(tmp_path: Path) -> None:
    names = [f"class {number}".encode() for number in range(10)]
    write_batches(tmp_path)
    (tmp_path / data.CIFAR10_META).write_bytes(pickle.dumps({b"label_names": names}))
    assert data.load("cifar10", str(tmp_path)).classes == tuple(name.decode() for name in names)


# A file of batches is data, never code


class Runs:
    """Pickles as a call."""

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
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, arguments: Any, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_batches(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Runs(call, *arguments)}, protocol=protocol))
    name = name.replace("builtins", "(builtins|__builtin__)")
    with pytest.raises(data.DataError, match=f"data_batch_3 asks for {name}; a batch holds NumPy arrays and nothing"):
        data.load("cifar10", str(tmp_path))
    assert not (tmp_path / "INSTEAD").exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    write_batches(tmp_path, lambda content: pickle.dumps({**content, b"data": np.array([[1], [2]], object)}))
    with pytest.raises(data.DataError, match="data_batch_1 is damaged"):
        data.load("cifar10", str(tmp_path))


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
@pytest.mark.parametrize("writer", ["Python 2", "protocol 4"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, kept: int, writer: str) -> None:
    write_batches(tmp_path, WRITERS[writer])
    path = tmp_path / "data_batch_2"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(data.DataError, match="data_batch_2 is damaged or cut off .*: unpack the archive again"):
        data.load("cifar10", str(tmp_path))


def test_no_damage_ends_in_another_exception(tmp_path: Path) -> None:
    """One byte changed anywhere in what describes the arrays: read, or refused as DataError; never a crash."""
    write_batches(tmp_path)
    path, random = tmp_path / "data_batch_1", np.random.default_rng(0)
    small = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}
    whole = pickle.dumps(small, protocol=4)
    described = [place for place in range(len(whole)) if whole[place] or place < 60]  # the pixels are zeros
    refused = 0
    for place in random.choice(described, 150):
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            data.load("cifar10", str(tmp_path))
        except data.DataError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((6, 3072), np.float32)}, r"float32 \(6, 3072\) as data, not uint8 \(n, 3072\)"),
        ({b"data": np.zeros((6, 1024), np.uint8)}, r"uint8 \(6, 1024\) as data"),
        ({b"data": b"pixels"}, "bytes as data"),
        ({b"data": np.zeros((5, 3072), np.uint8)}, "5 images and 6 labels"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "0 images and 0 labels"),
        ({b"labels": [0, 1, 2, 3, 4, 10]}, "label 10, and there are 10 classes"),
        ({b"labels": [0, 1, 2, 3, 4, -1]}, "label -1, and there are 10 classes"),
        ({b"labels": [0, 1, 2, 3, 4, 1.5]}, "list as labels, not whole numbers"),
        ({b"labels": None}, "NoneType as labels, not whole numbers"),
    ],
)
def test_contents_that_cannot_be_are_refused(tmp_path: Path, change: dict[bytes, Any], message: str) -> None:
    write_batches(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({**batch(5), **change}))
    with pytest.raises(data.DataError, match=f"test_batch h.* {message}"):
        data.load("cifar10", str(tmp_path))


def test_something_else_in_the_file_is_refused(tmp_path: Path) -> None:
    write_batches(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(data.DataError, match="data_batch_1 holds list, not a dictionary"):
        data.load("cifar10", str(tmp_path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_batches(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    (tmp_path / "test_batch").unlink()
    with pytest.raises(data.DataError, match="lacks data_batch_4, test_batch of CIFAR-10: unpack cifar-10-python"):
        data.load("cifar10", str(tmp_path))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match="--data-dir .*/nowhere is no folder: give the one that holds"):
        data.load("cifar10", str(tmp_path / "nowhere"))
    with pytest.raises(data.DataError, match="cifar10 needs --data-dir"):
        data.load("cifar10", None)


@pytest.mark.skipif(REAL is None, reason="LOWLEVEL_SIMCLR_CIFAR10 names no folder with the batches of CIFAR-10")
def test_the_real_images() -> None:
    images = data.load("cifar10", REAL)
    for split, each in ((images.train, 5000), (images.test, 1000)):
        np.testing.assert_array_equal(np.bincount(split.labels), [each] * 10)
        assert split.images.shape == (10 * each, 32, 32, 3)
        # Rows and columns in their place: neighbours in a photograph are alike, in scrambled bytes they are not.
        for axis in (1, 2):
            assert np.abs(np.diff(split.images[:500].astype(int), axis=axis)).mean() < 20
    assert images.classes == data.CIFAR10_CLASSES
