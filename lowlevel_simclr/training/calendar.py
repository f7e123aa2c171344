"""The steps at which a run pauses between two host calls: for a checkpoint, for k-NN, or because it ends."""

from __future__ import annotations

import dataclasses

from lowlevel_simclr.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The steps of one session, counted over the whole run.

    Attributes:
        first: the last step before the session.
        last: the last step of the run.
        per_call: the largest number of steps in one host call.
        checkpoint_every: steps between two checkpoints. 0 means never.
        knn_every: steps between two measurements of k-NN. 0 means never.
    """

    first: int
    last: int
    per_call: int
    checkpoint_every: int
    knn_every: int

    def find_next_stop(self, done: int) -> int:
        """Return the step after which the next host call ends.

        A call never runs past a step at which a checkpoint or k-NN is due. The first call makes a single step, so that
        the user sees its metrics as soon as they exist.

        Args:
            done: steps trained so far.

        Example:
            >>> calendar = Calendar(first=0, last=100, per_call=8, checkpoint_every=12, knn_every=0)
            >>> calendar.find_next_stop(0), calendar.find_next_stop(1), calendar.find_next_stop(9)
            (1, 9, 12)
        """
        stops = [done + (self.per_call if done > self.first else 1), self.last]
        stops += [done - done % every + every for every in (self.checkpoint_every, self.knn_every) if every]
        return min(stops)

    def is_checkpoint_due(self, done: int) -> bool:
        """Return whether a checkpoint is due. It is due every `checkpoint_every` steps, and after the last step."""
        return self._is_due(done, self.checkpoint_every)

    def is_knn_due(self, done: int) -> bool:
        """Return whether k-NN is due. It is due every `knn_every` steps, and after the last step."""
        return self._is_due(done, self.knn_every)

    def _is_due(self, done: int, every: int) -> bool:
        return every > 0 and (done % every == 0 or done == self.last)


def make_calendar(plan: Plan, first: int, with_knn: bool) -> Calendar:
    """Return the calendar of one session.

    Args:
        plan: the plan of the run.
        first: the last step before the session.
        with_knn: whether there is a sample of images on which k-NN can be measured.
    """
    knn_every = plan.knn_every if with_knn else 0
    return Calendar(first, plan.steps, plan.steps_per_call, plan.checkpoint_every, knn_every)
