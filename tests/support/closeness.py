"""The one rule by which a result is called right.

    |actual - ref64|  <=  2 E + c eps scale  (+ one rounding),      c = 8

ref64 is the float64 reference, eps the spacing of the accumulation type at 1, and `scale` the size that the
quantity has in exact arithmetic (`loss_scale`, `gradient_scale`, `temperature_scale`). E is the error of the
stock formula.

**E is the stock formula's worst error over all elements, in units of scale**, not its error at the same
element. Two right computations make rounding errors that are independent draws from similar distributions: at
any one element stock's is near 0 as often as not, and twice nearly nothing would refuse results better than
stock's. The worst of many draws is a steady measure of "as wrong as the plain formula". Measured in units of
scale, a row of huge gradient (|z_i| tiny) lends nothing to the others. What makes a gradient hard at a small
tau, that an error eps/tau of s is a relative error of the weights exp(s - lse), is part of E and so needs no
place in scale.

Few elements are few draws, and at a small tau one row whose two best candidates nearly tie can hold all the
error there is: one draw. Then `draws` adds stock's errors on neighbouring problems, z moved by a few units in
the last place and each judged by its own reference: the same conditioning, other roundings.

**c = 8** is what is left where stock happens to be exact (N = 1, few elements, one candidate with all the
weight). In halves of eps, the most one rounding can be: a coordinate of u takes three roundings (norm, root,
quotient), and s_ij is made of two u, one sum and one quotient by tau, 2 x 3 + 2 = 8 halves, so it errs by 4
eps/tau. A loss is the difference of two of them, 8 eps/tau, and its exponentials and logarithm are the 1 in
scale = 1 + 1/tau. (A sum of d dense terms counts as one rounding here: it errs by about 0.1 sqrt(d) eps,
which holds to a d of a few hundred.) dz is a weighted mean of 2N rows u_j, its own row taken out, over |z_i|:
as many roundings of numbers of its scale.

**Half inputs.** A bfloat16 or float16 z is exact as float32, and all norms, inner products and sums are
float32: eps is float32's, and `stock` must be computed from the widened z, so that no half rounding hides in
E. The losses come as float32. dz comes in z's own type: one rounding of that type is added, half a spacing at
the value's size, elementwise. A value beyond the type's largest number may come as infinity.

**float64.** The reference is as inexact as what it judges. Its error is part of E; without a stock result,
double scale.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

C = 8
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
LARGEST = {
    "float64": float(np.finfo(np.float64).max),
    "float32": float(np.finfo(np.float32).max),
    "float16": 65504.0,
    "bfloat16": (2.0 - 2.0**-7) * 2.0**127,
}


def accumulation(dtype: str) -> str:
    """The type that sums are made in for a z of `dtype`."""
    return "float64" if dtype == "float64" else "float32"


def loss_scale(temperature: float) -> float:
    """1 + 1/tau: the similarities are as large as 1/tau, their exponentials and the logarithm of order 1."""
    return 1 + 1 / temperature


def gradient_scale(z: ArrayLike, cotangent: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """max|c| / (tau |z_i|) for each row of dz, (2N, 1); 0 for a zero row, whose gradient is exactly 0."""
    length = np.linalg.norm(np.asarray(z, np.float64), axis=1, keepdims=True)
    inverse = np.where(length == 0, 0.0, 1 / np.where(length == 0, 1.0, length))
    return np.max(np.abs(cotangent)) / temperature * inverse


def temperature_scale(cotangent: ArrayLike, temperature: float) -> float:
    """Size of the gradient to tau times its conditioning: sum|c| / tau^2 (1 + 1/tau).

    The gradient is one number, so E is one draw and may be 0 by luck: unlike those of the other two, this
    scale must contain what rounding of s, eps / tau, does to the weights exp(s - lse).
    """
    return float(np.sum(np.abs(cotangent))) / temperature**2 * (1 + 1 / temperature)


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
    """Assert the rule above for every element.

    Args:
        actual: the result on trial, in the type it came in.
        reference64: the float64 reference, same shape.
        stock: the stock formula's result in the accumulation type, same shape. None where the stock formula
            itself is on trial: it may not excuse its own errors, so E = 0 and `scale` must contain the
            conditioning.
        dtype: the type of z; sums are made in `accumulation(dtype)`.
        scale: broadcast over reference64.
        draws: further pairs of a stock result and its float64 reference, of neighbouring problems. Made only
            if the result is refused without them: they can but allow more.
        stored: the type that `actual` was rounded to, where NumPy has no such type and `actual` was widened.
    """
    actual, reference64 = np.asarray(actual), np.asarray(reference64, np.float64)
    assert actual.shape == reference64.shape, f"shape {actual.shape}, expected {reference64.shape}"
    size = np.broadcast_to(np.asarray(scale, np.float64), reference64.shape)
    worst = 0.0 if stock is None else _worst(stock, reference64, size, accumulation(dtype))
    refusal = _refusal(actual, reference64, worst, size, accumulation(dtype), stored or actual.dtype.name)
    if refusal is not None:
        worst = max([worst, *(_worst(*draw, size, accumulation(dtype)) for draw in draws)])
        refusal = _refusal(actual, reference64, worst, size, accumulation(dtype), stored or actual.dtype.name)
    assert refusal is None, refusal


def _worst(stock: ArrayLike, reference64: ArrayLike, size: NDArray, accumulated: str) -> float:
    """E: the largest error of a stock result, in units of scale."""
    stock, reference64 = np.asarray(stock), np.asarray(reference64, np.float64)
    assert stock.shape == reference64.shape, f"stock has shape {stock.shape}, expected {reference64.shape}"
    assert stock.dtype.name == accumulated, f"stock is {stock.dtype.name}: widen z to {accumulated} for it"
    counts = (size > 0) & np.isfinite(reference64)
    error = np.abs(stock.astype(np.float64) - reference64)[counts] / size[counts]
    assert np.all(np.isfinite(error)), "the stock formula is not finite where the reference is: no baseline"
    return float(np.max(error, initial=0.0))


def _refusal(
    actual: NDArray, reference64: NDArray, worst: float, size: NDArray, accumulated: str, stored: str
) -> str | None:
    """What is wrong with the worst element, and the share that fails; None where nothing is."""
    actual = actual.astype(np.float64)
    allowed = (2 * worst + C * EPSILON[accumulated]) * size
    if stored != accumulated:
        reach = np.maximum(np.abs(reference64) + allowed, SMALLEST_NORMAL[stored])
        allowed = allowed + EPSILON[stored] / 2 * np.where(allowed > 0, reach, 0)
    allowed = np.where(np.isnan(reference64), 0, allowed)
    error = _errors(actual, reference64, allowed, LARGEST[stored])
    if np.all(error <= allowed):
        return None
    with np.errstate(over="ignore"):
        excess = np.where(error > allowed, error / np.maximum(allowed, SMALLEST_NORMAL["float64"]), 0)
    place = np.unravel_index(int(np.argmax(excess)), error.shape)
    return (
        f"{np.mean(error > allowed):.1%} of {error.size} elements are beyond what is allowed; worst at index "
        f"{tuple(int(i) for i in place)}: actual {float(actual[place])!r}, reference "
        f"{float(reference64[place])!r}, error {error[place]:.3g}, allowed {allowed[place]:.3g} "
        f"(E {worst / EPSILON[accumulated]:.3g} eps)"
    )


def _errors(actual: NDArray, reference64: NDArray, allowed: NDArray, largest: float) -> NDArray:
    """|actual - reference64|; 0 where both are NaN, or a value too large for the type came as infinity."""
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - reference64)
    overflowed = np.isinf(actual) & (np.abs(reference64) + allowed >= largest) & (actual * reference64 > 0)
    agreed = overflowed | (np.isnan(actual) & np.isnan(reference64))
    return np.where(agreed, 0.0, np.where(np.isnan(error), np.inf, error))
