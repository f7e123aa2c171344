"""An npz file: arrays by their names, never a pickle, and one sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import catalog, dataset

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


def test_names_of_classes_may_be_given(tmp_path: Path) -> None:
    assert load(tmp_path, images=X, labels=Y, classes=np.array(["a", "b", "c"])).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "images.npz holds x: give arrays x_train"),
        ({"images": X / 255}, r"images of float64 \(20, 9, 11, 3\): give uint8 pixels from 0 to 255"),
        ({"images": X[0, 0]}, r"images of uint8 \(11, 3\)"),
        ({"images": X[:0]}, r"images of uint8 \(0, 9, 11, 3\)"),
        ({"images": X.transpose(0, 2, 1, 3).repeat(3, -1)}, "with 1 to 4 channels"),
        ({"images": X, "labels": Y[:19]}, r"labels of int64 \(19,\): give 20 whole numbers from 0, one an image"),
        ({"images": X, "labels": Y - 1}, "give 20 whole numbers from 0"),
        ({"images": X, "labels": Y / 2}, "labels of float64"),
        ({"images": X, "labels": np.eye(20, dtype=int)}, r"labels of int64 \(20, 20\)"),
        ({"x_train": X, "x_test": X[:, :8]}, r"\(9, 11, 3\) in x_train and \(8, 11, 3\) in x_test: give one shape"),
        ({"images": X, "labels": Y, "classes": np.array(["a"])}, "give 3 names or more, as text"),
        ({"images": np.array([X, None], object)}, "no npz file of plain arrays .*allow_pickle"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(dataset.DataError, match=message):
        load(tmp_path, **arrays)


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    with pytest.raises(dataset.DataError, match="there is no file .*images.npz: give npz:PATH"):
        catalog.load_dataset(f"npz:{path}")
    for content in (b"", b"text", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(dataset.DataError, match="is no npz file of plain arrays"):
            catalog.load_dataset(f"npz:{path}")
    np.savez(path, images=X)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(dataset.DataError, match="is no npz file of plain arrays"):
        catalog.load_dataset(f"npz:{path}")
    with open(path, "wb") as file:
        np.save(file, X)
    with pytest.raises(dataset.DataError, match="is no npz file of plain arrays .it is a single array"):
        catalog.load_dataset(f"npz:{path}")
