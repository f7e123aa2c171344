"""Drops the notes of a PNG file before Pillow reads it. Notes are chunks (parts of the file) that pixels do not need.

Pillow rejects a whole file if a text or a colour profile is larger than 1 MiB or has a wrong checksum, even if the
pixels are not damaged. This package does not use texts and colour profiles.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD, _CHECK = 8, 4  # bytes before and after the content of a chunk
_WANTED = (b"tRNS", b"eXIf")  # optional chunks that are kept: transparency, and the orientation of the camera
_LARGEST_HEADER = 2**20  # bytes of a chunk before the pixels; the largest valid one is EXIF with 64 KiB
_ANCILLARY = 0x20  # this bit of the first letter of a chunk's name says that the chunk is optional


class Header(NamedTuple):
    """The content of the first chunk. `colours` is 0 for grey, 2 for RGB, 3 for a palette, 4 and 6 with alpha."""

    bits: int
    colours: int


def read_header(content: bytes) -> Header | None:
    """Return the header of a PNG file, or None if the bytes are not a PNG file."""
    whole = content.startswith(SIGNATURE) and len(content) > 25
    return Header(content[24], content[25]) if whole else None


def drop_notes(content: bytes) -> bytes:
    """Return a PNG file without its notes. Other files, and the incomplete end of a truncated file, do not change."""
    if not content.startswith(SIGNATURE):
        return content
    kept, start, place = [], 0, len(SIGNATURE)  # `start`: where the next piece to keep begins
    view = memoryview(content)
    while place + _HEAD <= len(content):
        end = place + _HEAD + int.from_bytes(content[place : place + 4], "big") + _CHECK
        kind = content[place + 4 : place + 8]
        if end > len(content) or not kind.isalpha():
            break
        if _is_dropped(kind, view[place + 4 : end - _CHECK], view[end - _CHECK : end]):
            kept.append(view[start:place])
            start = end
        place = end
    return b"".join([*kept, view[start:]]) if kept else content


def read_head(file: BinaryIO) -> bytes:
    """Return the beginning of a PNG file, up to the length and name of the first chunk with pixels, without the notes.

    Args:
        file: the file, at its beginning. Notes are skipped and not read.
    """
    parts = [file.read(len(SIGNATURE))]
    while len(head := file.read(_HEAD)) == _HEAD:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IDAT" or not kind.isalpha() or (_is_needed(kind) and length > _LARGEST_HEADER):
            return b"".join([*parts, head])
        if not _is_needed(kind):
            file.seek(length + _CHECK, 1)
            continue
        body = file.read(length + _CHECK)
        if not _is_dropped(kind, kind + body[:length], body[length:]):
            parts += [head, body]
    return b"".join([*parts, head])


def _is_needed(kind: bytes) -> bool:
    return kind in _WANTED or not kind[0] & _ANCILLARY


def _is_dropped(kind: bytes, checked: bytes | memoryview, checksum: bytes | memoryview) -> bool:
    """Return whether to drop a chunk: a note, or EXIF data (of the camera) with a wrong checksum."""
    damaged = kind == b"eXIf" and zlib.crc32(checked) != int.from_bytes(checksum, "big")
    return damaged or not _is_needed(kind)
