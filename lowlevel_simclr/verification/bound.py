"""The rule by which a result of an op counts as right. The program `check` and the tests both use it.

The module needs only NumPy.

    |found - truth|  <=  (2 E + 8 eps) scale   (+ one rounding to the type of the result)

truth   the result of the float64 reference.
eps     the spacing of the accumulation type at 1. The accumulation type is the type in which sums are made: float64 for
        float64 inputs, float32 for all others.
scale   for each element, the unit in which its error is measured. It is about as large as the numbers from which the
        element is computed. See `compute_loss_scale` and the functions after it for NT-Xent,
        `verification.make_views.measure_amplification` for views and `verification.lars_update.compute_scales` for
        LARS.
E       the largest error of the stock TensorFlow formula over all elements, in units of scale.

In words: the error of a result may be twice the error of the stock formula (the same computation with TensorFlow's own
ops) in the same precision, plus a few rounding errors. Errors and bounds are reported in units of scale.

**E is the worst error over all elements, not the error at the same element.** Two right computations make different
rounding errors. At a single element, the stock formula is often exact by luck. A bound from that element alone would
reject results that are on the whole better than those of the stock formula. The largest error of many elements varies
little. Errors are first divided by scale. So a row with a huge gradient (because |z_i| is tiny) does not widen the
bound of the other rows. At a small temperature tau, an error of eps/tau in a similarity s becomes a relative error of
the weight exp(s - lse), where lse is the logarithm of the sum of the exponentials. The stock formula makes this error
too. So E includes it, and scale need not.

**The argument `draws` makes E vary less if there are few elements.** At a small temperature, nearly all the error can
be in a single row whose two best candidates are almost equally similar. Then E depends on that one row. `draws` adds
the stock formula's errors on neighbouring problems. In a neighbouring problem, z differs by a few units in the last
place, and the reference is computed again. Such a problem is as sensitive to rounding as the first problem, but its
rounding errors differ.

**Where 8 eps comes from.** Only this term of the bound remains if the stock formula happens to be exact (N = 1, few
elements, or one candidate with all the weight). One rounding changes a number by at most eps/2 of its size. Computing a
coordinate of u = z/|z| rounds three times: norm, root and quotient. Computing a similarity s_ij rounds three times for
each of the two rows u_i and u_j, once for the sum and once for the division by tau. That makes 2 x 3 + 2 = 8 roundings,
or an error of 4 eps/tau. A loss is the difference of two similarities, so its error is up to 8 eps/tau. The
exponentials and the logarithm of the loss add the 1 in scale = 1 + 1/tau. A row of dz is a weighted mean of the 2N rows
u_j, without the component along u_i, divided by |z_i|. The numbers in this computation are as large as scale, and are
rounded as often as those of a loss. A sum of d terms counts as one rounding here. The error of such a sum is about 0.1
sqrt(d) eps, so this is right for d up to a few hundred. `verification.lars_update` counts the roundings of LARS.

**One rounding to the type of the result.** bfloat16 and float16 inputs are exact in float32. Norms, products and sums
are float32, so eps is that of float32. The stock formula must run on inputs that were cast to float32. Otherwise the
rounding errors of bfloat16 or float16 would enlarge E. A loss is returned as float32. The gradient dz and the views are
returned as bfloat16 or float16. So they are rounded once more, by at most half the spacing between neighbouring numbers
of that type. If the type of the result is coarser than the accumulation type, the bound grows by this half spacing.

**NaN and infinity.** NaN is right only where the reference is NaN. Infinity is right only where the reference has the
same sign and is beyond the largest number of the result's type. If the stock formula is NaN or infinite where the
reference is finite, E and the bound are NaN. No result is within a NaN bound.

**float64.** The reference is float64 too, so its rounding errors are as large as those of the result. If there is a
stock result, E includes the error of the reference. Without a stock result, the caller must double scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowlevel_simclr import reference

FACTOR, SLACK = 2, 8
MARGIN = 64  # in units of eps: if the similarities differ by more than this, rounding cannot change top1
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
LARGEST = {
    "float64": float(np.finfo(np.float64).max),
    "float32": float(np.finfo(np.float32).max),
    "float16": 65504.0,
    "bfloat16": (2.0 - 2.0**-7) * 2.0**127,
}

Float64s = NDArray[np.float64]


class Case(Protocol):
    """A test problem of `check`. Each op has its own class of cases, with these fields and more."""

    @property
    def rows(self) -> str:
        """What is special about the numbers of the case."""

    @property
    def dtype(self) -> str:
        """The type of the op's input (NT-Xent, LARS) or result (views)."""

    @property
    def mode(self) -> str:
        """How TensorFlow runs the op: eager, graph or xla."""


class Finding(NamedTuple):
    """The largest error of a quantity (such as the loss) in one case, and its bound, in units of scale."""

    case: Case
    quantity: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound. A NaN error is not."""
        return self.error <= self.bound


class Comparison(NamedTuple):
    """The comparison of a result with the reference, at the element whose error is the largest share of its bound.

    Attributes:
        error: distance from the reference, in units of scale.
        bound: largest error allowed, in units of scale.
        place: index of the element; () if there is no element or the shape is wrong.
        share_beyond: share of all elements that are beyond their bound.
        stock_error: E, in units of scale.
    """

    error: float
    bound: float
    place: tuple[int, ...]
    share_beyond: float
    stock_error: float

    @property
    def holds(self) -> bool:
        """Whether every element is within its bound. A NaN error is not."""
        return self.error <= self.bound


# ---- The rule -------------------------------------------------------------------------------------------------------


def find_accumulation_type(dtype: str) -> str:
    """Return the type in which sums are made for an input of type `dtype`."""
    return "float64" if dtype == "float64" else "float32"


def compare_with_reference(
    found: ArrayLike,
    truth: ArrayLike,
    stock: ArrayLike | None,
    *,
    scale: ArrayLike,
    accumulation: str,
    stored: str | None = None,
    draws: Iterable[tuple[ArrayLike, ArrayLike]] = (),
) -> Comparison:
    """Compare a result with the float64 reference by the rule of this module.

    Args:
        found: the result.
        truth: the reference's result, same shape. With a different shape, the comparison fails.
        stock: the stock formula's result in the accumulation type, same shape. With None, E is 0. Use None when the
            stock formula itself is judged, because its own errors must not widen its bound.
        scale: finite and at least 0; broadcast to the shape of truth. Where scale is 0, the result must be exact.
        accumulation: the type in which sums are made, see `find_accumulation_type`.
        stored: the type to which the result was rounded, if `found` was cast to a wider type afterwards. Default: the
            type of `found`.
        draws: further pairs of a stock result and its reference, from neighbouring problems. They can only raise the
            bound, so they are computed only if the result fails without them.

    Raises:
        ValueError: if the stock result has a coarser type than the accumulation type, or another shape than its
            reference, or if scale is negative, NaN or infinite.

    >>> compare_with_reference(np.float32([1, 2]), [1, 2], None, scale=1.0, accumulation="float32").holds
    True
    """
    found, truth = np.asarray(found), np.asarray(truth, np.float64)
    stored = stored or found.dtype.name
    if found.shape != truth.shape:
        return Comparison(np.inf, 0.0, (), 1.0, 0.0)
    scale = np.broadcast_to(np.asarray(scale, np.float64), truth.shape)
    if not np.all(np.isfinite(scale) & (scale >= 0)):
        raise ValueError("scale must be finite and at least 0.")
    stock_error = 0.0 if stock is None else measure_stock_error(stock, truth, scale, accumulation)
    comparison = _find_worst(found, truth, scale, stock_error, accumulation, stored)
    if comparison.holds:
        return comparison
    more = [measure_stock_error(*draw, scale, accumulation) for draw in draws]
    return _find_worst(found, truth, scale, float(np.max([stock_error, *more])), accumulation, stored)


def measure_stock_error(stock: ArrayLike, truth: ArrayLike, scale: Float64s, accumulation: str) -> float:
    """Return E, the stock formula's largest error in units of scale.

    E is NaN if a stock value is NaN or infinite where the reference is finite.
    """
    stock, truth = np.asarray(stock), np.asarray(truth, np.float64)
    if stock.shape != truth.shape:
        raise ValueError(f"The stock result has shape {stock.shape}, its reference {truth.shape}.")
    if EPSILON[stock.dtype.name] > EPSILON[accumulation]:
        raise ValueError(f"The stock result is {stock.dtype.name}: widen z to {accumulation} for it.")
    counts = (scale > 0) & np.isfinite(truth)
    errors = np.abs(stock[counts].astype(np.float64) - truth[counts]) / scale[counts]
    return float(np.max(errors, initial=0.0)) if np.all(np.isfinite(errors)) else np.nan


def compute_bounds(truth: Float64s, scale: Float64s, stock_error: float, accumulation: str, stored: str) -> Float64s:
    """Return the largest error that each element may have, in units of its scale. The result is NaN if E is NaN."""
    counts = scale > 0
    unit = np.where(counts, scale, 1.0)
    bound = FACTOR * stock_error + SLACK * EPSILON[accumulation]
    bounds = np.where(counts & np.isfinite(truth), bound, 0.0)
    if EPSILON[stored] > EPSILON[accumulation]:
        reach = np.maximum(np.abs(truth) / unit + bound, SMALLEST_NORMAL[stored] / unit)
        bounds = bounds + np.where(bounds > 0, EPSILON[stored] / 2 * reach, 0.0)
    return bounds


def _find_worst(
    found: NDArray[Any], truth: Float64s, scale: Float64s, stock_error: float, accumulation: str, stored: str
) -> Comparison:
    if not truth.size:
        return Comparison(0.0, 0.0, (), 0.0, stock_error)
    bounds = compute_bounds(truth, scale, stock_error, accumulation, stored)
    errors = _measure_errors(found.astype(np.float64), truth, scale, bounds, LARGEST[stored])
    beyond = ~(errors <= bounds)
    with np.errstate(over="ignore"):
        used = np.where(errors == 0, 0.0, errors / np.maximum(bounds, SMALLEST_NORMAL["float64"]))
    used = np.where(beyond | ~np.any(beyond), used, -1.0)  # if elements are beyond their bounds, choose among those
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(used)), used.shape))
    return Comparison(float(errors[place]), float(bounds[place]), place, float(np.mean(beyond)), stock_error)


def _measure_errors(
    found: Float64s, truth: Float64s, scale: Float64s, bounds: Float64s, largest: float
) -> NDArray[np.float64]:
    """Return |found - truth| in units of scale.

    The error is 0 if both values are NaN, or if `found` is infinite because the value is too large for its type. If
    only one value is NaN, the error is infinite.
    """
    unit = np.where(scale > 0, scale, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(found - truth) / unit
        too_large = np.abs(truth) + bounds * unit >= largest
    overflowed = np.isinf(found) & too_large & (np.sign(found) == np.sign(truth))
    agreed = overflowed | (np.isnan(found) & np.isnan(truth))
    return np.where(agreed, 0.0, np.where(np.isnan(errors), np.inf, errors))


# ---- The scales of NT-Xent ------------------------------------------------------------------------------------------


def compute_loss_scale(temperature: float) -> float:
    """Return 1 + 1/tau. Similarities are as large as 1/tau. Their exponentials and the logarithm are of order 1."""
    return 1 + 1 / temperature


def compute_gradient_scale(z: ArrayLike, cotangent: ArrayLike, temperature: float) -> Float64s:
    """Return max|c| / (tau |z_i|) for each row of dz: (2N, 1). A zero row has a gradient of exactly 0 and scale 0."""
    length = np.linalg.norm(np.asarray(z, np.float64), axis=1, keepdims=True)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return np.max(np.abs(np.asarray(cotangent, np.float64))) * (1 / temperature) * inverse


def compute_temperature_scale(cotangent: ArrayLike, temperature: float) -> float:
    """Return sum|c| / tau^2 (1 + 1/tau): size of the gradient with respect to tau, times its error amplification.

    This gradient is a single number, so E is the error of one number and may be 0 by luck. Therefore this scale, unlike
    the others, must allow for the change of the weights exp(s - lse) if s has an error of eps/tau.
    """
    inverse_tau = 1 / temperature
    return float(np.sum(np.abs(np.asarray(cotangent, np.float64)))) * inverse_tau**2 * (1 + inverse_tau)


def compute_margins(z: ArrayLike) -> Float64s:
    """Return the margin of each row (2N,): the similarity of its positive minus that of its best other candidate.

    The positive of a row is the other view of the same image. With N = 1 there is no other candidate, and the margin is
    infinite.
    """
    u = reference.normalise_rows(z)
    s = u @ u.T
    own, partner = np.arange(len(u)), reference.find_positive(len(u))
    of_positive = s[own, partner]
    s[own, own] = s[own, partner] = -np.inf
    return of_positive - np.max(s, axis=1)


def find_decided_rows(z: ArrayLike, accumulation: str) -> NDArray[np.bool_]:
    """Return for each row whether its top1 must be exact (2N,), because rounding cannot change its margin's sign."""
    return np.abs(compute_margins(z)) > MARGIN * EPSILON[accumulation]
