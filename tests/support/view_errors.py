"""The largest error that rounding can make in an augmented image (view) that is computed in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.view_params import ViewParams

ULP = 2.0**-23  # spacing of float32 in [1, 2)

# A view is made in ten stages: two matrix products of the crop, four colour operations, grey, two products of the blur,
# and scaling. Each stage makes about six rounding errors of at most half an ulp (1 ulp is the spacing of float32 at 1).
# They partly cancel, so two ulps are enough for a stage.
#
# A stage also multiplies the error of its input by a factor, its amplification. Let f be the factor of a colour
# operation. Brightness multiplies an error by f. Contrast multiplies the error of a pixel by f, and the error of the
# mean by |1 - f|. Saturation multiplies the error of a pixel by f, and the error of V (the largest channel) by |1 - f|.
# A change of the hue computes the middle channel from V and m (the smallest channel), and can double their errors.
# Without clipping, pixels grow by the same factors, and the spacing of float32 grows with them.
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
    assert np.all(error <= allowed), f"an error is {np.max(error / allowed):.3g} times as large as allowed"
