"""Every kind of image file is converted to a few pixel formats, or refused with a reason."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.image_file import Shape, UnreadableError

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (16, 24, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (16, 24), np.uint8)
SHAPE = Shape(16, 24, 3)


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """Return a picture of slow waves in each channel, which looks the same after scaling."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(6 * x * y + 1)]
    return np.round(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


# Kinds of files


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_a_file_of_the_size_keeps_its_pixels(kind: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(
        image_file.read_pixels(stored(Image.fromarray(COLOURS), kind, **options), SHAPE), COLOURS
    )


def test_a_jpeg_is_what_pillow_decodes() -> None:
    content = stored(Image.fromarray(COLOURS), "JPEG")
    np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE), np.asarray(Image.open(io.BytesIO(content))))


def test_grey_stays_grey_or_becomes_three_alike() -> None:
    content = stored(Image.fromarray(GREY))
    np.testing.assert_array_equal(image_file.read_pixels(content, Shape(16, 24, 1))[..., 0], GREY)
    np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE), np.stack([GREY] * 3, -1))


def test_black_and_white_is_0_and_255() -> None:
    content = stored(Image.fromarray(GREY > 99))
    np.testing.assert_array_equal(image_file.read_pixels(content, Shape(16, 24, 1))[..., 0], (GREY > 99) * 255)


def test_16_bit_grey_is_scaled_and_not_cut() -> None:
    deep = RANDOM.integers(0, 65536, (16, 24), np.uint16)
    deep[0, :3] = 0, 65535, 257
    made = image_file.read_pixels(stored(Image.fromarray(deep)), Shape(16, 24, 1))[..., 0]
    np.testing.assert_array_equal(made, np.round(deep / 257))
    assert list(made[0, :3]) == [0, 255, 1]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_16_bit_colours_keep_their_high_byte() -> None:
    """The test builds the file itself, because Pillow cannot write this kind."""
    deep = RANDOM.integers(0, 65536, (16, 24, 3), np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)
    header = struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE), deep >> 8)


def test_what_is_transparent_lies_over_white() -> None:
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[:8], alpha[8] = 0, 128
    made = image_file.read_pixels(stored(Image.fromarray(np.dstack([COLOURS, alpha]))), SHAPE)
    assert (made[:8] == 255).all()
    np.testing.assert_array_equal(made[9:], COLOURS[9:])
    half = COLOURS[8] * (128 / 255) + 127
    np.testing.assert_allclose(made[8], half, atol=1)  # one rounding
    grey = image_file.read_pixels(stored(Image.fromarray(np.dstack([GREY, alpha]), "LA")), Shape(16, 24, 1))
    assert (grey[:8] == 255).all()
    np.testing.assert_array_equal(grey[9:, :, 0], GREY[9:])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparent", [None, 0, bytes([0, 255, 128])])
def test_a_palette_becomes_its_colours(transparent: Any) -> None:
    image = Image.fromarray((GREY % 3).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    content = stored(image, **({} if transparent is None else {"transparency": transparent}))
    wanted = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[GREY % 3]
    if transparent is not None:
        wanted[GREY % 3 == 0] = 255
    seen = GREY % 3 != 2 if isinstance(transparent, bytes) else np.ones_like(GREY, bool)  # entry 2 is half transparent
    np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE)[seen], wanted[seen])


def test_print_colours_become_rgb() -> None:
    made = image_file.read_pixels(stored(Image.new("CMYK", (24, 16), (0, 255, 255, 0)), "JPEG"), SHAPE)
    assert made[..., 0].min() > 200 and made[..., 1:].max() < 60  # red


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_orientation_of_the_camera_is_applied(tmp_path: Path, turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "image"
    path.write_bytes(stored(Image.fromarray(smooth(16, 24)), kind, exif=exif.tobytes(), **{"quality": 95}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    shape = image_file.read_shape(path)
    assert shape == upright.shape and (shape.height > shape.width) == (turn >= 5)
    np.testing.assert_array_equal(image_file.read_pixels(path.read_bytes(), shape), upright)


def test_a_damaged_note_of_the_camera_is_passed_over() -> None:
    content = stored(Image.fromarray(COLOURS), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE), COLOURS)


# Sizes


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(64, 64), (203, 131), (150, 411), (640, 480), (20, 31)])
def test_another_size_is_scaled_and_cut_evenly_in_the_coordinates_of_the_source(
    kind: str, size: tuple[int, int]
) -> None:
    """The result is compared with Pillow's cut of the whole source: mode F, with a box, triangle filter.

    Scaled decoding filters in another way than the triangle does, so the picture is smooth. A shift of the cut by half
    a pixel of the result would still show: the waves have amplitude 120 and at most 7 radians over the longer side.
    """
    source = smooth(*size)
    shape = Shape(24, 20, 3)
    fine = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    made = image_file.read_pixels(stored(Image.fromarray(source), kind, **fine), shape)
    share = max(24 / size[0], 20 / size[1])
    height, width = 24 / share, 20 / share
    box = ((size[1] - width) / 2, (size[0] - height) / 2, (size[1] + width) / 2, (size[0] + height) / 2)
    channels = [Image.fromarray(source[..., channel].astype(np.float32)) for channel in range(3)]
    wanted = np.stack([np.asarray(one.resize((20, 24), Image.Resampling.BILINEAR, box=box)) for one in channels], -1)
    assert np.abs(made - wanted).max() < (2 if kind == "PNG" else 6)  # roundings, and the loss of JPEG itself
    step = np.abs(np.diff(wanted, axis=1)).mean()
    assert np.abs(made - wanted).mean() < 0.2 * step  # shows that the test would notice a shift of a tenth of a pixel


def test_a_large_jpeg_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 32 pixels the decoder gives an eighth of 256. For 33 it gives a quarter, so never less than is needed."""
    content, decoded = stored(Image.fromarray(smooth(256, 256)), "JPEG"), []
    plain = image_file._convert_to_plain_mode

    def spy(image: Image.Image, channels: int) -> Image.Image:
        made = plain(image, channels)
        decoded.append(made.size)
        return made

    monkeypatch.setattr(image_file, "_convert_to_plain_mode", spy)
    for side in (32, 33, 200):
        assert image_file.read_pixels(content, Shape(side, side, 3)).shape == (side, side, 3)
    assert decoded == [(32, 32), (64, 64), (256, 256)]


# Unusable files


KINDS = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "BMP": {}}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_has_a_reason(kind: str, share: float) -> None:
    content = stored(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)), kind, **KINDS[kind])
    with pytest.raises(UnreadableError, match="damaged|no JPEG, PNG, WebP or BMP image"):
        image_file.read_pixels(content[: int(share * len(content))], Shape(32, 32, 3))


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP"])
def test_what_is_no_image_has_a_reason_in_one_line(content: bytes) -> None:
    with pytest.raises(UnreadableError) as told:
        image_file.read_pixels(content, SHAPE)
    assert "\n" not in str(told.value) and "0x" not in str(told.value)
    assert str(told.value) == "empty file" if not content else str(told.value)


def test_another_kind_of_image_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(GREY).save(path, "GIF")
    for read in (lambda: image_file.read_pixels(path.read_bytes(), SHAPE), lambda: image_file.read_shape(path)):
        with pytest.raises(UnreadableError, match="no JPEG, PNG, WebP or BMP image"):
            read()


def test_an_image_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(UnreadableError, match="24x7 pixels: smaller than 8 on a side"):
        image_file.read_pixels(stored(Image.fromarray(COLOURS[:7])), SHAPE)


def test_damage_anywhere_gives_pixels_or_a_reason() -> None:
    """One byte changes. The file gives pixels, or UnreadableError is raised, and nothing else happens."""
    random, refused = np.random.default_rng(1), 0
    for kind in KINDS:
        content = stored(Image.fromarray(COLOURS), kind, **KINDS[kind])
        for place in random.integers(0, len(content), 60):
            damaged = bytearray(content)
            damaged[place] ^= int(random.integers(1, 256))
            try:
                assert image_file.read_pixels(bytes(damaged), SHAPE).shape == SHAPE
            except UnreadableError:
                refused += 1
    assert refused > 10


# Little files with much in them


def write_png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "chunk",
    [
        write_png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**28))),
        write_png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**28))),
        write_png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**28))),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
@pytest.mark.parametrize("before_pixels", [True, False])
def test_a_bomb_in_a_chunk_of_a_png_is_not_unpacked(tmp_path: Path, chunk: bytes, before_pixels: bool) -> None:
    """260 kB that hold 256 MiB: the image is read without it, or refused; memory is not filled."""
    whole = stored(Image.new("RGB", (16, 16), "red"))
    place = 33 if before_pixels else len(whole) - 12  # behind the header, or before the end
    bomb = whole[:place] + chunk + whole[place:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    tracemalloc.start()
    try:
        for read in (
            lambda: image_file.read_pixels(bomb, image_file.Shape(16, 16, 3)),
            lambda: image_file.read_shape(tmp_path / "bomb.png"),
        ):
            with contextlib.suppress(image_file.UnreadableError):
                read()
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + write_png_chunk(b"IHDR", header) + write_png_chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "bomb.png").write_bytes(bomb)
    for read in (
        lambda: image_file.read_pixels(bomb, image_file.Shape(16, 16, 3)),
        lambda: image_file.read_shape(tmp_path / "bomb.png"),
    ):
        with pytest.raises(image_file.UnreadableError, match="has too many pixels: Image size .3600000000 pixels."):
            read()
