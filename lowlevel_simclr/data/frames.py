"""Chooses the size of each stored image, if the images of a data set differ in size. Each keeps its aspect ratio.

The bounds are the largest allowed shorter side and the largest allowed longer side of an image. A larger image is
reduced until both its sides are within the bounds. No image is enlarged. Each image is stored in an array, its canvas,
and all canvases have the same size. The image lies in the upper left corner of its canvas. The rest of the canvas is
black, and no view (random crop) shows this rest. The frame of an image is the part of the canvas that the image covers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.image_file import Bounds, Shape, UnreadableError, fit_sizes

# For this share of the images, only the shorter side decides how much the image is reduced. The remaining images, which
# are the longest, are reduced more. Otherwise a few panoramas would widen the canvas of all images.
UNREDUCED = 0.95


class Frames(NamedTuple):
    """The frame of every image in its canvas."""

    bounds: Bounds
    sizes: NDArray[np.int32]  # (n, 2), height and width in pixels


def choose_frames(shapes: NDArray[np.int64], usable: NDArray[np.bool_], largest_side: int) -> Frames:
    """Choose the bounds and the frames of images.

    The shorter side of a frame is at most the median of the images' shorter sides, and at most `largest_side`. The
    bound of the longer side is chosen so that it reduces only 5 % of the images further.

    Args:
        shapes: (n, 3), the height, width and channels in the header of each file, or 0 if there is no such header.
        usable: (n,), True for the images that the choice is based on, at least one.
        largest_side: limit for the shorter side, in pixels.
    """
    sizes = shapes[usable, :2]
    shorter = min(largest_side, int(np.median(sizes.min(axis=1))))
    longest = fit_sizes(sizes, Bounds(shorter, int(sizes.max()))).max(axis=1)
    bounds = Bounds(shorter, int(np.quantile(longest, UNREDUCED, method="higher")))
    return fit_frames(shapes, bounds)


def fit_frames(shapes: NDArray[np.int64], bounds: Bounds) -> Frames:
    """Return the frames of images with these shapes (n, 3), within bounds that `choose_frames` chose earlier."""
    return Frames(bounds, fit_sizes(shapes[:, :2], bounds))


def find_canvas(frames: Frames, usable: NDArray[np.bool_], channels: int) -> Shape:
    """Return the shape of the smallest array that holds every usable image."""
    height, width = frames.sizes[usable].max(axis=0).tolist()
    return Shape(height, width, channels)


def read_canvas(content: bytes, shape: Shape, frames: Frames | None, row: int) -> NDArray[np.uint8]:
    """Decode the bytes of an image file into an array of the shape in which all images are stored.

    Args:
        content: the bytes of the file.
        shape: the shape of the array to return.
        frames: the frames of all images. None: the image fills the whole array, see `image_file.read_pixels`.
        row: the position of the image in `frames`.

    Returns:
        (height, width, channels) uint8.

    Raises:
        UnreadableError: see `image_file.read_pixels`.
    """
    if frames is None:
        return image_file.read_pixels(content, shape)
    pixels = image_file.read_frame(content, frames.bounds, shape.channels)
    height, width, _ = pixels.shape
    if (height, width) != tuple(frames.sizes[row].tolist()):
        raise UnreadableError("damaged: its header states another size than its pixels have")
    canvas = np.zeros(shape, np.uint8)
    canvas[:height, :width] = pixels
    return canvas


def read_square(content: bytes, side: int, bounds: Bounds, channels: int) -> NDArray[np.uint8]:
    """Decode the bytes of an image file, and return the square in its middle. The evaluation uses these squares.

    Args:
        content: the bytes of the file.
        side: pixels a side.
        bounds: the bounds that the run chose for its images.
        channels: C.

    Returns:
        (side, side, C) uint8.

    Raises:
        UnreadableError: see `image_file.read_pixels`.
    """
    pixels = image_file.read_frame(content, bounds, channels)
    return cut_square(pixels, pixels.shape[:2], side)


def cut_square(canvas: NDArray[np.uint8], size: ArrayLike, side: int) -> NDArray[np.uint8]:
    """Return the largest square in the middle of a frame, scaled to `side` pixels: (H, W, C) -> (side, side, C)."""
    height, width = np.asarray(size).tolist()
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    square = canvas[top : top + least, left : left + least]
    return square if least == side else image_file.scale_pixels(square, Shape(side, side, square.shape[2]))
