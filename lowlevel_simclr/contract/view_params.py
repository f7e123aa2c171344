"""The parameters that determine the pixels of a view. A view is a random crop of an image, with changed colours."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

# The colour operations, by the numbers that stand for them in ViewParams.order.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# (24, 4): every order of the four operations, in lexicographic order.
PERMUTATIONS = np.array(list(itertools.permutations(range(4))), np.int32)

# The floating-point fields of ViewParams. Their numbers must be finite.
FINITE_FIELDS = ("brightness", "contrast", "saturation", "hue", "brightness_shift", "blur_sigma")


class ViewParams(NamedTuple):
    """The parameters of 2N views, as arrays or tensors. Rows 0..N-1 are the first views, rows N..2N-1 the second views.

    If the colours of a view do not change, brightness, contrast and saturation are 1, and hue and brightness_shift are
    0. The order is random even then.
    """

    box: Any  # (2N, 4) int32: y, x, height, width of the crop, in pixels of the image
    flip: Any  # (2N,) bool: whether the view is flipped left-right
    brightness: Any  # (2N,) float32: factor
    contrast: Any  # (2N,) float32: factor, about each channel's mean
    saturation: Any  # (2N,) float32: factor of the HSV saturation S; values below 0 count as 0
    hue: Any  # (2N,) float32: shift of the HSV hue H; 1 is the full colour circle
    brightness_shift: Any  # (2N,) float32: added after the brightness factor; unit of pixels in [0, 1]
    order: Any  # (2N, 4) int32: the k-th operation; 0 brightness, 1 contrast, 2 saturation, 3 hue, each once
    clip: Any  # (2N,) bool: whether each colour operation ends with a clip to [0, 1]
    grey: Any  # (2N,) bool: whether the view is grey
    blur_sigma: Any  # (2N,) float32: standard deviation in pixels of the view; 0 means no blur
