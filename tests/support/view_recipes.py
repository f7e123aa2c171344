"""Settings of image augmentation (recipes) for tests, and a comparison of two sets of drawn parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.view_params import ViewParams

RECIPE = ViewRecipe(blur_probability=0.5, brightness_shift=(-0.25, 0.25))
ALWAYS = replace(RECIPE, flip_probability=1, jitter_probability=1, grey_probability=1, blur_probability=1)
NEVER = replace(RECIPE, flip_probability=0, jitter_probability=0, grey_probability=0, blur_probability=0)
FACTORS = ("brightness", "contrast", "saturation", "hue", "brightness_shift")


def assert_same(actual: ViewParams, expected: ViewParams, recipe: ViewRecipe = RECIPE) -> None:
    """Assert that integers and flags are equal, and that floats differ by at most 2 ulp.

    1 ulp is the spacing of float32 at the end of the float's range that is farther from 0. A float is
    low + (high - low) u, with a random u. The usual computation rounds three times. XLA may round only twice (fused
    multiply-add). So two results differ by at most one rounding of the product and one of the sum, half an ulp each.
    The product may be twice as large as the ends of the range.
    """
    for name, own, other in zip(ViewParams._fields, actual, expected, strict=True):
        own, other = np.asarray(own), np.asarray(other)
        assert (own.dtype, own.shape) == (other.dtype, other.shape), name
        if own.dtype == np.float32:
            largest = np.float32(max(abs(bound) for bound in getattr(recipe, name)))
            np.testing.assert_allclose(own, other, rtol=0, atol=2 * np.spacing(largest), err_msg=name)
        else:
            np.testing.assert_array_equal(own, other, err_msg=name)


def of_rows(params: ViewParams, rows: Any) -> ViewParams:
    """Return the parameters of some views only: those with these row numbers."""
    return ViewParams(*(np.asarray(field)[rows] for field in params))
