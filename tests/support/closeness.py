"""Asserts that a result is close to the reference: within the bound of `lowlevel_simclr.verification.bound`."""

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
    """Assert that the error of every element is within its bound.

    Args:
        actual: the result to judge, in the type that the op returned.
        reference64: the result of the reference implementation, computed in float64, of the same shape.
        stock: the result of the stock formula (the usual one, in plain TensorFlow or NumPy), in the type that the op
            uses for sums. Its error is called E and enters the bound. Pass None to judge the stock formula itself. Then
            E counts as 0, and `scale` must be larger.
        dtype: the type of the op's input.
        scale: the unit in which errors are measured, broadcast to the shape of reference64.
        draws: further pairs of a stock result and its reference result, for problems that differ slightly from this
            one.
        stored: the type that `actual` was rounded to, if `actual` was cast to a wider type afterwards.
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
