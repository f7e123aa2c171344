"""Reads NumPy archives (.npz), with a check that each member (stored array) really has the size that it states."""

from __future__ import annotations

import math
import zipfile
from typing import BinaryIO

import numpy as np

_ENDING = ".npy"
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(file: BinaryIO, limit: int, limit_name: str) -> dict[str, np.ndarray]:
    """Return every array of an archive. All sizes are checked before anything is unpacked.

    A few bytes of a compressed archive can unpack to any size, and the stated shape of an array can be false. The
    function reads each member to its end, because zipfile checks the checksum only at the end. It ignores members that
    are not arrays.

    Args:
        file: the archive, at its beginning.
        limit: the largest size of all arrays together, in bytes.
        limit_name: the name of that limit, for the message.

    Raises:
        ValueError: if the arrays are larger than the limit, if an array has more or fewer bytes than its shape and type
            need, or if an array holds Python objects.
        Exception: if the archive is damaged. Many types are possible, from zipfile.BadZipFile to zlib.error and
            RuntimeError.
    """
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
        raise ValueError("it is a single array")
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(_ENDING)]
        total = sum(member.file_size for member in members)
        if total > limit:
            raise ValueError(f"its arrays take {total} bytes, more than {limit_name} ({limit} bytes)")
        return {member.filename.removesuffix(_ENDING): _read_member(archive, member) for member in members}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    _check_size(archive, member)
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read()
    return array


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that a member has as many bytes as its shape and type need."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADER_READERS:
            raise ValueError(f"{member.filename} has format {version}, not 1.0 or 2.0")
        shape, _, dtype = _HEADER_READERS[version](stream)
        if dtype.hasobject:
            return  # read_array refuses it
        needed, found = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if needed != found or min(shape, default=0) < 0:
        raise ValueError(f"{member.filename} has {found} bytes, but {dtype} {shape} needs {needed}")
