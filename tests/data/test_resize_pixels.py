"""Tests resizing of 8-bit images in C++ (native): it must give exactly Pillow's pixels.

Also tests in which cases Pillow is used instead.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr.data import resize_pixels
from lowlevel_simclr.data.resize_pixels import Box, Size, resize_by_pillow, resize_image
from lowlevel_simclr.runtime import platform_ops
from tests.support.other_process import output_of

native = pytest.mark.skipif(
    platform.machine() != "x86_64" or not platform_ops.expects_library(), reason="this platform has no native resize"
)
DIGEST = """
from tests.support.digests import digest_resize
print(digest_resize())
"""


def draw_cases(count: int) -> Iterator[tuple[Image.Image, Size, Box]]:
    """Yield random cases: an image (noise, black and white, or one colour), the wanted size, and the box to resize."""
    random = np.random.default_rng(7)
    for case in range(count):
        height, width = random.integers(8, 300, 2).tolist()
        shape = (height, width, 3) if case % 2 else (height, width)
        pixels = random.integers(0, 256, shape, np.uint8)
        pixels = (pixels > 127) * np.uint8(255) if case % 3 == 0 else pixels if case % 3 == 1 else pixels * 0 + 255
        left, top, right, bottom = random.random(4) * (width / 3, height / 3, width / 3, height / 3) * (case % 5 > 0)
        size = Size(*random.integers(1, 260, 2).tolist())
        yield Image.fromarray(pixels.astype(np.uint8)), size, Box(left, top, width - right, height - bottom)


def note_calls(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """Return a list. From now on, each call of the native function adds the wanted size to it."""
    function, calls = resize_pixels._find_function(), []

    def note(pixels: Any, size: Size, box: Box) -> Any:
        calls.append(size)
        return function(pixels, size, box)

    monkeypatch.setattr(resize_pixels, "_find_function", lambda: note)
    return calls


@native
def test_the_pixels_are_those_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = note_calls(monkeypatch)
    for image, size, box in draw_cases(150):
        np.testing.assert_array_equal(
            resize_image(image, size, box), resize_by_pillow(image, size, box), str((size, box))
        )
    assert 80 < len(calls) < 150  # Pillow resizes images that become much less high


@native
@pytest.mark.parametrize("source", [(375, 500), (500, 375), (256, 341), (16, 16), (17, 33), (8, 4000)])
def test_usual_sizes_are_resized_natively(source: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = note_calls(monkeypatch)
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    box = Box(0, 0, source[1], source[0])
    for size in (Size(source[0] // 2, source[1] // 2), Size(source[0] * 5 // 7, source[1] * 5 // 7)):
        image = Image.fromarray(pixels)
        np.testing.assert_array_equal(resize_image(image, size, box), resize_by_pillow(image, size, box))
    assert len(calls) == 2


@native
@pytest.mark.slow  # test_threads_and_instructions.py compares the pixels of the lowest instruction set
@pytest.mark.parametrize("instruction_set", ["avx2", "baseline"])
def test_every_instruction_set_gives_the_same_pixels(instruction_set: str) -> None:
    from tests.support.digests import digest_resize

    assert output_of(DIGEST, LOWLEVEL_SIMCLR_ISA=instruction_set).strip() == digest_resize()


@native
@pytest.mark.parametrize("box", [Box(-1, 0, 20, 20), Box(0, 0, 31, 20), Box(5, 0, 5, 20), Box(0, 9, 20, float("nan"))])
def test_a_box_outside_the_image_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="is not within an image of"):
        resize_image(Image.new("RGB", (30, 20)), Size(4, 4), box)


def test_pillow_resizes_where_the_library_does_not_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    expected = resize_by_pillow(image, Size(20, 25), Box(0, 0, 50, 40))
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"no library")

    def wrong(pixels: Any, size: Size, box: Box) -> Any:
        return np.zeros((*size, pixels.shape[2]), np.uint8)

    for name, value in (("LIBRARY", broken), ("LIBRARY", tmp_path / "none.so"), ("load_function", lambda _: wrong)):
        with monkeypatch.context() as patch:
            patch.setattr(resize_pixels if name == "load_function" else platform_ops, name, value)
            resize_pixels._find_function.cache_clear()
            assert resize_pixels._find_function() is None
            np.testing.assert_array_equal(resize_image(image, Size(20, 25), Box(0, 0, 50, 40)), expected)
    resize_pixels._find_function.cache_clear()


def test_pillow_resizes_on_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    resize_pixels._find_function.cache_clear()
    try:
        assert resize_pixels._find_function() is None
    finally:
        resize_pixels._find_function.cache_clear()


@native
def test_an_array_with_gaps_is_resized_as_its_copy() -> None:
    resize = resize_pixels._find_function()
    assert resize is not None
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)[::2, ::-1]
    size, box = Size(10, 30), Box(0, 0, 60, 20)
    np.testing.assert_array_equal(resize(pixels, size, box), resize(pixels.copy(), size, box))


def test_too_little_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a library that returns 0, which means that it got no memory. The result would be an array of any pixels."""

    class Library:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: 0

    monkeypatch.setattr(resize_pixels.ctypes, "CDLL", lambda library: Library())
    resize = resize_pixels.load_function("library")
    with pytest.raises(MemoryError, match="no memory to resize"):
        resize(np.zeros((4, 4, 3), np.uint8), Size(2, 2), Box(0, 0, 4, 4))
