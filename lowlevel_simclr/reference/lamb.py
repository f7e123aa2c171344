"""AdamW (Loshchilov and Hutter 2019), and LAMB (You et al. 2020), which multiplies AdamW's step by a trust ratio.

    m = b1 m + (1 - b1) g
    s = b2 s + (1 - b2) g^2
    u = (m / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + eps) + decay w
    w = w - lr ratio u

w is the weight, g the gradient, and t the number of the step. m and s are moving averages of g and g^2. ratio is 1 for
AdamW and |w| / |u| for LAMB. Variables of rank 0 and 1 have decay 0 and ratio 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lowlevel_simclr.reference.lars_update import Array, compute_trust_ratio


def adamw_update(
    weight: ArrayLike,
    gradient: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    count: int,
    *,
    learning_rate: float,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    adapted: bool = False,
) -> tuple[Array, Array, Array]:
    """Return the weight and the moving averages m and s of one variable after one step of AdamW.

    Args:
        weight: w, of any shape.
        gradient: g, of the same shape.
        first: m, of the same shape; 0 before the first step.
        second: s, of the same shape; 0 before the first step.
        count: t, 1 for the first step.
        learning_rate: lr.
        weight_decay: decay.
        beta_1: b1.
        beta_2: b2.
        epsilon: eps.
        adapted: whether the step is multiplied by the trust ratio, as in LAMB.

    Returns:
        The next weight w, m and s.

    Examples:
        >>> from lowlevel_simclr.reference.lamb import adamw_update
        >>> choices = dict(learning_rate=0.1, weight_decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=0.0)
        >>> weight, first, second = adamw_update([[2.0]], [[1.0]], [[0.0]], [[0.0]], 1, **choices)
        >>> weight.round(4).tolist()
        [[1.9]]
    """
    weight, gradient = np.asarray(weight, np.float64), np.asarray(gradient, np.float64)
    first = beta_1 * np.asarray(first, np.float64) + (1 - beta_1) * gradient
    second = beta_2 * np.asarray(second, np.float64) + (1 - beta_2) * gradient**2
    update, ratio = (first / (1 - beta_1**count)) / (np.sqrt(second / (1 - beta_2**count)) + epsilon), 1.0
    if weight.ndim > 1:
        update = update + weight_decay * weight
        ratio = compute_trust_ratio(weight, update, 1.0) if adapted else 1.0
    return weight - learning_rate * ratio * update, first, second


def lamb_update(
    weight: ArrayLike,
    gradient: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    count: int,
    *,
    learning_rate: float,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    """Return the weight and the moving averages m and s of one variable after one step of LAMB.

    Args:
        weight: w, of any shape.
        gradient: g, of the same shape.
        first: m, of the same shape; 0 before the first step.
        second: s, of the same shape; 0 before the first step.
        count: t, 1 for the first step.
        learning_rate: lr.
        weight_decay: decay.
        beta_1: b1.
        beta_2: b2.
        epsilon: eps.

    Returns:
        The next weight w, m and s.

    Examples:
        >>> from lowlevel_simclr.reference.lamb import lamb_update
        >>> choices = dict(learning_rate=0.1, weight_decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=0.0)
        >>> weight, first, second = lamb_update([[2.0]], [[1.0]], [[0.0]], [[0.0]], 1, **choices)
        >>> weight.round(4).tolist()
        [[1.8]]
    """
    return adamw_update(
        weight,
        gradient,
        first,
        second,
        count,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        adapted=True,
    )
