"""How wrong a float32 view may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.view_params import ViewParams

ULP = 2.0**-23  # of a float32 in [1, 2)

# A float32 view is made in ten stages: two products of the crop, four colour operations, grey, two products of the
# blur, scaling. Each makes some six roundings of at most half an ulp of numbers of size 1; not all being alike, two
# ulps a stage. What a stage is given it multiplies by at most its amplification: brightness by f; contrast moves a
# pixel by f and its mean by |1 - f|; saturation the pixel by f and V by |1 - f|; a turn moves the middle channel by up
# to twice what V and m move. Pixels that are not clipped grow, and their ulps with them, by the same factors.
STAGES = 10


def amplification(params: ViewParams) -> np.ndarray:
    """Return by how much the colour operations multiply small differences at most: (2N,)."""
    factors = [np.maximum(1, params.brightness)]
    factors += [np.maximum(1, factor + np.abs(1 - factor)) for factor in (params.contrast, params.saturation)]
    return np.prod(factors, axis=0) * np.where(params.hue != 0, 2, 1)


def assert_stock_is_close(actual: Any, expected: np.ndarray, params: ViewParams, std: float = 1.0) -> None:
    """Assert that float32 views are as close to the reference as ten stages of roundings allow."""
    assert actual.dtype == tf.float32
    assert actual.shape == expected.shape
    allowed = 2 * STAGES * ULP * amplification(params)[:, None, None, None] / std
    error = np.abs(np.asarray(actual, np.float64) - expected)
    assert np.all(error <= allowed), f"{np.max(error / allowed):.3g} times what is allowed"
