"""What decides the pixels of a view, once its image is given."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

# The colour operations by the numbers that ViewParams.order holds.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# (24, 4): every order of the four, in lexicographic order.
PERMUTATIONS = np.array(list(itertools.permutations(range(4))), np.int32)


class ViewParams(NamedTuple):
    """Parameters of 2N views: arrays or tensors, rows 0..N-1 for the first views, N..2N-1 for the second ones.

    Where a view's colours are not jittered its factors are neutral (1, 1, 1, 0 and shift 0); the order is drawn all
    the same.
    """

    box: Any  # (2N, 4) int32: y, x, height, width of the crop, in pixels of the image
    flip: Any  # (2N,) bool: left-right
    brightness: Any  # (2N,) float32: factor
    contrast: Any  # (2N,) float32: factor, about each channel's mean
    saturation: Any  # (2N,) float32: factor of S; below 0 counts as 0
    hue: Any  # (2N,) float32: shift of H, in turns
    brightness_shift: Any  # (2N,) float32: added beside the brightness factor, pixels in [0, 1]
    order: Any  # (2N, 4) int32: the operation at slot k; 0 brightness, 1 contrast, 2 saturation, 3 hue
    clip: Any  # (2N,) bool: whether each colour operation ends with a clip to [0, 1]
    grey: Any  # (2N,) bool
    blur_sigma: Any  # (2N,) float32: pixels of the view; 0 is no blur
