"""Tests NumPy .npz files as data sets: names and types of the arrays, and errors for damaged or malicious files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import catalog, dataset, npz
from tests.support.odd_files import make_odd_files

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.integers(0, 256, (20, 9, 11, 3), np.uint8), np.arange(20) % 3


def load(folder: Path, seed: int = 0, **arrays: Any) -> dataset.DataSet:
    np.savez(folder / "images.npz", **arrays)
    return catalog.load_dataset("npz:images.npz", str(folder), seed)


def test_four_arrays_are_two_splits(tmp_path: Path) -> None:
    images = load(tmp_path, x_train=X, y_train=Y[:, None], x_test=X[:5], y_test=Y[:5].astype(np.uint8))
    np.testing.assert_array_equal(images.train.images, X)
    np.testing.assert_array_equal(images.train.labels, Y)
    np.testing.assert_array_equal(images.test.labels, Y[:5])
    assert images.test.images.shape == (5, 9, 11, 3) and images.train.labels.dtype == np.int64
    assert images.classes == ("0", "1", "2")


def test_without_a_test_split_a_tenth_is_held_out_by_the_seed(tmp_path: Path) -> None:
    first, again, other = (load(tmp_path, seed, images=X, labels=Y) for seed in (0, 0, 1))
    assert (len(first.train.images), len(first.test.images)) == (18, 2)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert (first.test.images != other.test.images).any()
    both = np.concatenate([first.train.images, first.test.images]).reshape(20, -1)
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(X.reshape(20, -1), axis=0))


def test_grey_images_have_one_channel_and_no_labels_are_minus_one(tmp_path: Path) -> None:
    images = load(tmp_path, x_train=X[..., 0], x_test=X[:2, ..., 0])
    assert images.train.images.shape == (20, 9, 11, 1)
    assert set(images.train.labels) == set(images.test.labels) == {-1} and images.classes == ()


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_labels_may_be_ids(tmp_path: Path, kind: type[np.integer[Any]]) -> None:
    """Test that any whole numbers can be labels. Only the numbers that occur may become classes.

    In an earlier version, a single label 1234567 created 1234567 names of classes.
    """
    ids = np.array([3, 47219, 1234567 if kind is np.int64 else 2**64 - 1], kind)
    images = load(tmp_path, x_train=X, y_train=ids[Y], x_test=X[:4], y_test=np.array([3, 3, 9, 9], np.uint8))
    assert images.classes == ("3", "9", "47219", str(ids[2]))
    np.testing.assert_array_equal(images.train.labels, np.array([0, 2, 3])[Y])
    assert list(images.test.labels) == [0, 0, 1, 1] and images.train.labels.dtype == np.int64


def test_names_of_classes_may_be_given(tmp_path: Path) -> None:
    assert load(tmp_path, images=X, labels=Y, classes=np.array(["a", "b", "c"])).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "images.npz has the arrays x. It needs x_train"),
        ({"images": X / 255}, r"images in .* is float64 \(20, 9, 11, 3\). It must be uint8 pixels from"),
        ({"images": X[0, 0]}, r"images in .* is uint8 \(11, 3\)"),
        ({"images": X[:0]}, r"images in .* is uint8 \(0, 9, 11, 3\), so it has no pixels"),
        ({"images": X.transpose(0, 2, 1, 3).repeat(3, -1)}, "with 1 to 4 channels"),
        ({"images": X, "labels": Y[:19]}, r"labels in .* is int64 \(19,\), .* must be 20 whole numbers from 0, one"),
        ({"images": X, "labels": Y - 1}, "smallest number is -1. It must be 20 whole numbers from 0"),
        ({"images": X, "labels": Y + 2**62, "classes": np.array(["a"])}, "must be at least 4611686018427387907 names"),
        ({"images": X, "labels": Y / 2}, "labels in .* is float64"),
        ({"images": X, "labels": np.eye(20, dtype=int)}, r"labels in .* is int64 \(20, 20\)"),
        ({"x_train": X, "x_test": X[:, :8]}, r"\(9, 11, 3\) in x_train and \(8, 11, 3\) in x_test. Both must"),
        ({"images": X, "labels": Y, "classes": np.array(["a"])}, "must be at least 3 names as text"),
        ({"images": np.array([X, None], object)}, "not an npz file of plain arrays .*allow_pickle"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(dataset.DataError, match=message):
        load(tmp_path, **arrays)


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    with pytest.raises(dataset.DataError, match="The file .*images.npz does not exist. Use --dataset npz:PATH"):
        catalog.load_dataset(f"npz:{path}")
    for content in (b"", b"text", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(dataset.DataError, match="is not an npz file of plain arrays"):
            catalog.load_dataset(f"npz:{path}")
    np.savez(path, images=X)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(dataset.DataError, match="is not an npz file of plain arrays"):
        catalog.load_dataset(f"npz:{path}")
    with open(path, "wb") as file:
        np.save(file, X)
    with pytest.raises(dataset.DataError, match="is not an npz file of plain arrays .it is a single array"):
        catalog.load_dataset(f"npz:{path}")


# Damaged and malicious files


def test_a_flipped_bit_is_a_sentence_or_changes_nothing(tmp_path: Path) -> None:
    path, random = tmp_path / "images.npz", np.random.default_rng(1)
    np.savez_compressed(path, images=X[:4], labels=Y[:4])
    whole = path.read_bytes()
    for place in random.choice(len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = catalog.load_dataset(f"npz:{path}")
        except dataset.DataError:
            continue
        pixels = np.concatenate([found.test.images, found.train.images])
        assert {image.tobytes() for image in pixels} == {image.tobytes() for image in X[:4]}, place


def test_an_encrypted_archive_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, images=X)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the encryption flag in the first file's header; the next line sets it in the zip directory
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(dataset.DataError, match="is not an npz file of plain arrays .*encrypted.*. Write it with"):
        catalog.load_dataset(f"npz:{path}")


def test_arrays_that_do_not_fit_into_memory_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test a zip bomb: an npz file whose arrays are a thousand times as large as the file."""
    path = tmp_path / "images.npz"
    np.savez_compressed(path, images=np.zeros((100, 100, 100, 3), np.uint8))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(npz, "find_available_memory", lambda: 10**6)
    with pytest.raises(dataset.DataError, match=r"its arrays take 30\d{5} bytes, more than the available memory"):
        catalog.load_dataset(f"npz:{path}")


@pytest.mark.parametrize(
    "shape", [b"(20, 9, 11, 4)", b"(9999999999, 9, 11, 3)", b"(19, 9, 11, 3)", b"(-20, 9, 11, -3)"]
)
def test_an_array_of_another_size_than_its_shape_is_refused(tmp_path: Path, shape: bytes) -> None:
    path = tmp_path / "images.npz"
    stored = io.BytesIO()
    np.save(stored, X)
    lie = stored.getvalue().replace(b"(20, 9, 11, 3), }".ljust(30), (shape + b", }").ljust(30))
    assert len(lie) == len(stored.getvalue())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", lie)
    with pytest.raises(dataset.DataError, match="images.npy has 5940 bytes, but uint8"):
        catalog.load_dataset(f"npz:{path}")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    for name, reason in make_odd_files(tmp_path, ".npz").items():
        with pytest.raises(dataset.DataError, match=f"{name} is not an npz file of plain arrays .{reason}"):
            catalog.load_dataset(f"npz:{tmp_path / name}")


def test_members_that_are_no_arrays_are_ignored(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=X)
    with zipfile.ZipFile(tmp_path / "images.npz", "a") as archive:
        archive.writestr("LICENSE", "free")
    assert len(catalog.load_dataset(f"npz:{tmp_path / 'images.npz'}").train.images) == 18
