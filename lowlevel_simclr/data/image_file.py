"""Reads one image file with Pillow, and returns uint8 pixels of a given shape, or within bounds (largest sides).

FORMATS lists the kinds of files.

These rules hold for every file:

- The orientation that a camera wrote (EXIF) is applied.
- Transparent pixels are laid over white. Palettes become colours, and CMYK becomes RGB.
- 16-bit grey is scaled to 8 bits (65535 -> 255, rounded). Of 16-bit colours, Pillow keeps the high bytes. A file of
  floats, or of whole numbers above 65535, raises an error, because such a file does not say which number is white.
- If a file has several pages or frames, the first one is read.
- Text, colour profiles and other notes in a PNG are ignored, even if they are damaged (`png_chunks.py`).
- If a shape is given, an image of another size is scaled until it covers the shape, with its aspect ratio unchanged.
  What sticks out is cut off evenly on both sides. The scaling is bilinear, and antialiased if it makes the image
  smaller.
- If bounds are given, an image keeps its aspect ratio and nothing is cut off. It is reduced until it fits, and never
  enlarged.
- A JPEG that is at least twice as large as needed is reduced while it is decoded (DCT scaling). The same part of the
  image is cut off as without this reduction.
- `resize_pixels.py` scales images. It gives the same pixels as Pillow.
- An image that has the given size keeps its pixels.

The same bytes and shape always give the same pixels, whether a data set is kept in memory or decoded again in every
epoch. Pillow releases Python's global lock while it decodes and resizes, so several threads are faster than one.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import PIL
from PIL import Image

from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.data import png_chunks
from lowlevel_simclr.data.resize_pixels import Box, Size, resize_image
from lowlevel_simclr.runtime.files import open_regular_file, read_regular_file

SMALLEST = 8  # pixels a side; a smaller image has no useful crop
LARGEST_IMAGE_FILE = 2**28  # bytes; a photograph of 100 megapixels takes at most 100 MB as PNG
# Importing these plugins registers them with Pillow before threads open files.
for _form in ("Bmp", "Gif", "Jpeg2K", "Jpeg", "Png", "Ppm", "Tiff", "WebP"):
    importlib.import_module(f"PIL.{_form}ImagePlugin")
FORMATS = {  # the name in Pillow, and the name in messages
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "BMP": "BMP",
    "GIF": "GIF",
    "TIFF": "TIFF",
    "JPEG2000": "JPEG 2000",
    "PPM": "PPM",
}


def _find_extra_formats() -> dict[str, tuple[str, ...]]:
    """Return the kinds of images that only some installations of Pillow read, and the endings of their files.

    Pillow 11.3 and later read AVIF, if they were built with it. The plugin pillow-heif reads HEIC, if it is installed.
    """
    found: dict[str, tuple[str, ...]] = {}
    with contextlib.suppress(ImportError):
        if importlib.import_module("PIL.AvifImagePlugin").SUPPORTED:
            found["AVIF"] = (".avif",)
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        found["HEIF"] = (".heic", ".heif")
    return found


EXTRA_FORMATS = _find_extra_formats()
RULES = 1  # Increase it when a change gives different pixels for the same bytes. Old packed pixels are then not used.
# What decides the pixels of given bytes. Pillow 13 changed the order of the two passes of its resize, and so its bits.
PIXEL_RULES = (RULES, int(PIL.__version__.partition(".")[0]))
# The versions that decide whether a file can be used. If one of them changes, files that could not be used before are
# tried again.
READER = f"rules {RULES}, Pillow {PIL.__version__}: {', '.join((*FORMATS, *EXTRA_FORMATS))}"
LARGEST_IMAGE_PIXELS = 2**29  # 1.6 GB as RGB. Pillow's own limit is a third of this, too few for scans and panoramas
_LARGE = 2**26  # pixels. Larger images are decoded one at a time, so that threads do not fill the memory.
_one_large = threading.Lock()
GREY_MODES = frozenset("1 L LA La I I;16 I;16B I;16L I;16N".split())
DEEP_MODES = frozenset("I I;16 I;16B I;16L I;16N".split())
DEEP_WHITE = 65535  # white in grey of 16 bits
_GREY, _RGB = 0, 2  # colour types in png_chunks.Header
Result = TypeVar("Result")
_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = 5  # from this orientation on, height and width are exchanged
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableError(OneLineError, ValueError):
    """The file is not an image that can be used. The message is the reason, for data.json."""


class Shape(NamedTuple):
    """The shape of pixels as they are stored. `channels` is 1 or 3."""

    height: int
    width: int
    channels: int


class Bounds(NamedTuple):
    """The largest sides of an image that keeps its aspect, in pixels."""

    shorter: int
    longer: int


def fit_sizes(sizes: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Reduce the sizes (n, 2) of images until they are within bounds, and return them, (n, 2) int32.

    Examples:
        >>> fit_sizes(np.array([[300, 400], [90, 60], [30, 900]]), Bounds(60, 90)).tolist()
        [[60, 80], [90, 60], [3, 90]]
    """
    sizes = np.maximum(sizes, 1)
    share = np.minimum(bounds.shorter / sizes.min(axis=1), bounds.longer / sizes.max(axis=1))
    return np.maximum(np.rint(sizes * np.minimum(share, 1.0)[:, None]), 1).astype(np.int32)


def read_content(path: Path) -> bytes:
    """Return the bytes of an image file, for `read_pixels`.

    Raises:
        UnreadableError: if the file cannot be read, is not a regular file, or is larger than LARGEST_IMAGE_FILE.
    """
    try:
        return read_regular_file(path, LARGEST_IMAGE_FILE, "LARGEST_IMAGE_FILE")
    except OSError as error:
        raise UnreadableError(_explain_error(error)) from error


def read_shape(path: Path) -> Shape:
    """Return the shape of the upright image, as the header of a file states it.

    Only the first bytes of the file are read, so a damaged file may have a shape too.

    Raises:
        UnreadableError: if the file cannot be read, is not a regular file, is too large, or is not an image.
    """
    try:
        with open_regular_file(path, LARGEST_IMAGE_FILE, "LARGEST_IMAGE_FILE") as file:
            return _read_header(file)
    except OSError as error:
        raise UnreadableError(_explain_error(error)) from error


def parse_shape(content: bytes) -> Shape:
    """Return the shape of the upright image, as the header of an encoded image states it.

    Args:
        content: the bytes of an image file.

    Raises:
        UnreadableError: if the bytes are empty, or not an image.
    """
    if not content:
        raise UnreadableError("empty file")
    return _read_header(io.BytesIO(content))


def _read_header(file: BinaryIO) -> Shape:
    """Return the shape of the image in an open file, see `read_shape`."""
    try:
        with _open_image(file) as image:
            width, height = image.size
            if _read_orientation(image) >= _SIDEWAYS:
                width, height = height, width
            return Shape(height, width, 1 if image.mode in GREY_MODES else 3)
    except (MemoryError, UnreadableError):
        raise
    except Exception as error:  # Pillow does not document what a damaged file raises
        raise UnreadableError(_explain_error(error)) from error


def _open_image(file: BinaryIO) -> Image.Image:
    """Return the image in a file, before its pixels are decoded.

    `Image.open` is not used, because its limit of pixels is a global variable of the whole process.

    Raises:
        UnreadableError: if the file is not an image of a kind in FORMATS or EXTRA_FORMATS, or has too many pixels.
    """
    prefix = file.read(16)
    file.seek(0)
    if prefix.startswith(png_chunks.SIGNATURE):
        file = io.BytesIO(png_chunks.read_head(file))
    return _open_with_plugins(file, prefix)


@contextlib.contextmanager
def _lift_limit() -> Iterator[None]:
    """Switch off Pillow's limit of pixels inside a `with` block. The image must have at most LARGEST_IMAGE_PIXELS.

    Some plugins of Pillow check this limit again while they decode. The limit is a global variable of the process, so
    only one thread at a time runs such a block.
    """
    with _one_large:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _open_with_plugins(file: BinaryIO, prefix: bytes) -> Image.Image:
    """Open an image file with the plugin of Pillow that accepts its first bytes, see `_open_image`."""
    for name in (*FORMATS, *EXTRA_FORMATS):
        factory, accept = Image.OPEN[name]
        if accept is None or accept(prefix) in (False, None) or isinstance(accept(prefix), str):
            continue  # if `accept` returns a text, Pillow was built without this format
        file.seek(0)
        try:
            try:
                image = factory(file, "")
            except Image.DecompressionBombError:  # without the limit, a WebP still has at most 2^28 pixels
                file.seek(0)
                with _lift_limit():
                    image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # not an image of this kind, as in `Image.open`
            continue
        if image.width * image.height > LARGEST_IMAGE_PIXELS:
            raise UnreadableError(
                f"has too many pixels: {image.width * image.height}, more than LARGEST_IMAGE_PIXELS "
                f"({LARGEST_IMAGE_PIXELS})"
            )
        return image
    *most, last = FORMATS.values()
    raise UnreadableError(f"no {', '.join(most)} or {last} image")


def read_pixels(content: bytes, shape: Shape) -> np.ndarray:
    """Decode the bytes of an image file into pixels of a given shape.

    Args:
        content: the bytes of the file.
        shape: the shape of the pixels to return.

    Returns:
        (height, width, channels) uint8.

    Raises:
        UnreadableError: if the content is empty, damaged, cut off, not an image, or smaller than SMALLEST pixels on a
            side.
    """
    return _decode(content, lambda image: _scale_to_fit(image, shape)).reshape(shape)


def read_frame(content: bytes, bounds: Bounds, channels: int) -> np.ndarray:
    """Decode the bytes of an image file, and keep the aspect ratio of the image.

    Args:
        content: the bytes of the file.
        bounds: the largest allowed sides. A larger image is reduced.
        channels: C, 1 or 3.

    Returns:
        (height, width, C) uint8, of the size that `fit_sizes` gives.

    Raises:
        UnreadableError: see `read_pixels`.
    """

    def scale(image: Image.Image) -> np.ndarray:
        size = image.height, image.width
        upright = size[::-1] if _read_orientation(image) >= _SIDEWAYS else size
        height, width = fit_sizes(np.array([upright]), bounds)[0].tolist()
        return _scale_to_fit(image, Shape(height, width, channels), keep_all=True)

    pixels = _decode(content, scale)
    return pixels.reshape(*pixels.shape[:2], channels)


def scale_pixels(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Return pixels (H, W, C) uint8 scaled to a shape of the same aspect ratio, with the same method as for files."""
    image = Image.fromarray(pixels[..., 0] if shape.channels == 1 else pixels)
    return resize_image(image, Size(shape.height, shape.width), Box(0, 0, *image.size)).reshape(shape)


def check_content(content: bytes) -> None:
    """Check that `read_pixels` can decode the bytes of an image file. This is faster than calling `read_pixels`.

    A JPEG is decoded at an eighth of its size. The decoder finds all damage even so, because it reads all compressed
    data. The pixels are not scaled. For a photograph of 500 x 375 pixels, the check takes a quarter of the time of
    `read_pixels` at 256 x 256.

    Args:
        content: the bytes of the file.

    Raises:
        UnreadableError: see `read_pixels`.
    """

    def check(image: Image.Image) -> Image.Image:
        image.draft(image.mode, (1, 1))
        return _convert_to_plain_mode(image, 1 if image.mode in GREY_MODES else 3)

    _decode(content, check)


def _decode(content: bytes, take: Callable[[Image.Image], Result]) -> Result:
    """Open the image in the bytes of a file, and return `take(image)`. `take` decodes the pixels, see `read_pixels`."""
    if not content:
        raise UnreadableError("empty file")
    try:
        with _open_with_plugins(io.BytesIO(png_chunks.drop_notes(content)), content[:16]) as image:
            if min(image.size) < SMALLEST:
                raise UnreadableError(f"{image.width}x{image.height} pixels: smaller than {SMALLEST} on a side")
            _correct_transparency(image, png_chunks.read_header(content))
            with _lift_limit() if image.width * image.height > _LARGE else contextlib.nullcontext():
                return take(image)
    except (MemoryError, UnreadableError):
        raise
    except Exception as error:  # Pillow does not document what a damaged file raises
        raise UnreadableError(_explain_error(error)) from error


def _explain_error(error: Exception) -> str:
    """Return a few words that say why a file cannot be used. The path is not repeated."""
    if isinstance(error, Image.DecompressionBombError):  # for example, a frame is larger than the image
        return "has too many pixels: " + str(error).partition(",")[0]  # the rest of the message suspects an attack
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged: {' '.join(str(error).split()) or type(error).__name__}"


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation from 1 to 8, or 1 if the file states no valid one."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))  # image.getexif() would decode a whole PNG to find EXIF after its pixels
        value: Any = exif.get(_ORIENTATION, 1)
    except Exception:  # the EXIF data are damaged, but the pixels may be usable
        return 1
    return value if value in _TURNS else 1


def _scale_to_fit(image: Image.Image, shape: Shape, keep_all: bool = False) -> np.ndarray:
    """Decode the image, turn it upright, and return its pixels in the given shape.

    The image is scaled until it covers the shape, and the parts that stick out are cut off. With `keep_all` nothing is
    cut off, and rounding to whole pixels may change the aspect ratio a little.
    """
    turn = _read_orientation(image)
    size = (shape.height, shape.width) if turn >= _SIDEWAYS else (shape.width, shape.height)  # before the turn
    share = max(size[0] / image.size[0], size[1] / image.size[1])
    drafted = None
    if share < 1:
        whole = (math.ceil(image.size[0] * share), math.ceil(image.size[1] * share))
        drafted = image.draft(image.mode, whole)
    extent = drafted[1][2:] if drafted else image.size  # size of the source in decoded pixels; not always whole numbers
    plain = _convert_to_plain_mode(image, shape.channels)
    if plain.size == extent == size:
        return np.asarray(plain.transpose(_TURNS[turn]) if turn in _TURNS else plain)
    box = Box(0, 0, *extent) if keep_all else _cut_to_shape(extent, size)
    pixels = resize_image(plain, Size(size[1], size[0]), box)
    return np.asarray(Image.fromarray(pixels).transpose(_TURNS[turn])) if turn in _TURNS else pixels


def _cut_to_shape(extent: tuple[float, float], size: tuple[int, int]) -> Box:
    """Return the largest centred box in `extent` with the aspect ratio of `size`."""
    share = max(size[0] / extent[0], size[1] / extent[1])
    width, height = min(size[0] / share, extent[0]), min(size[1] / share, extent[1])
    left, top = (extent[0] - width) / 2, (extent[1] - height) / 2
    return Box(left, top, min(left + width, extent[0]), min(top + height, extent[1]))


def _convert_to_plain_mode(image: Image.Image, channels: int) -> Image.Image:
    """Return the image without transparency, in one or three channels of 8 bits."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in DEEP_MODES:
        image = Image.fromarray(_scale_to_8_bits(image))
    elif image.mode == "F":
        raise UnreadableError("has floating-point pixels, and nothing says which number is white")
    elif image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _scale_to_8_bits(image: Image.Image) -> np.ndarray:
    """Return the pixels of a 16-bit grey image as (H, W) uint8. Transparent pixels become white."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > DEEP_WHITE:
        raise UnreadableError(
            f"has whole numbers from {deep.min()} to {deep.max()} as pixels, and only 0 to {DEEP_WHITE} are read"
        )
    scaled = ((deep.astype(np.uint32) * 255 + DEEP_WHITE // 2) // DEEP_WHITE).astype(np.uint8)
    transparent = image.info.get("transparency")
    return scaled if transparent is None else np.where(deep == transparent, np.uint8(255), scaled)


def _correct_transparency(image: Image.Image, header: png_chunks.Header | None) -> None:
    """Convert the transparent colour of a PNG to 8 bits, like the pixels that Pillow returns.

    Pillow scales grey of 2 and 4 bits to the range 0 to 255, and keeps only the high byte of 16-bit colours. But Pillow
    does not convert the transparent colour.
    """
    colour = image.info.get("transparency")
    if header is None or colour is None:
        return
    if header.colours == _GREY and header.bits < 8 and image.mode == "L":
        most = 2**header.bits - 1
        image.info["transparency"] = (colour & most) * (255 // most)
    elif header.colours == _RGB and header.bits == 16:
        image.info["transparency"] = tuple(part >> 8 for part in colour)
