"""Crops and resizes an image with the library Pillow (bilinear), for comparison with this package."""

from __future__ import annotations

import numpy as np
from PIL import Image


def pillow(channel: np.ndarray, box: tuple[int, ...], size: int) -> np.ndarray:
    """Crop one channel with Pillow, then resize it. (Pillow's `resize(box=...)` also reads pixels outside the box.)"""
    y, x, h, w = box
    resized = Image.fromarray(channel).crop((x, y, x + w, y + h)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)
