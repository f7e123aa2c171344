"""Tests how images of different sizes are made smaller and stored in arrays of one size, with padding.

Such an array is called a canvas, and the part of it that the image fills is called a frame. The sides of a frame have
common limits (bounds).
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lowlevel_simclr import reference
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data import frames, image_file
from lowlevel_simclr.data.image_file import Bounds, Shape

SIDES = st.integers(8, 3000)


def choose(*sizes: tuple[int, int], largest_side: int = 100) -> frames.Frames:
    shapes = np.array([(*size, 3) for size in sizes], np.int64)
    return frames.choose_frames(shapes, shapes[:, 0] >= 8, largest_side)


def encode(height: int, width: int, mode: str = "RGB") -> bytes:
    random, buffer = np.random.default_rng(height), io.BytesIO()
    channels = 3 if mode == "RGB" else 1
    smooth = Image.fromarray(random.integers(0, 256, (4, 5, channels), np.uint8).squeeze())
    smooth.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=30), largest=st.integers(8, 600))
def test_every_frame_is_within_the_bounds_keeps_its_aspect_and_is_never_enlarged(
    sizes: list[tuple[int, int]], largest: int
) -> None:
    found = choose(*sizes, largest_side=largest)
    assert found.bounds.shorter <= largest
    for (height, width), frame in zip(sizes, found.sizes.tolist()):
        assert min(frame) <= found.bounds.shorter and max(frame) <= found.bounds.longer
        assert 1 <= frame[0] <= height and 1 <= frame[1] <= width
        share = min(1, found.bounds.shorter / min(height, width), found.bounds.longer / max(height, width))
        assert abs(frame[0] - max(1, share * height)) <= 0.5 and abs(frame[1] - max(1, share * width)) <= 0.5


def test_a_folder_of_one_aspect_wastes_nothing() -> None:
    """Test that photographs of 4:3 in several resolutions need no padding.

    If one more photograph is upright (3:4), the arrays must have room for both shapes.
    """
    wide = choose(*[(300 * k, 400 * k) for k in range(1, 20)])
    assert frames.find_canvas(wide, np.ones(19, bool), 3) == Shape(100, 133, 3)
    assert np.all(wide.sizes == (100, 133))
    both = choose(*[(300 * k, 400 * k) for k in range(1, 20)], (800, 600))
    assert frames.find_canvas(both, np.ones(20, bool), 3) == Shape(133, 133, 3)


def test_a_few_panoramas_do_not_widen_the_canvas_of_all() -> None:
    found = choose(*[(300, 400)] * 99, (300, 3000))
    assert found.bounds == Bounds(100, 133) and found.sizes[-1].tolist() == [13, 133]


def test_images_too_small_to_use_do_not_count() -> None:
    found = choose((4, 4), (40, 50), (60, 40))
    assert found.bounds == Bounds(40, 60) and found.sizes[0].tolist() == [4, 4]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_frame_holds_the_whole_image_up_to_its_last_pixel(mode: str) -> None:
    """Test that a frame is the whole image after one resize, and that a small image is not enlarged."""
    content, channels = encode(90, 211, mode), 3 if mode == "RGB" else 1
    found = image_file.read_frame(content, Bounds(30, 100), channels)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.resize((70, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected.reshape(30, 70, channels))
    assert image_file.read_frame(content, Bounds(300, 300), channels).shape == (90, 211, channels)


def test_a_canvas_is_the_frame_and_black(tmp_path: object) -> None:
    content, found = encode(40, 50), choose((40, 50), (60, 40))
    canvas = frames.read_canvas(content, Shape(60, 50, 3), found, 0)
    np.testing.assert_array_equal(canvas[:40], image_file.read_frame(content, found.bounds, 3))
    assert not canvas[40:].any()
    with pytest.raises(image_file.UnreadableError, match="its header states another size"):
        frames.read_canvas(content, Shape(60, 50, 3), found, 1)


@pytest.mark.parametrize("size", [(40, 50), (90, 30), (20, 20)])
def test_the_square_is_the_middle_of_the_frame(size: tuple[int, int]) -> None:
    content, bounds = encode(*size), Bounds(30, 60)
    frame = image_file.read_frame(content, bounds, 3)
    square = frames.read_square(content, 30, bounds, 3)
    assert square.shape == (30, 30, 3)
    canvas = np.full((100, 100, 3), 255, np.uint8)
    canvas[: frame.shape[0], : frame.shape[1]] = frame
    np.testing.assert_array_equal(frames.cut_square(canvas, frame.shape[:2], 30), square)
    if min(frame.shape[:2]) == 30:
        top, left = ((side - 30) // 2 for side in frame.shape[:2])
        np.testing.assert_array_equal(square, frame[top : top + 30, left : left + 30])


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (45, 80)])
def test_views_see_the_whole_of_a_photograph(size: tuple[int, int]) -> None:
    """Test that the random crops of training (views) can show every part of a photograph.

    Crops of the square in the middle would show only 3/4 of a 4:3 photograph, and 9/16 of a 16:9 photograph.
    """
    found = choose(size, (80, 80))
    frame = found.sizes[:1]
    shown = {"whole": np.zeros(size, bool), "square": np.zeros(size, bool)}
    side = min(size)
    for epoch in range(200):
        whole = reference.draw_view_params(0, epoch, [0], ViewRecipe(), 80, 80, frame).box
        square = reference.draw_view_params(0, epoch, [0], ViewRecipe(), side, side).box
        for name, boxes, (top, left) in (
            ("whole", whole, (0, 0)),
            ("square", square, ((size[0] - side) // 2, (size[1] - side) // 2)),
        ):
            for y, x, height, width in boxes.tolist():
                shown[name][top + y : top + y + height, left + x : left + x + width] = True
    assert tuple(frame[0]) == size and shown["whole"].mean() > 0.99  # below 1: few crops reach a corner
    assert shown["square"].mean() == side / max(size)
