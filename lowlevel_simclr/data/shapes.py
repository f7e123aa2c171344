"""The built-in data set: ten kinds of shapes, drawn deterministically from a seed.

It is hard to tell the kinds apart from the raw pixels alone. `catalog.py` divides the images into splits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lowlevel_simclr.contract.philox import (
    SHAPE_NOISE,
    SHAPE_PLACE,
    SHAPE_TONE,
    draw_words,
    philox4x32,
    split_seed,
    to_uniform,
)

SIZE = 32  # pixels a side
NOISE = 0.06  # half width of the noise, for pixels in [0, 1]
_BLOCKS_PER_IMAGE = SIZE * SIZE // 4  # a Philox block has four words, and a pixel takes one
_CHUNK = 1000  # images drawn at once; keeps the working memory at tens of MiB

Field = np.ndarray  # (n, S, S) coordinates or signed distances (negative inside), in units of the shape's radius


def _circle(x: Field, y: Field) -> Field:
    return np.hypot(x, y) - 0.85


def _square(x: Field, y: Field) -> Field:
    return np.maximum(abs(x), abs(y)) - 0.75


def _triangle(x: Field, y: Field) -> Field:
    sides = [np.cos(a) * x + np.sin(a) * y for a in 2 * np.pi * np.arange(3) / 3]
    return np.maximum.reduce(sides) - 0.5


def _box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(abs(x) - half_width, abs(y) - half_height)


def _cross(x: Field, y: Field) -> Field:
    return np.minimum(_box(x, y, 1.0, 0.28), _box(x, y, 0.28, 1.0))


def _ring(x: Field, y: Field) -> Field:
    return abs(np.hypot(x, y) - 0.75) - 0.22


def _star(x: Field, y: Field) -> Field:
    """A star with five points.

    By symmetry, the plane is folded onto one tenth of it. In this tenth, the outline is a single straight line.
    """
    tenth = np.pi / 5
    angle = abs((np.arctan2(y, x) + tenth) % (2 * tenth) - tenth)  # 0 on a point's axis, pi/5 between two points
    radius = np.hypot(x, y)
    tip, notch = np.array([1.0, 0.0]), 0.42 * np.array([np.cos(tenth), np.sin(tenth)])
    along = (notch - tip) / np.linalg.norm(notch - tip)
    return (radius * np.cos(angle) - tip[0]) * along[1] - radius * np.sin(angle) * along[0]


def _bar(x: Field, y: Field) -> Field:
    return _box(x, y, 1.0, 0.24)


def _crescent(x: Field, y: Field) -> Field:
    return np.maximum(np.hypot(x, y) - 0.9, 0.75 - np.hypot(x - 0.5, y))


def _two_discs(x: Field, y: Field) -> Field:
    return np.hypot(abs(x) - 0.58, y) - 0.4


def _half_disc(x: Field, y: Field) -> Field:
    return np.maximum(np.hypot(x, y + 0.4) - 0.95, -0.4 - y)


DISTANCE: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
    "bar": _bar,
    "crescent": _crescent,
    "two discs": _two_discs,
    "half disc": _half_disc,
}
CLASSES = tuple(DISTANCE)


def draw_shapes(count: int, seed: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the images `first` to `first + count - 1` of the endless data set that the seed defines.

    Image i depends only on (seed, i), so any part of the data set can be drawn by itself. The kind of shape is i mod
    10. Position, size, rotation, tone (dark on light or light on dark) and a little noise are random.

    Args:
        count: number of images, at least 0.
        seed: seed of the data set, in [0, 2^64).
        first: index of the first image, at least 0.

    Returns:
        Images (count, 32, 32, 3) uint8 and labels (count,) int64.

    Raises:
        ValueError: if `count` is negative.

    Examples:
        >>> images, labels = draw_shapes(2, seed=0)
        >>> images.shape, labels.tolist()
        ((2, 32, 32, 3), [0, 1])
    """
    if count < 0:
        raise ValueError(f"count is {count}. It must be 0 or more.")
    index = np.arange(first, first + count, dtype=np.int64)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part] = _draw_images(index[part], seed)[..., None]  # grey: three equal channels
    return images, index % len(CLASSES)


def _draw_images(index: np.ndarray, seed: int) -> np.ndarray:
    """Return grey images (n, S, S) uint8 for the given indices (n,)."""
    cover = _measure_coverage(index, _draw_uniforms(index, seed, SHAPE_PLACE))  # (n, S, S)
    tone = _draw_uniforms(index, seed, SHAPE_TONE)  # (n, 4)
    dark, light = 0.10 + 0.20 * tone[:, 0], 0.70 + 0.20 * tone[:, 1]
    light_on_dark = tone[:, 2] < 0.5
    ground = np.where(light_on_dark, dark, light)[:, None, None]
    figure = np.where(light_on_dark, light, dark)[:, None, None]
    value = ground + (figure - ground) * cover + _draw_noise(index, seed)
    return np.rint(np.clip(value, 0, 1) * 255).astype(np.uint8)


def _measure_coverage(index: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return how much of each pixel the shape covers, (n, S, S) in [0, 1].

    `place` (n, 4) holds uniform numbers for x, y, size and rotation.
    """
    radius = SIZE * (0.22 + 0.12 * place[:, 2])  # pixels
    room = SIZE / 2 - radius
    centre = SIZE / 2 + (2 * place[:, :2] - 1) * room[:, None]  # (n, 2); the shape stays inside the image
    turn = 2 * np.pi * place[:, 3]
    pixel = np.arange(SIZE) + 0.5
    dx = (pixel[None, None, :] - centre[:, 0, None, None]) / radius[:, None, None]
    dy = (pixel[None, :, None] - centre[:, 1, None, None]) / radius[:, None, None]
    cosine, sine = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    x, y = cosine * dx + sine * dy, cosine * dy - sine * dx  # (n, S, S)
    cover = np.empty_like(x)
    for kind, distance in enumerate(DISTANCE.values()):
        rows = index % len(CLASSES) == kind
        cover[rows] = 0.5 - distance(x[rows], y[rows]) * radius[rows, None, None]  # soft edge, 1 pixel
    return np.clip(cover, 0, 1)


def _draw_uniforms(index: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Draw four uniform numbers in [0, 1) for each image, (n, 4)."""
    return to_uniform(draw_words(seed, 0, index, 0, purpose)).astype(np.float64)


def _draw_noise(index: np.ndarray, seed: int) -> np.ndarray:
    """Draw independent noise for each pixel, (n, S, S), uniform in [-NOISE, NOISE)."""
    counter = np.zeros((len(index), _BLOCKS_PER_IMAGE, 4), np.uint32)
    counter[..., 0] = np.arange(_BLOCKS_PER_IMAGE)
    counter[..., 1] = index[:, None]
    counter[..., 3] = SHAPE_NOISE
    words = philox4x32(counter, split_seed(seed)).reshape(len(index), SIZE, SIZE)
    return (2 * to_uniform(words) - 1) * NOISE
