"""Constants that define an op. Every implementation of the op uses them."""

from __future__ import annotations

FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}  # the pixel value that counts as 1; float images are in [0, 1]
GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # for red, green and blue (ITU-R BT.601, as in SimCLR's code)
