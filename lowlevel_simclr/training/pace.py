"""The values that a training step reads if the run has a time limit (--budget): the learning rate and the last step."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.optim.schedule import compute_learning_rate_of_share
from lowlevel_simclr.training.course import Segment

NO_END = 2**62  # steps


class Pace:
    """The learning rate and the last step of a run with a time limit. The variables hold the present segment.

    Attributes:
        last: the last step of the run, () int64. Before the last segment it is NO_END, because the last step is not
            known yet.
    """

    def __init__(self, learning_rate: float, warmup_share: float) -> None:
        """Store the schedule.

        Args:
            learning_rate: the highest learning rate.
            warmup_share: the share of the training that is warm-up.
        """
        self._rate, self._warmup = learning_rate, warmup_share
        self.last = tf.Variable(NO_END, dtype=tf.int64, trainable=False)
        self._steps = tf.Variable([0.0, 1.0], trainable=False)  # first and last step of the segment
        self._shares = tf.Variable([0.0, 1.0], trainable=False)

    def enter(self, segment: Segment) -> None:
        """Set the variables to a segment (some steps with views of one size) that begins now."""
        self._steps.assign([segment.first, segment.last])
        self._shares.assign([segment.from_share, segment.to_share])
        self.last.assign(segment.last if segment.to_share == 1 else NO_END)

    def compute_rate(self, done: tf.Tensor) -> tf.Tensor:
        """Return the learning rate of the step after `done`, scalar float32."""
        first, last = tf.unstack(self._steps)
        low, high = tf.unstack(self._shares)
        step_share = (high - low) / (last - first)
        share = low + step_share * (tf.cast(done, tf.float32) - first)
        return compute_learning_rate_of_share(share, self._rate, self._warmup, step_share)
