"""A bound on the error of a view that was computed in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.view_params import ViewParams

ULP = 2.0**-23  # spacing of float32 in [1, 2)

# A float32 view is made in ten stages: two matrix products of the crop, four colour operations, grey, two products of
# the blur, scaling. Each stage makes about six roundings of at most half an ulp (the spacing of float32), of numbers
# near 1. The rounding errors partly cancel, so two ulps are enough for a stage. A stage also multiplies the error of
# its input by a factor, its amplification. Let f be the factor of a colour operation. Brightness multiplies an error by
# f. Contrast multiplies the error of a pixel by f, and that of the mean by |1 - f|. Saturation multiplies the error of
# a pixel by f, and that of V (the largest channel) by |1 - f|. If V and m (the smallest channel) have errors, a turn of
# the hue moves the middle channel by up to twice as much. Pixels that are not clipped grow by the same factors, and so
# do their ulps.
STAGES = 10


def amplification(params: ViewParams) -> np.ndarray:
    """Return for each view, (2N,), the largest factor by which its colour operations multiply a small error."""
    factors = [np.maximum(1, params.brightness)]
    factors += [np.maximum(1, factor + np.abs(1 - factor)) for factor in (params.contrast, params.saturation)]
    return np.prod(factors, axis=0) * np.where(params.hue != 0, 2, 1)


def assert_stock_is_close(actual: Any, expected: np.ndarray, params: ViewParams, std: float = 1.0) -> None:
    """Assert that float32 views are as close to the reference as the rounding errors of ten stages allow."""
    assert actual.dtype == tf.float32
    assert actual.shape == expected.shape
    allowed = 2 * STAGES * ULP * amplification(params)[:, None, None, None] / std
    error = np.abs(np.asarray(actual, np.float64) - expected)
    assert np.all(error <= allowed), f"{np.max(error / allowed):.3g} times what is allowed"
