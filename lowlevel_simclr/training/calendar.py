"""When a run pauses between two host calls: for a checkpoint, a look at k-NN, or its end."""

from __future__ import annotations

import dataclasses

from lowlevel_simclr.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The steps of one session, counted over the whole run.

    first: the step that the session starts after. last: where the run ends. per_call: steps of a host call at most.
    checkpoint_every, knn_every: steps between two of them, 0 for never.
    """

    first: int
    last: int
    per_call: int
    checkpoint_every: int
    knn_every: int

    def find_next_stop(self, done: int) -> int:
        """Return the step at which the next host call ends: at the latest where a checkpoint or k-NN is due.

        The first call makes one step, so that a user sees it as soon as there is one.
        """
        stops = [done + (self.per_call if done > self.first else 1), self.last]
        stops += [done - done % every + every for every in (self.checkpoint_every, self.knn_every) if every]
        return min(stops)

    def is_checkpoint_due(self, done: int) -> bool:
        """Return whether the state after step `done` is saved."""
        return self._is_due(done, self.checkpoint_every)

    def is_knn_due(self, done: int) -> bool:
        """Return whether k-NN is measured after step `done`."""
        return self._is_due(done, self.knn_every)

    def _is_due(self, done: int, every: int) -> bool:
        return every > 0 and (done % every == 0 or done == self.last)


def make_calendar(plan: Plan, first: int, with_knn: bool) -> Calendar:
    """Return the calendar of a session.

    Args:
        plan: of the run.
        first: the step that the session starts after.
        with_knn: whether there is a sample that k-NN can be measured on.
    """
    knn_every = plan.knn_every if with_knn else 0
    return Calendar(first, plan.steps, plan.steps_per_call, plan.checkpoint_every, knn_every)
