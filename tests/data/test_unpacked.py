"""Tests the temporary file that holds the encoded images of a Parquet file, so that each can be read by itself."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.unpacked import Unpacked


def test_threads_add_and_read_in_any_order() -> None:
    contents = [bytes([row]) * (1 + row * 37 % 500) for row in range(200)]
    unpacked = Unpacked(201)

    def add_and_read(row: int) -> bool:
        unpacked.add(row, contents[row])
        return unpacked.has(row) and unpacked.read(row) == contents[row]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(add_and_read, reversed(range(200))))
    assert [unpacked.read(row) for row in range(200)] == contents
    assert not unpacked.has(200)


def test_an_image_without_bytes_is_known() -> None:
    unpacked = Unpacked(3)
    unpacked.add(1, None)
    unpacked.add(2, b"")
    assert [unpacked.has(row) for row in range(3)] == [False, True, True]
    assert unpacked.read(1) is None and unpacked.read(2) == b""


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    unpacked = Unpacked(2)
    unpacked.add(0, b"one")
    monkeypatch.setattr(unpacked, "_write", refuse)
    with pytest.raises(DataError, match=r"cannot be unpacked in .* \(No space left on device\). Set TMPDIR"):
        unpacked.add(1, b"two")
    assert unpacked.has(0) and not unpacked.has(1)
