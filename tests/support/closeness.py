"""Asserts that the result of an op is close enough to the right values, by the rule of `verification/bound.py`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from lowlevel_simclr.verification.bound import EPSILON, compare_with_reference, find_accumulation_type


def assert_close(
    actual: ArrayLike,
    reference64: ArrayLike,
    stock: ArrayLike | None,
    *,
    dtype: str,
    scale: ArrayLike,
    draws: Iterable[tuple[ArrayLike, ArrayLike]] = (),
    stored: str | None = None,
) -> None:
    """Assert that the error of every element is at most as large as the rule allows (its bound).

    Args:
        actual: the result to judge, in the type that the op returned.
        reference64: the right values, computed in float64. They have the shape of `actual`.
        stock: the result of the usual formula in plain TensorFlow or NumPy, in the type that the op uses for sums. The
            bound depends on the largest error of this result, called E. Pass None to judge the usual formula itself.
            Then E counts as 0, and `scale` must be larger.
        dtype: the type of the op's input.
        scale: the unit of errors, broadcast to the shape of reference64.
        draws: further pairs (result of the usual formula, right values), for problems that differ slightly from this
            one. They are used to measure E.
        stored: if `actual` was rounded to a narrower type and then cast back to a wider one, the narrower type.
    """
    actual, reference64 = np.asarray(actual), np.asarray(reference64, np.float64)
    assert actual.shape == reference64.shape, f"shape {actual.shape}, expected {reference64.shape}"
    accumulation = find_accumulation_type(dtype)
    found = compare_with_reference(
        actual, reference64, stock, scale=scale, accumulation=accumulation, stored=stored, draws=draws
    )
    assert not np.isnan(found.stock_error), "The stock formula is NaN or infinite where the reference is not: no E."
    assert found.holds, (
        f"{found.share_beyond:.1%} of {actual.size} elements are beyond their bound; worst at index {found.place}: "
        f"actual {float(actual[found.place])!r}, reference {float(reference64[found.place])!r}, error "
        f"{found.error:.3g} and bound {found.bound:.3g} in units of scale "
        f"(E {found.stock_error / EPSILON[accumulation]:.3g} eps)"
    )
