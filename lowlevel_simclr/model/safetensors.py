"""Reads and writes safetensors files. Such a file holds named arrays, and no code.

A file consists of a length (8 bytes, little-endian), a JSON header of that length, and the bytes of the arrays. The
header has the type, the shape and the place of each array. This module reads only the types that encoders need. It does
not use PyTorch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import tensorflow as tf

from lowlevel_simclr.runtime.files import open_regular_file

LARGEST_HEADER = 2**27  # bytes; safetensors itself accepts 100 MB
TYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(tf.bfloat16.as_numpy_dtype),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}


class DamagedFile(ValueError):
    """The file is not a safetensors file that can be read. The message is a clause such as "its header is not JSON"."""


def read_safetensors(path: Path, limit: int, limit_name: str) -> dict[str, np.ndarray]:
    """Return a dict from the name of each array in a file to the array.

    Args:
        path: the file.
        limit: the largest size of the file, in bytes. The arrays together are never larger than the file.
        limit_name: the name of the limit, for the message of an error.

    Raises:
        OSError: if the file cannot be opened, is not a regular file, or is too large.
        DamagedFile: if the file is not a safetensors file, or has an array of a type that is not in TYPES.
    """
    with open_regular_file(path, limit, limit_name) as file:
        size = os.fstat(file.fileno()).st_size
        header, start = _read_header(file, size)
        return {name: _read_array(file, name, entry, start, size) for name, entry in header.items()}


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named float32 arrays into a file, in the given order.

    Raises:
        OSError: if the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # the libraries transformers and timm need this entry
    end = 0
    for name, array in arrays.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the arrays start at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, "<f4").tobytes())


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Return a dict from the name of each array to its entry in the header, and where the bytes of the arrays start."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(LARGEST_HEADER, size - 8):
        raise DamagedFile("its header is longer than the file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise DamagedFile("its header is not JSON") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise DamagedFile("its header is not an object of objects")
    header.pop("__metadata__", None)
    return header, 8 + length


def _read_array(file: BinaryIO, name: str, entry: Mapping[str, Any], start: int, size: int) -> np.ndarray:
    """Return one array."""
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or kind not in TYPES:
        raise DamagedFile(f"its array '{name}' has the type {kind}, which is not one of {', '.join(TYPES)}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise DamagedFile(f"the shape or the place of its array '{name}' is not a list of whole numbers")
    first, end = offsets
    if not first <= end <= size - start or end - first != math.prod(shape) * TYPES[kind].itemsize:
        raise DamagedFile(f"the bytes of its array '{name}' are not those of the shape {shape}")
    file.seek(start + first)
    return np.frombuffer(file.read(end - first), TYPES[kind]).reshape(shape)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    """Return whether a JSON value is a list of whole numbers from 0."""
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
