"""What `check` asks of the views: their pixels, and the parameters they are drawn with.

Pixels. Every case makes views with the ops, with the stock form in float32 and with the float64 reference, and asks
for

    |ops - reference|  <=  2 E + 8 eps scale   (+ half a spacing of the views' own type)

E is the stock form's worst error over the case in units of scale. scale is by how much the colour operations of a view
multiply small differences at most, over the std that pixels are divided by.

Parameters. Integers and flags are those of the reference, numbers within two units in the last place of their range.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr import reference, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams

FACTOR, SLACK, EPSILON = 2, 8, 2.0**-23
ROUNDING = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # to the views' own type; float32's is in E
SMALLEST_NORMAL = {"float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
ROWS = 2 * len(PERMUTATIONS)  # every order twice
MEAN, STD = (0.5, 0.4, 0.3, 0.2), (0.5, 0.6, 0.7, 0.8)
RECIPE = ViewRecipe(blur_probability=0.5, brightness_shift=(-0.25, 0.25))
Implementation = ModuleType | SimpleNamespace


class ViewCase(NamedTuple):
    """One batch of images and the size of their views, and the way it is run."""

    rows: str  # what is special: enlarging, reducing, blur, ...; or "drawn", the parameters alone
    height: int
    width: int
    size: int
    channels: int = 3
    pixels: str = "uint8"
    dtype: str = "float32"
    mode: str = "eager"


class Measured(NamedTuple):
    """One quantity of a case: its worst error and the bound there."""

    quantity: str
    error: float
    bound: float


# ---- Cases ----------------------------------------------------------------------------------------------------------


def list_view_cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[ViewCase]:
    """Every case of the views, for the given modes (eager, graph, xla)."""
    yield from (case for case in _all_view_cases() if case.mode in modes)


def _all_view_cases() -> Iterator[ViewCase]:
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
    for mode in ("eager", "graph", "xla"):
        for dtype in ("float32", "float16", "bfloat16"):
            yield ViewCase("both ways", 35, 24, 27, dtype=dtype, mode=mode)
        yield ViewCase("drawn", 32, 48, 0, mode=mode)


def _draw_params(case: ViewCase) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(case[:6]).encode()))


def make_images(case: ViewCase) -> NDArray[Any]:
    """(24, H, W, C): noise with grey pixels, corners of the colour cube and near black."""
    random, shape = _draw_params(case), (ROWS // 2, case.height, case.width, case.channels)
    pixels, kind = random.integers(0, 256, shape), random.integers(0, 6, (*shape[:3], 1))
    pixels = np.where(kind == 0, pixels[..., :1], pixels)
    pixels = np.where(kind == 1, np.where(pixels < 128, 0, 255), pixels)
    pixels = np.where(kind == 2, np.minimum(pixels, 3), pixels)
    if case.pixels == "float32":
        return (pixels / 255).astype(np.float32)
    return (pixels * (257 if case.pixels == "uint16" else 1)).astype(case.pixels)


def make_params(case: ViewCase) -> ViewParams:
    """Every order twice, boxes of every size and place, every switch; a fifth of the views does not clip."""
    random, rows, coloured = _draw_params(case), ROWS, case.channels == 3
    height, width = random.integers(1, case.height + 1, rows), random.integers(1, case.width + 1, rows)
    y, x = random.integers(0, case.height - height + 1), random.integers(0, case.width - width + 1)
    boxes = np.stack([y, x, height, width], axis=1).astype(np.int32)
    boxes[:2] = [[0, 0, case.height, case.width], [case.height - 1, case.width - 1, 1, 1]]

    def number(low: float, high: float, neutral: float, probability: float = 0.9) -> NDArray[np.float32]:
        drawn = random.uniform(low, high, rows)
        return np.where(random.random(rows) < probability, drawn, neutral).astype(np.float32)

    return ViewParams(
        box=boxes,
        flip=random.random(rows) < 0.5,
        brightness=number(0.2, 1.8, 1),
        contrast=number(0.2, 1.8, 1),
        saturation=number(0.2, 1.8, 1, 0.9 * coloured),
        hue=number(-0.5, 0.5, 0, 0.9 * coloured),
        brightness_shift=number(-0.3, 0.3, 0, 0.3),
        order=np.tile(PERMUTATIONS, (2, 1)),
        clip=random.random(rows) < 0.8,
        grey=random.random(rows) < 0.2 * coloured,
        blur_sigma=number(0.1, 2, 0, 0.5),
    )


def measure_amplification(params: ViewParams) -> NDArray[np.float64]:
    """By how much the colour operations multiply small differences at most: (2N,).

    Brightness by f; contrast moves a pixel by f and its mean by |1 - f|; saturation a pixel by f and the value by
    |1 - f|; a turn of the hue moves the middle channel by up to twice what the others move.
    """
    factors = [np.maximum(1, params.brightness)]
    factors += [np.maximum(1, factor + np.abs(1 - factor)) for factor in (params.contrast, params.saturation)]
    return np.prod(factors, axis=0) * np.where(params.hue != 0, 2.0, 1.0)


# ---- Running and judging --------------------------------------------------------------------------------------------


def judge_views(case: ViewCase, implementation: Implementation) -> list[Measured]:
    """The quantities of one case, measured against their bounds."""
    return _judge_drawn(case, implementation) if case.rows == "drawn" else _judge_pixels(case, implementation)


def _judge_pixels(case: ViewCase, implementation: Implementation) -> list[Measured]:
    batch, params = make_images(case), make_params(case)
    mean, std = MEAN[: case.channels], STD[: case.channels]
    truth = reference.make_views(batch, params, case.size, mean=mean, std=std)
    plain = stock.make_views(batch, params, case.size, tf.float32, mean, std).numpy()

    def make(batch: tf.Tensor, params: ViewParams) -> tf.Tensor:
        return implementation.make_views(batch, params, case.size, tf.as_dtype(case.dtype), mean, std)

    tensors = ViewParams(*map(tf.constant, params))
    made = tf.cast(run_in_mode(case.mode, make)(tf.constant(batch), tensors), tf.float64).numpy()
    scale = measure_amplification(params)[:, None, None, None] / np.array(std)
    worst = float(np.max(np.abs(plain - truth) / scale))
    bound = FACTOR * worst + SLACK * EPSILON
    reach = np.maximum(np.abs(truth), SMALLEST_NORMAL[case.dtype])
    bounds = bound + ROUNDING[case.dtype] * (reach / scale + bound)
    error = np.abs(made - truth) / scale
    error = np.where(np.isnan(error), np.inf, error)
    at = np.unravel_index(int(np.argmax(error / bounds)), error.shape)
    return [Measured("views", float(error[at]), float(bounds[at]))]


def _judge_drawn(case: ViewCase, implementation: Implementation) -> list[Measured]:
    index = np.arange(600) * 7001
    truth = reference.draw_view_params(2**63 + 5, 3, index, RECIPE, case.height, case.width)

    def draw(index: tf.Tensor) -> ViewParams:
        return implementation.draw_view_params(2**63 + 5, 3, index, RECIPE, case.height, case.width)

    drawn = ViewParams(*(field.numpy() for field in run_in_mode(case.mode, draw)(tf.constant(index))))
    wrong, farthest = 0.0, 0.0
    for name, own, true in zip(ViewParams._fields, drawn, truth):
        if true.dtype == np.float32:
            spacing = np.spacing(np.float32(max(abs(bound) for bound in getattr(RECIPE, name))))
            distance = np.abs(own.astype(np.float64) - true) / spacing
            farthest = max(farthest, float(np.max(np.where(np.isnan(distance), np.inf, distance))))
        else:
            wrong += float(np.mean(own != true))
    return [Measured("integers", wrong, 0.0), Measured("numbers", farthest, 2.0)]


def run_in_mode(mode: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute` eagerly, or traced on first use."""
    return compute if mode == "eager" else tf.function(compute, jit_compile=mode == "xla")
