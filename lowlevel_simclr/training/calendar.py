"""Finds the steps at which a run pauses: for a checkpoint, for a check-up, or because it ends.

A run can only pause between two host calls. A host call is a call from Python that makes several training steps. A
check-up measures the encoder during training.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from lowlevel_simclr.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The pauses of one session (one start of the training program). All steps are counted from the start of the run.

    Attributes:
        first: the last step before the session.
        last: the last step of the run.
        per_call: the largest number of steps in one host call.
        checkpoint_every: steps between two checkpoints. 0 means never.
        checkup_every: steps between two check-ups, which also measure k-NN. 0 means never.
    """

    first: int
    last: int
    per_call: int
    checkpoint_every: int
    checkup_every: int

    def find_next_stop(self, done: int) -> int:
        """Return the step after which the next host call ends.

        A call never runs past a step at which a checkpoint or a check-up is due. A step after which a check-up follows
        is a call of its own, so that the weights before and after the step can be compared. The first call makes a
        single step, so that the user sees metrics as early as possible.

        Args:
            done: steps trained so far.

        Example:
            >>> calendar = Calendar(first=0, last=100, per_call=8, checkpoint_every=12, checkup_every=0)
            >>> calendar.find_next_stop(0), calendar.find_next_stop(1), calendar.find_next_stop(9)
            (1, 9, 12)
        """
        stops = [done + (self.per_call if done > self.first else 1), self.last]
        if self.checkpoint_every:
            stops.append(_find_multiple(done, self.checkpoint_every))
        if self.checkup_every:
            due = min(_find_multiple(done, self.checkup_every), self.last)
            stops.append(due if due == done + 1 else due - 1)
        return min(stops)

    def is_checkpoint_due(self, done: int) -> bool:
        """Return whether a checkpoint is due. It is due every `checkpoint_every` steps, and after the last step."""
        return self.checkpoint_every > 0 and (done % self.checkpoint_every == 0 or done == self.last)

    def is_checkup_due(self, done: int) -> bool:
        """Return whether a check-up is due, see the function `is_checkup_due` below."""
        return self.checkup_every > 0 and bool(is_checkup_due(done, self.checkup_every, self.last))


def is_checkup_due(done: int | tf.Tensor, every: int, last: int | tf.Tensor) -> bool | tf.Tensor:
    """Return whether a check-up is due. It is due every `every` steps, and after the first and the last step.

    After the first step, the encoder is almost what it was before training. Later check-ups are compared with this
    first one.

    Args:
        done: steps trained so far, at least 1: a number or a tensor.
        every: steps between two check-ups, at least 1.
        last: the last step of the run: a number or a tensor.

    Returns:
        A bool, or a scalar bool tensor.
    """
    return (done == 1) | (done % every == 0) | (done == last)


def _find_multiple(done: int, every: int) -> int:
    """Return the first multiple of `every` after `done`."""
    return done - done % every + every


def make_calendar(plan: Plan, first: int, last: int | None = None) -> Calendar:
    """Return the calendar of one session.

    Args:
        plan: the plan of the run.
        first: the last step before the session.
        last: the last step of the run, as far as it is known. None: the number of steps in the plan.
    """
    last = plan.steps if last is None else last
    return Calendar(first, last, plan.steps_per_call, plan.checkpoint_every, plan.checkup_every)
