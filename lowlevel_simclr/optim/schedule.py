"""The learning rate: scaled with the batch, warmed up linearly, then a cosine to 0."""

from __future__ import annotations

import math

import tensorflow as tf


def scale_learning_rate(base: float, batch_size: int, rule: str) -> float:
    """The learning rate of a batch size (SimCLR, appendix B.1): linear base B / 256, sqrt base sqrt(B), none base.

    Raises:
        ValueError: there is no such rule.
    """
    factors = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
    if rule not in factors:
        raise ValueError(f"there is no learning-rate scaling '{rule}': give one of {', '.join(factors)}")
    return base * factors[rule]


def compute_learning_rate(step: tf.Tensor, base: float, warmup_steps: int, total_steps: int) -> tf.Tensor:
    """Linear warm-up, then a cosine to 0, per step.

    Step k of the warm-up, counted from 0, has base (k + 1) / warmup_steps, so the last has `base`; after it the rate is
    base (1 + cos(pi (k - warmup) / (total - warmup))) / 2, which would be 0 at k = total.

    Args:
        step: scalar, steps done, of any type of number.
        base: the highest rate.
        warmup_steps: 0 for none.
        total_steps: of the whole run.

    Returns:
        Scalar float32.
    """
    done = tf.cast(step, tf.float32)
    rising = base * (done + 1) / max(warmup_steps, 1)
    share = (done - warmup_steps) / max(total_steps - warmup_steps, 1)
    falling = base * 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
    return tf.where(done < warmup_steps, rising, falling)
