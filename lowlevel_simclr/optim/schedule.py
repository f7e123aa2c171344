"""Computes the learning rate of each step: it rises linearly (warm-up), then falls to 0 along a cosine.

Its highest value can depend on the batch size.
"""

from __future__ import annotations

import math

import tensorflow as tf


def scale_learning_rate(base: float, batch_size: int, rule: str) -> float:
    """Return the learning rate for a batch size (SimCLR, appendix B.1).

    Args:
        base: learning rate before scaling.
        batch_size: B, number of images in a batch.
        rule: linear (returns base x B / 256), sqrt (returns base x sqrt(B)) or none (returns base).

    Raises:
        ValueError: if there is no such rule.

    Examples:
        >>> from lowlevel_simclr.optim.schedule import scale_learning_rate
        >>> scale_learning_rate(0.3, batch_size=512, rule="linear")
        0.6
    """
    factors = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
    if rule not in factors:
        raise ValueError(f"There is no learning-rate scaling '{rule}'. Use one of {', '.join(factors)}.")
    return base * factors[rule]


def compute_learning_rate_of_share(
    share: tf.Tensor, base: float, warmup_share: float, step_share: tf.Tensor
) -> tf.Tensor:
    """Return the learning rate at a given share of the training: a linear warm-up, then a cosine to 0.

    Args:
        share: the share of the training that is done before the step, in [0, 1), scalar float32.
        base: highest learning rate.
        warmup_share: the share of the training that is warm-up; 0 for no warm-up.
        step_share: the share of the training that this one step makes up, scalar float32. During warm-up, the learning
            rate is computed for the end of the step, so that it is above 0 in the first step.

    Returns:
        Scalar float32.

    Examples:
        >>> from lowlevel_simclr.optim.schedule import compute_learning_rate_of_share
        >>> rates = [compute_learning_rate_of_share(share, 1.0, 0.5, 0.25) for share in (0.0, 0.5, 0.75)]
        >>> [round(float(rate), 4) for rate in rates]
        [0.5, 1.0, 0.5]
    """
    warmup_share = min(warmup_share, 1.0)
    rising = base * tf.minimum((share + step_share) / max(warmup_share, 1e-9), 1.0)
    falling = (share - warmup_share) / max(1 - warmup_share, 1e-9)
    falling = base * 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(falling, 0.0, 1.0)))
    return tf.where(share < warmup_share, rising, falling)


def compute_learning_rate(step: tf.Tensor, base: float, warmup_steps: int, total_steps: int) -> tf.Tensor:
    """Return the learning rate of a step: a linear warm-up, then a cosine to 0.

    The step number k starts at 0. During warm-up the rate is base (k + 1) / warmup_steps, so the last warm-up step has
    the rate `base`. After the warm-up, it is base (1 + cos(pi (k - warmup_steps) / (total_steps - warmup_steps))) / 2.
    The last step has k = total_steps - 1, so its rate is still a little above 0.

    Args:
        step: k, the number of steps already made; a scalar of any numeric type.
        base: highest learning rate.
        warmup_steps: number of warm-up steps; 0 for no warm-up.
        total_steps: number of steps of the whole run.

    Returns:
        Scalar float32.

    Examples:
        >>> from lowlevel_simclr.optim.schedule import compute_learning_rate
        >>> rates = [compute_learning_rate(step, base=1.0, warmup_steps=2, total_steps=4) for step in range(4)]
        >>> [round(float(rate), 4) for rate in rates]
        [0.5, 1.0, 1.0, 0.5]
    """
    done = tf.cast(step, tf.float32)
    rising = base * (done + 1) / max(warmup_steps, 1)
    share = (done - warmup_steps) / max(total_steps - warmup_steps, 1)
    falling = base * 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
    return tf.where(done < warmup_steps, rising, falling)
