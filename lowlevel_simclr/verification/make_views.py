"""The test problems (cases) of the views: of their pixels, and of the random parameters that are drawn for them.

Pixels. Every case makes views with the ops, with TensorFlow's own ops (stock) in float32, and with the float64
reference. Each pixel must be within the bound of `verification.bound`. In that bound, scale is the largest factor by
which the colour operations of a view can multiply a small difference, divided by the std of the pixels.

Parameters. Integers and flags must equal those of the reference. Every other number may differ from the reference by at
most two spacings of float32 at the largest number of its range.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr import reference, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams
from lowlevel_simclr.verification.bound import Finding, compare_with_reference
from lowlevel_simclr.verification.mode import MODES, build_for_mode

ROWS = 2 * len(PERMUTATIONS)  # every order twice
MEAN, STD = (0.5, 0.4, 0.3, 0.2), (0.5, 0.6, 0.7, 0.8)
RECIPE = ViewRecipe(blur_probability=0.5, brightness_shift=(-0.25, 0.25))


class ViewCase(NamedTuple):
    """One batch of images, the size of its views, and the mode in which TensorFlow runs the op."""

    rows: str  # what is tested: enlarging, reducing, blur, ...; "drawn" and "frames" check only the parameters
    height: int
    width: int
    size: int
    channels: int = 3
    pixels: str = "uint8"
    dtype: str = "float32"
    mode: str = "eager"


class ViewOps(Protocol):
    """An implementation of the views: the package `ops`, the package `stock`, or any object with the same functions."""

    def make_views(
        self,
        images: tf.Tensor,
        params: ViewParams,
        size: int,
        dtype: tf.DType,
        mean: Sequence[float],
        std: Sequence[float],
        /,
    ) -> tf.Tensor:
        """Return both views of every image, (2N, size, size, C)."""

    def draw_view_params(
        self,
        seed: int,
        epoch: int,
        index: tf.Tensor,
        recipe: ViewRecipe,
        height: int,
        width: int,
        sizes: tf.Tensor | None = None,
        /,
    ) -> ViewParams:
        """Return the parameters of both views of every image.

        `sizes` (N, 2) has the height and width of each image, if not all images have the full height and width.
        """


# ---- Cases ----------------------------------------------------------------------------------------------------------


def list_view_cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[ViewCase]:
    """Yield the cases of the views for the given modes (eager, graph, xla)."""
    yield from (case for case in _list_all_cases() if case.mode in modes)


def _list_all_cases() -> Iterator[ViewCase]:
    yield ViewCase("enlarging", 9, 11, 19)
    yield ViewCase("enlarging", 5, 3, 32)
    yield ViewCase("reducing", 70, 90, 12)
    yield ViewCase("reducing", 33, 150, 1)
    yield ViewCase("one pixel", 1, 1, 7)
    yield ViewCase("blur", 41, 36, 30)
    yield ViewCase("blur", 40, 50, 60)
    for channels in (1, 2, 4):
        yield ViewCase("channels", 13, 17, 20, channels)
    for pixels in ("uint16", "float32"):
        yield ViewCase("pixels", 21, 18, 20, pixels=pixels)
    for mode in MODES:
        for dtype in ("float32", "float16", "bfloat16"):
            yield ViewCase("both ways", 35, 24, 27, dtype=dtype, mode=mode)
        yield ViewCase("drawn", 32, 48, 0, mode=mode)
        yield ViewCase("frames", 32, 48, 0, mode=mode)


def _seed_generator(case: ViewCase) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(case[:6]).encode()))


def make_images(case: ViewCase) -> NDArray[Any]:
    """Return random images (24, H, W, C), with some grey pixels, nearly black pixels and corners of the colour cube."""
    random, shape = _seed_generator(case), (ROWS // 2, case.height, case.width, case.channels)
    pixels, kind = random.integers(0, 256, shape), random.integers(0, 6, (*shape[:3], 1))
    pixels = np.where(kind == 0, pixels[..., :1], pixels)
    pixels = np.where(kind == 1, np.where(pixels < 128, 0, 255), pixels)
    pixels = np.where(kind == 2, np.minimum(pixels, 3), pixels)
    if case.pixels == "float32":
        return (pixels / 255).astype(np.float32)
    return (pixels * (257 if case.pixels == "uint16" else 1)).astype(case.pixels)


def make_sizes(case: ViewCase, count: int) -> NDArray[np.int32]:
    """Return heights and widths of images, (count, 2). The first is 1 x 1, the second as large as the case allows."""
    random = _seed_generator(case)
    sides = [random.integers(1, side + 1, count) for side in (case.height, case.width)]
    sizes = np.stack(sides, axis=1).astype(np.int32)
    sizes[:2] = [[1, 1], [case.height, case.width]]
    return sizes


def make_params(case: ViewCase) -> ViewParams:
    """Return parameters with every order of colour operations twice, and with random boxes, flips and so on.

    A fifth of the views do not clip their colours.
    """
    random, rows, coloured = _seed_generator(case), ROWS, case.channels == 3
    height, width = random.integers(1, case.height + 1, rows), random.integers(1, case.width + 1, rows)
    y, x = random.integers(0, case.height - height + 1), random.integers(0, case.width - width + 1)
    boxes = np.stack([y, x, height, width], axis=1).astype(np.int32)
    boxes[:2] = [[0, 0, case.height, case.width], [case.height - 1, case.width - 1, 1, 1]]

    def draw_number(low: float, high: float, neutral: float, probability: float = 0.9) -> NDArray[np.float32]:
        drawn = random.uniform(low, high, rows)
        return np.where(random.random(rows) < probability, drawn, neutral).astype(np.float32)

    return ViewParams(
        box=boxes,
        flip=random.random(rows) < 0.5,
        brightness=draw_number(0.2, 1.8, 1),
        contrast=draw_number(0.2, 1.8, 1),
        saturation=draw_number(0.2, 1.8, 1, 0.9 * coloured),
        hue=draw_number(-0.5, 0.5, 0, 0.9 * coloured),
        brightness_shift=draw_number(-0.3, 0.3, 0, 0.3),
        order=np.tile(PERMUTATIONS, (2, 1)),
        clip=random.random(rows) < 0.8,
        grey=random.random(rows) < 0.2 * coloured,
        blur_sigma=draw_number(0.1, 2, 0, 0.5),
    )


def measure_amplification(params: ViewParams) -> NDArray[np.float64]:
    """Return the largest factor by which the colour operations can multiply a small difference: (2N,).

    Each operation has a factor f. Brightness multiplies a pixel by f. Contrast multiplies a pixel by f and the mean by
    |1 - f|. Saturation multiplies a pixel by f and its largest channel by |1 - f|. A change of the hue changes the
    middle channel by up to twice as much as the others.
    """
    factors = [np.maximum(1, params.brightness)]
    factors += [np.maximum(1, factor + np.abs(1 - factor)) for factor in (params.contrast, params.saturation)]
    return np.prod(factors, axis=0) * np.where(params.hue != 0, 2.0, 1.0)


# ---- Running and judging --------------------------------------------------------------------------------------------


def judge_views(case: ViewCase, implementation: ViewOps) -> list[Finding]:
    """Compare all quantities of one case with their bounds."""
    alone = case.rows in ("drawn", "frames")
    return _judge_drawn(case, implementation) if alone else [_judge_pixels(case, implementation)]


def _judge_pixels(case: ViewCase, implementation: ViewOps) -> Finding:
    batch, params = make_images(case), make_params(case)
    mean, std = MEAN[: case.channels], STD[: case.channels]
    truth = reference.make_views(batch, params, case.size, mean=mean, std=std)
    plain = None  # if the stock ops are judged: their own errors must not widen the bound
    if implementation is not stock:
        plain = stock.make_views(batch, params, case.size, tf.float32, mean, std).numpy()

    def make(batch: tf.Tensor, params: ViewParams) -> tf.Tensor:
        return implementation.make_views(batch, params, case.size, tf.as_dtype(case.dtype), mean, std)

    made = build_for_mode(make, case.mode)(tf.constant(batch), ViewParams(*map(tf.constant, params))).numpy()
    scale = measure_amplification(params)[:, None, None, None] / np.array(std)
    worst = compare_with_reference(made, truth, plain, scale=scale, accumulation="float32", stored=case.dtype)
    return Finding(case, "views", worst.error, worst.bound)


def _judge_drawn(case: ViewCase, implementation: ViewOps) -> list[Finding]:
    index, inputs = np.arange(600) * 7001, [tf.constant(np.arange(600) * 7001)]
    sizes = make_sizes(case, len(index)) if case.rows == "frames" else None
    truth = reference.draw_view_params(2**63 + 5, 3, index, RECIPE, case.height, case.width, sizes)
    inputs += [] if sizes is None else [tf.constant(sizes)]

    def draw(index: tf.Tensor, *sizes: tf.Tensor) -> ViewParams:
        return implementation.draw_view_params(2**63 + 5, 3, index, RECIPE, case.height, case.width, *sizes)

    drawn = ViewParams(*(field.numpy() for field in build_for_mode(draw, case.mode)(*inputs)))
    wrong, farthest = 0.0, 0.0
    for name, own, true in zip(ViewParams._fields, drawn, truth):
        if true.dtype == np.float32:
            spacing = np.spacing(np.float32(max(abs(bound) for bound in getattr(RECIPE, name))))
            distance = np.abs(own.astype(np.float64) - true) / spacing
            farthest = max(farthest, float(np.max(np.where(np.isnan(distance), np.inf, distance))))
        else:
            wrong += float(np.mean(own != true))
    return [Finding(case, "integers", wrong, 0.0), Finding(case, "numbers", farthest, 2.0)]
