"""Tests reading NumPy arrays from .npz files: values are unchanged, and sizes are checked before decompression."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from lowlevel_simclr.runtime.arrays import read_arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_as_they_were_saved(save: Callable[..., None]) -> None:
    file = io.BytesIO()
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array("text"), "c": np.zeros((0, 3), np.int8)}
    save(file, **arrays)
    file.seek(0)
    found = read_arrays(file, 10_000, "LIMIT")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, a=np.zeros(2**26, np.uint8))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"its arrays take 67108992 bytes, more than LIMIT \(1000 bytes\)"):
            read_arrays(file, 1000, "LIMIT")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
