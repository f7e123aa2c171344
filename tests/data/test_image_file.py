"""Tests reading image files (JPEG, PNG, GIF, TIFF, ...) as 8-bit pixels, grey or RGB.

A file that cannot be read must be refused with a reason.
"""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.image_file import Shape, UnreadableError
from lowlevel_simclr.data.image_walk import find_image_files

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (16, 24, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (16, 24), np.uint8)
SHAPE = Shape(16, 24, 3)


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    """Return a picture with one smooth wave in each channel, so that resizing hardly changes its look."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(6 * x * y + 1)]
    return np.round(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


# Kinds of files and pixels


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
    """Test a PNG with 16 bits in each channel. Pillow cannot write one, so the test builds the file itself."""
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
    np.testing.assert_allclose(made[8], half, atol=1)  # one of the two may be rounded up and the other one down
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
    seen = GREY % 3 != 2 if isinstance(transparent, bytes) else np.ones_like(GREY, bool)  # colour 2 is half transparent
    np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE)[seen], wanted[seen])


def test_print_colours_become_rgb() -> None:
    made = image_file.read_pixels(stored(Image.new("CMYK", (24, 16), (0, 255, 255, 0)), "JPEG"), SHAPE)
    assert made[..., 0].min() > 200 and made[..., 1:].max() < 60  # red


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
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
    """Compare the result with Pillow's `resize`, which cuts and scales each channel in floating point (mode F).

    The picture is smooth. A JPEG decoder that makes an image smaller uses another filter than Pillow, and on a smooth
    picture both filters give nearly the same pixels. A cut at a wrong place would still be noticed.
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
    assert np.abs(made - wanted).max() < (
        2 if kind == "PNG" else 6
    )  # with PNG there are only rounding errors; JPEG also loses information
    step = np.abs(np.diff(wanted, axis=1)).mean()
    assert np.abs(made - wanted).mean() < 0.2 * step  # notices a cut that is wrong by a fifth of a pixel


def test_a_large_jpeg_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a JPEG of 256 x 256 pixels, which the decoder can make smaller while it decodes.

    For a result of 32 x 32 pixels, it must divide the sides by 8. For 33 x 33, it must divide them only by 4 (giving
    64), because the decoded image must not be smaller than the result.
    """
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


# Files that cannot be used


KINDS = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
    "JPEG2000": {},
    "PPM": {},
}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_has_a_reason(kind: str, share: float) -> None:
    content = stored(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)), kind, **KINDS[kind])
    with pytest.raises(UnreadableError, match="damaged|no JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000 or PPM image"):
        image_file.read_pixels(content[: int(share * len(content))], Shape(32, 32, 3))


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP"])
def test_what_is_no_image_has_a_reason_in_one_line(content: bytes) -> None:
    with pytest.raises(UnreadableError) as told:
        image_file.read_pixels(content, SHAPE)
    assert "\n" not in str(told.value) and "0x" not in str(told.value)
    assert str(told.value) == "empty file" if not content else str(told.value)


def test_another_kind_of_image_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(GREY).save(path, "PCX")
    for read in (lambda: image_file.read_pixels(path.read_bytes(), SHAPE), lambda: image_file.read_shape(path)):
        with pytest.raises(UnreadableError, match="no JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000 or PPM image"):
            read()


def test_an_image_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(UnreadableError, match="24x7 pixels: smaller than 8 on a side"):
        image_file.read_pixels(stored(Image.fromarray(COLOURS[:7])), SHAPE)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "subsampling": 0}])
def test_a_check_finds_what_decoding_finds(options: dict[str, Any]) -> None:
    """Test that checking a file without keeping its pixels finds the same damage as reading it, in two sizes."""
    generator, found = np.random.default_rng(0), []
    for kind in KINDS:
        sound = stored(Image.fromarray(smooth(200, 150)), kind, **(options if kind == "JPEG" else KINDS[kind]))
        for number in range(40 if kind == "JPEG" else 8):
            content = bytearray(sound[: generator.integers(1, len(sound))] if number % 2 else sound)
            content[generator.integers(len(content))] ^= int(generator.integers(1, 256))
            told = []
            for read in (
                image_file.check_content,
                lambda content: image_file.read_pixels(content, Shape(200, 150, 3)),
                lambda content: image_file.read_pixels(content, Shape(30, 40, 3)),
            ):
                try:
                    read(bytes(content))
                    told.append("")
                except UnreadableError as error:
                    told.append(str(error).partition("(")[0])
            assert told[0] == told[1] == told[2], kind
            found.append(told[0])
    assert "" in found and len(set(found)) > 2


def test_damage_anywhere_gives_pixels_or_a_reason() -> None:
    """Test files with one changed byte at different places. Each file must give pixels or raise UnreadableError."""
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


# Text notes in a PNG


def write_png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


NOTES = {
    "zTXt": write_png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**28))),
    "iTXt": write_png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**28))),
    "iCCP": write_png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**28))),
    "tEXt": write_png_chunk(b"tEXt", b"Comment\0" + b"a" * 3 * 2**20),
    "many": write_png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20))) * 70,
    "wrong checksum": write_png_chunk(b"tEXt", b"Comment\0text")[:-4] + b"oops",
    "EXIF with a wrong checksum": write_png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")[:-4] + b"oops",
}


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("before_pixels", [True, False])
def test_a_note_in_a_png_is_passed_over(tmp_path: Path, note: str, before_pixels: bool) -> None:
    """Test text notes in a PNG that unpack to 256 MiB, or are very long, very many or damaged.

    They must not fill the memory. The image must still be read, although Pillow alone would refuse the whole file.
    """
    whole = stored(Image.fromarray(COLOURS))
    place = 33 if before_pixels else len(whole) - 12  # after the header, or before the last chunk
    noted = whole[:place] + NOTES[note] + whole[place:]
    (tmp_path / "noted.png").write_bytes(noted)
    tracemalloc.start()
    try:
        assert image_file.read_shape(tmp_path / "noted.png") == SHAPE
        np.testing.assert_array_equal(image_file.read_pixels(noted, SHAPE), COLOURS)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


# Other kinds of files


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {}), ("PPM", {})],
)
@pytest.mark.parametrize("grey", [True, False])
def test_other_kinds_keep_their_pixels(tmp_path: Path, kind: str, options: dict[str, Any], grey: bool) -> None:
    pixels = GREY if grey else COLOURS // 64 * 64  # few colours, because a GIF has at most 256
    content = stored(Image.fromarray(pixels), kind, **options)
    (tmp_path / "image").write_bytes(content)
    shape = image_file.read_shape(tmp_path / "image")
    assert shape == (16, 24, 1 if grey and kind != "GIF" else 3)
    wanted = np.broadcast_to(pixels[..., None] if grey else pixels, shape)
    np.testing.assert_array_equal(image_file.read_pixels(content, shape), wanted)


@pytest.mark.skipif("AVIF" not in image_file.EXTRA_FORMATS, reason="this Pillow does not read AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path: Path) -> None:
    """Test the pixels of an AVIF file, transparent pixels (shown over white), and a damaged file."""
    content = stored(Image.fromarray(COLOURS), "AVIF", quality=100, subsampling="4:4:4")
    assert np.abs(image_file.read_pixels(content, SHAPE).astype(int) - COLOURS).max() <= 3
    (tmp_path / "image.avif").write_bytes(content)
    assert image_file.read_shape(tmp_path / "image.avif") == SHAPE
    assert find_image_files(tmp_path).images == ("image.avif",)
    alpha = np.zeros((16, 24, 1), np.uint8)
    assert image_file.read_pixels(stored(Image.fromarray(np.dstack([COLOURS, alpha])), "AVIF"), SHAPE).min() == 255
    with pytest.raises(UnreadableError, match="damaged|no JPEG"):
        image_file.read_pixels(content[: len(content) // 2], SHAPE)


def test_a_plugin_for_heic_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[bool] = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    assert image_file._find_extra_formats()["HEIF"] == (".heic", ".heif") and registered == [True]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # importing it raises ImportError
    assert "HEIF" not in image_file._find_extra_formats()


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "PPM"])
def test_16_bit_grey_of_other_kinds_is_scaled(kind: str) -> None:
    deep = RANDOM.integers(0, 65536, (16, 24), np.uint16)
    content = stored(Image.fromarray(deep), kind)
    made = image_file.read_pixels(content, Shape(16, 24, 1))[..., 0]
    np.testing.assert_array_equal(made, np.round(deep / 257))


def test_of_several_pages_or_frames_the_first_is_read() -> None:
    first, second = Image.fromarray(COLOURS // 64 * 64), Image.new("RGB", (24, 16), "red")
    for kind in ("TIFF", "GIF"):
        content = stored(first, kind, save_all=True, append_images=[second])
        np.testing.assert_array_equal(image_file.read_pixels(content, SHAPE), COLOURS // 64 * 64)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "GIF"])
def test_what_is_transparent_in_other_kinds_lies_over_white(kind: str) -> None:
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[:8] = 0
    made = image_file.read_pixels(stored(Image.fromarray(np.dstack([COLOURS // 2, alpha])), kind), SHAPE)
    assert (made[:8] == 255).all() and made[8:].max() < 128


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (GREY.astype(np.float32), "has floating-point pixels, and nothing says which number is white"),
        (GREY.astype(np.int32) * 1000, "has whole numbers from .* to 25.000 as pixels, and only 0 to 65535 are read"),
    ],
)
def test_numbers_without_a_white_are_refused(pixels: np.ndarray, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        image_file.read_pixels(stored(Image.fromarray(pixels), "TIFF"), SHAPE)


def build_png(bits: int, colours: int, lines: list[bytes], transparent: bytes) -> bytes:
    """Return a PNG with 16 lines of 24 pixels, and with a bit depth or transparency that Pillow does not write."""
    header = struct.pack(">IIBBBBB", 24, 16, bits, colours, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + line for line in lines))
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(write_png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_few_bits_is_the_one_of_the_file(bits: int) -> None:
    most = 2**bits - 1
    values = RANDOM.integers(0, most + 1, (16, 24))
    packed = np.packbits(np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :].reshape(16, -1), 1)
    content = build_png(bits, 0, [line.tobytes() for line in packed], struct.pack(">H", 1))
    made = image_file.read_pixels(content, Shape(16, 24, 1))[..., 0]
    np.testing.assert_array_equal(made, np.where(values == 1, 255, values * 255 // most))


def test_the_transparent_grey_of_16_bits_is_white() -> None:
    values = RANDOM.integers(0, 60000, (16, 24), np.uint16)
    values[::2] = 300
    content = build_png(16, 0, [line.astype(">u2").tobytes() for line in values], struct.pack(">H", 300))
    made = image_file.read_pixels(content, Shape(16, 24, 1))[..., 0]
    assert (made[::2] == 255).all() and made[1::2].max() < 240


def test_the_transparent_colour_of_16_bits_is_white() -> None:
    values = RANDOM.integers(0, 2**15, (16, 24, 3), np.uint16)
    values[::2] = 40000, 300, 50000
    content = build_png(16, 2, [line.astype(">u2").tobytes() for line in values], struct.pack(">HHH", *values[0, 0]))
    made = image_file.read_pixels(content, SHAPE)
    assert (made[::2] == 255).all()
    np.testing.assert_array_equal(made[1::2], values[1::2] >> 8)


# Images of many pixels


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "PPM", "JPEG2000", "BMP", "WEBP", "GIF"])
def test_a_sound_image_of_many_pixels_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Test an image with more pixels than Pillow allows: 2 * MAX_IMAGE_PIXELS, which the test sets to 200."""
    content = stored(Image.fromarray(COLOURS), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(image_file, "_LARGE", 100)  # images with more pixels are decoded one at a time
    (tmp_path / "image").write_bytes(content)
    assert image_file.read_shape(tmp_path / "image") == SHAPE
    assert image_file.read_pixels(content, SHAPE).shape == SHAPE
    assert not image_file._one_large.locked() and Image.MAX_IMAGE_PIXELS == 100


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + write_png_chunk(b"IHDR", header) + write_png_chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "bomb.png").write_bytes(bomb)
    for read in (
        lambda: image_file.read_pixels(bomb, image_file.Shape(16, 16, 3)),
        lambda: image_file.read_shape(tmp_path / "bomb.png"),
    ):
        with pytest.raises(image_file.UnreadableError, match="pixels: 3600000000, more than LARGEST_IMAGE_PIXELS"):
            read()
