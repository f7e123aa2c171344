"""Images and parameters for tests of image augmentation.

They cover all cases of the conversion to HSV, all orders of the colour operations, and all kinds of crop box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import settings
from hypothesis import strategies as st

from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams

CASES = settings(max_examples=40, deadline=None, derandomize=True, database=None)

NEUTRAL = {
    "flip": False,
    "brightness": np.float32(1),
    "contrast": np.float32(1),
    "saturation": np.float32(1),
    "hue": np.float32(0),
    "brightness_shift": np.float32(0),
    "order": np.int32([0, 1, 2, 3]),
    "clip": True,
    "grey": False,
    "blur_sigma": np.float32(0),
}

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)


def params_of(rows: int, **given: Any) -> ViewParams:
    """Return the parameters of `rows` views. Each argument is one value for all rows, or one value for each row.

    `box` must be given. The default of every other parameter does not change the image.
    """
    fields = {}
    for name in ViewParams._fields:
        neutral = NEUTRAL.get(name, np.zeros(4, np.int32))
        values = np.asarray(given.get(name, neutral), np.asarray(neutral).dtype)
        fields[name] = np.array(np.broadcast_to(values, (rows, *np.shape(neutral))))
    return ViewParams(**fields)


def images_of(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return images of noise, with areas of one colour, and with grey, black, white and pure colours.

    So every case of the conversion to HSV occurs.
    """
    random = np.random.default_rng([seed, height, width])
    images = random.integers(0, 256, (count, height, width, channels))
    kind = random.integers(0, 6, (count, height, width, 1))
    images = np.where(kind == 0, images[..., :1], images)  # grey
    images = np.where(kind == 1, np.where(images < 128, 0, 255), images)  # black, white and pure colours
    images = np.where(kind == 2, np.minimum(images, 3), images)  # nearly black
    return images.astype(np.uint8)


def whole(images: np.ndarray) -> list[int]:
    """Return the box that contains a whole image."""
    return [0, 0, *images.shape[1:3]]


def boxes_in(random: np.random.Generator, rows: int, height: int, width: int) -> np.ndarray:
    """Return random boxes of every size and place, (rows, 4)."""
    h, w = random.integers(1, height + 1, rows), random.integers(1, width + 1, rows)
    return np.stack([random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w], axis=1)


@st.composite
def cropped(draw: Any) -> tuple[np.ndarray, tuple[int, ...], int]:
    """Draw an image, a box inside it, and the size of a view (for the library hypothesis)."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    box = (draw(st.integers(0, height - h)), draw(st.integers(0, width - w)), h, w)
    return images_of(1, height, width, seed=draw(st.integers(0, 99)))[0], box, draw(st.integers(1, 40))


@st.composite
def any_views(draw: Any) -> tuple[np.ndarray, ViewParams, int]:
    """Draw two images, the parameters of their four views, and the size of a view (for the library hypothesis)."""
    height, width, size = (draw(st.integers(1, 40)) for _ in range(3))
    seed = draw(st.integers(0, 999))
    params = params_of(
        4,
        box=boxes_in(np.random.default_rng(seed), 4, height, width),
        flip=[False, True, False, True],
        order=draw(st.permutations(range(4))),
        clip=draw(st.booleans()),
        hue=draw(st.floats(-1, 1, width=32)),
        blur_sigma=[0, 0.5, 1, 2],
        **{name: draw(st.floats(0, 2, width=32)) for name in ("brightness", "contrast", "saturation")},
    )
    return images_of(2, height, width, seed=seed), params, size


def all_orders(height: int, width: int, seed: int = 0) -> ViewParams:
    """Return parameters of 48 views: each order of the colour operations twice, boxes of every kind, random flags."""
    random = np.random.default_rng(seed)
    rows = 48
    boxes = boxes_in(random, rows, height, width)
    boxes[:3] = [[0, 0, height, width], [height - 1, width - 1, 1, 1], [0, 0, 1, width]]
    return params_of(
        rows,
        box=boxes,
        order=np.tile(PERMUTATIONS, (2, 1)),
        flip=random.random(rows) < 0.5,
        hue=random.uniform(-0.5, 0.5, rows),
        brightness_shift=random.uniform(-0.3, 0.3, rows),
        clip=random.random(rows) < 0.8,
        grey=random.random(rows) < 0.2,
        blur_sigma=np.where(random.random(rows) < 0.5, random.uniform(0.1, 2, rows), 0),
        **{name: random.uniform(0, 2, rows) for name in ("brightness", "contrast", "saturation")},
    )


def tensors(params: ViewParams) -> ViewParams:
    """Return the same parameters as tensors."""
    return ViewParams(*map(tf.constant, params))
