"""LARS (You et al. 2017) as SimCLR uses it, and SGD with momentum, which is LARS without the trust ratio.

    u = g + beta w
    ratio = eta |w| / |u|, or 1 if either norm is 0
    v = m v + lr ratio u
    w = w - v

w is the weight, g the gradient, v the velocity, and m the momentum. beta is the weight decay, eta the trust coefficient
and lr the learning rate. SGD with momentum has ratio 1. In LARS, variables of rank 0 and 1 (biases, and the variables
of BatchNorm) have no decay (beta = 0) and ratio 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowlevel_simclr.contract.checks import check_number, check_numbers, check_same_shape

Array = NDArray[np.float64]


def compute_trust_ratio(weight: Array, update: Array, coefficient: float) -> float:
    """Return coefficient |w| / |u| over all entries of a variable, or 1 if either norm is 0."""
    weight_norm, update_norm = np.linalg.norm(weight.ravel()), np.linalg.norm(update.ravel())
    if weight_norm == 0 or update_norm == 0:
        return 1.0
    return float(coefficient * weight_norm / update_norm)


def sgd_update(
    weight: ArrayLike,
    gradient: ArrayLike,
    velocity: ArrayLike,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[Array, Array]:
    """Return weight and velocity of one variable after one step of SGD with momentum.

    Args:
        weight: w, of any shape.
        gradient: g, of the same shape.
        velocity: v, of the same shape; 0 before the first step.
        learning_rate: lr.
        momentum: m.
        weight_decay: beta.

    Returns:
        The next weight and the next velocity.

    Examples:
        >>> from lowlevel_simclr.reference.lars_update import sgd_update
        >>> weight, velocity = sgd_update([2.0], [1.0], [0.0], learning_rate=0.1, momentum=0.9, weight_decay=0.0)
        >>> weight.tolist(), velocity.tolist()
        ([1.9], [0.1])
    """
    weight, update = np.asarray(weight, np.float64), np.asarray(gradient, np.float64)
    if weight.ndim > 1:
        update = update + weight_decay * weight
    velocity = momentum * np.asarray(velocity, np.float64) + learning_rate * update
    return weight - velocity, velocity


def lars_update(
    weight: ArrayLike,
    gradient: ArrayLike,
    velocity: ArrayLike,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
) -> tuple[Array, Array]:
    """Return weight and velocity of one variable after one step of LARS.

    Args:
        weight: w, of any shape.
        gradient: g, of the same shape.
        velocity: v, of the same shape; 0 before the first step.
        learning_rate: lr.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weight and the next velocity.

    Raises:
        TypeError: if an argument does not consist of numbers.
        ValueError: if the shapes differ, or if one of the last four arguments is not one finite number.

    Examples:
        >>> from lowlevel_simclr.reference.lars_update import lars_update
        >>> choices = dict(learning_rate=0.1, momentum=0.9, weight_decay=0.0, trust_coefficient=0.5)
        >>> weight, velocity = lars_update([[2.0]], [[1.0]], [[0.0]], **choices)  # trust ratio 0.5 x 2 / 1 = 1
        >>> weight.tolist(), velocity.tolist()
        ([[1.9]], [[0.1]])
    """
    weight, update, velocity = _check_variable(weight, gradient, velocity)
    learning_rate, momentum = check_number("learning_rate", learning_rate), check_number("momentum", momentum)
    weight_decay = check_number("weight_decay", weight_decay)
    trust_coefficient, ratio = check_number("trust_coefficient", trust_coefficient), 1.0
    if weight.ndim > 1:
        update = update + weight_decay * weight
        ratio = compute_trust_ratio(weight, update, trust_coefficient)
    velocity = momentum * velocity + learning_rate * ratio * update
    return weight - velocity, velocity


def _check_variable(weight: ArrayLike, gradient: ArrayLike, velocity: ArrayLike) -> tuple[Array, Array, Array]:
    """Return w, g and v as float64 arrays of one shape."""
    w, g, v = check_numbers("weight", weight), check_numbers("gradient", gradient), check_numbers("velocity", velocity)
    check_same_shape([w.shape, g.shape, v.shape])
    return w, g, v
