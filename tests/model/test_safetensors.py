"""Tests reading safetensors files without the library safetensors: equal arrays, and an error for a wrong header."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.model import safetensors

LIMIT = (2**20, "LIMIT")
ARRAYS = {"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5])}


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_arrays_come_back(tmp_path: Path) -> None:
    safetensors.write_safetensors(tmp_path / "f.safetensors", ARRAYS)
    found = safetensors.read_safetensors(tmp_path / "f.safetensors", *LIMIT)
    assert list(found) == list(ARRAYS)
    assert all(np.array_equal(found[name], ARRAYS[name]) and found[name].dtype == np.float32 for name in ARRAYS)


def test_its_own_library_reads_and_writes_the_same(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="pip install safetensors")
    safetensors.write_safetensors(tmp_path / "ours.safetensors", ARRAYS)
    theirs = library.load_file(tmp_path / "ours.safetensors")
    assert all(np.array_equal(theirs[name], ARRAYS[name]) for name in ARRAYS)
    mixed = {**ARRAYS, "h": np.float16([0.5, 2]), "n": np.int64([7])}
    library.save_file(mixed, tmp_path / "theirs.safetensors")
    found = safetensors.read_safetensors(tmp_path / "theirs.safetensors", *LIMIT)
    assert all(np.array_equal(found[name], mixed[name]) and found[name].dtype == mixed[name].dtype for name in mixed)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    path = write_raw(tmp_path / "f", {"a": entry}, bytes([0x80, 0x3F, 0x00, 0xC0]))
    assert safetensors.read_safetensors(path, *LIMIT)["a"].astype(np.float32).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "are not those of the shape"),
        ({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}, "are not those of the shape"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "are not those of the shape"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "not a list of whole numbers"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "not a list of whole numbers"),
        ({"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}, "not a list of whole numbers"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "not a list of whole numbers"),
        ({"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}, "has the type Q4"),
        ({"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}, "has the type"),
        ("text", "not an object of objects"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(entry: object, words: str, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "f", {"a": entry}, bytes(4))
    with pytest.raises(safetensors.DamagedFile, match=words):
        safetensors.read_safetensors(path, *LIMIT)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"{", b"\x02" + bytes(7) + b"[]"])
def test_a_header_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(safetensors.DamagedFile, match="its header is"):
        safetensors.read_safetensors(tmp_path / "f", *LIMIT)
    write_raw(tmp_path / "deep", b"[" * 100_000)
    with pytest.raises(safetensors.DamagedFile, match="its header is not JSON"):
        safetensors.read_safetensors(tmp_path / "deep", *LIMIT)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        file.truncate(2**21)
    with pytest.raises(OSError, match="more than LIMIT"):
        safetensors.read_safetensors(tmp_path / "f", *LIMIT)
