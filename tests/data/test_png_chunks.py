"""Tests removing the text notes from a PNG file before it is decoded. All other parts (chunks) must stay unchanged."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr.data import png_chunks


def write_chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content) ^ wrong)
    return struct.pack(">I", len(content)) + kind + content + checksum


HEADER = write_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
TRANSPARENT, TURNED = write_chunk(b"tRNS", b"\0\7"), write_chunk(b"eXIf", b"MM\0*")
PIXELS = write_chunk(b"IDAT", b"pixels") + write_chunk(b"IDAT", b"more")
END = write_chunk(b"IEND", b"")
NOTE, SCALE = write_chunk(b"tEXt", b"Comment\0text"), write_chunk(b"gAMA", b"\0\0\0\1")
PLAIN = [HEADER, TRANSPARENT, TURNED, PIXELS, END]


def join(*chunks: bytes) -> bytes:
    return png_chunks.SIGNATURE + b"".join(chunks)


def test_notes_are_dropped_wherever_they_are() -> None:
    noted = join(HEADER, NOTE, TRANSPARENT, SCALE, TURNED, NOTE, PIXELS, NOTE, END)
    assert png_chunks.drop_notes(noted) == join(*PLAIN)


def test_a_file_without_notes_is_not_copied() -> None:
    content = join(*PLAIN)
    assert png_chunks.drop_notes(content) is content
    assert png_chunks.drop_notes(b"GIF89a") == b"GIF89a"


@pytest.mark.parametrize("content", [NOTE[:-5], b"\xff\xff\xff\xfftEXt", b"\0\0\0\0\1\2\3\4\0\0\0\0", b"\0\0"])
def test_what_follows_a_cut_stays_as_it_is(content: bytes) -> None:
    assert png_chunks.drop_notes(join(HEADER, NOTE, PIXELS, content)) == join(HEADER, PIXELS, content)


def test_damaged_notes_of_the_camera_are_dropped() -> None:
    assert png_chunks.drop_notes(join(HEADER, write_chunk(b"eXIf", b"MM", 1), PIXELS)) == join(HEADER, PIXELS)


def test_the_head_ends_at_the_first_pixels() -> None:
    file = io.BytesIO(join(HEADER, NOTE, TRANSPARENT, SCALE, TURNED, PIXELS, END))
    assert png_chunks.read_head(file) == join(HEADER, TRANSPARENT, TURNED, PIXELS[:8])
    assert png_chunks.read_head(io.BytesIO(join(HEADER))) == join(HEADER)
    lie = struct.pack(">I", 2**31) + b"PLTE"
    assert png_chunks.read_head(io.BytesIO(join(HEADER, lie, NOTE))) == join(HEADER, lie)


def test_the_header_says_bits_and_colours() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 9), bool)).save(file, "PNG")
    assert png_chunks.read_header(file.getvalue()) == (1, 0)
    assert png_chunks.read_header(b"GIF89a") is None and png_chunks.read_header(png_chunks.SIGNATURE) is None
