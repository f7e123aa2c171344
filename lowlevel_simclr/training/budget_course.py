"""The course of a run with a time limit (--budget): how many steps it makes, and how large the views (images) are.

The run is divided into segments. Each segment is decided just before it begins, and recorded in budget.json.

The number of steps cannot be fixed before the run, because another program may take a core at any time. So the learning
rate does not depend on the number of steps. It is a function of the share of the training that is done, from 0 to 1. A
segment covers a fixed span of this share. Its number of steps is decided when it begins: (time left) x (span of the
segment) / (share left) / (measured time of a step). So the learning rate reaches 0 at the end of the budget, whatever
the speed was.

A decision is written before the first step of its segment. A resumed run repeats the written decisions and does not
look at the clock for them. So the steps of these segments compute the same bits as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.config.view_sizes import ViewSize, compare_cost
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.decisions import DECISIONS, Decision, read_decisions, write_decisions
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.training.course import Course, FixedCourse, Segment
from lowlevel_simclr.training.plan import Plan

SPARE = 0.01  # share of the budget that is left for the last checkpoint
GRID = 20  # segments of equal span; further ones begin where the size of the views changes and near the end
LATE = (0.975, 0.99)  # further borders of segments, so that a slow last segment cannot exceed the budget by much
EQUAL = 1e-9  # shares that differ by less are equal


def read_clock() -> float:
    """Return the time in seconds on the clock that measures a budget."""
    return time.monotonic()


class Left(NamedTuple):
    """What is known when a segment is decided.

    Attributes:
        seconds: the time that is left for training.
        done: the steps made so far.
        share: the share of the training that is done, in [0, 1).
        seconds_per_step: the time of a step with views of `side` pixels.
        side: the side of the views in pixels, for `seconds_per_step`.
        compiled: the sides of views for which the step is already compiled.
        compile_seconds: the time to compile the step for one more size.
    """

    seconds: float
    done: int
    share: float
    seconds_per_step: float
    side: int
    compiled: frozenset[int] = frozenset()
    compile_seconds: float = 0.0


def list_borders(sizes: Sequence[ViewSize]) -> list[tuple[float, int]]:
    """Return the end of each segment as a share of the training, and the side of the segment's views.

    Examples:
        >>> list_borders([ViewSize(16, 0.5), ViewSize(24, 0.5)])[9:11]
        [(0.5, 16), (0.55, 24)]
    """
    ends, share = [], 0.0
    for size in sizes:
        share += size.share
        ends.append(round(share, 9))
    ends[-1] = 1.0
    shares = sorted({*ends, *(round(place / GRID, 9) for place in range(1, GRID)), *LATE})
    sides = [next(size.side for size, end in zip(sizes, ends) if end > share - EQUAL) for share in shares]
    return list(zip(shares, sides))


def decide_segment(left: Left, sizes: Sequence[ViewSize]) -> tuple[Segment, float]:
    """Return the next segment, and the expected time of one of its steps.

    The segment has at least one step. If no time is left, this step is the last one of the run.

    Args:
        left: what is known before the segment.
        sizes: the sizes of the views, and their shares of the training.
    """
    borders = [border for border in list_borders(sizes) if border[0] > left.share + EQUAL]
    to_share, side = borders[0]
    per_step = left.seconds_per_step * compare_cost(side, left.side)
    coming = {other for _, other in borders} - left.compiled
    seconds = left.seconds - left.compile_seconds * len(coming)
    if seconds < per_step:
        side = left.side if left.side in left.compiled else side
        return Segment(left.done, left.done + 1, side, left.share, 1.0), per_step
    count = int(seconds * (to_share - left.share) / (1 - left.share) / per_step)
    return Segment(left.done, left.done + max(1, count), side, left.share, to_share), per_step


def estimate_last_step(left: Left, sizes: Sequence[ViewSize]) -> int:
    """Return the last step of a run, if all further steps take as long as the latest ones.

    Args:
        left: what is known before the segment.
        sizes: the sizes of the views, and their shares of the training.
    """
    while left.share < 1 - EQUAL:
        segment, per_step = decide_segment(left, sizes)
        fresh = segment.side not in left.compiled
        spent = (segment.last - segment.first) * per_step + left.compile_seconds * fresh
        left = left._replace(
            seconds=left.seconds - spent,
            done=segment.last,
            share=segment.to_share,
            seconds_per_step=per_step,
            side=segment.side,
            compiled=left.compiled | {segment.side},
        )
    return left.done


def estimate_elapsed(decisions: Sequence[Decision], done: int) -> float:
    """Return how much of the budget had passed after step `done`, in seconds, as the decisions say.

    A resumed run continues to count from this time. So steps that were lost when the process was killed do not count.

    Args:
        decisions: the decisions of the run.
        done: steps made so far, at least 1 and at most the last step that a decision covers.
    """
    place = next(place for place, each in enumerate(decisions) if each.last >= done)
    decision = decisions[place]
    if place + 1 < len(decisions):
        per_step = (decisions[place + 1].elapsed - decision.elapsed) / (decision.last - decision.first)
    else:
        per_step = decision.seconds_per_step
    return decision.elapsed + (done - decision.first) * per_step


def plan_course(plan: Plan, run: Run, first: int, started: float) -> Course:
    """Return the course of a session (one start of the training program).

    Args:
        plan: the plan of the run.
        run: the run folder.
        first: the last step before the session.
        started: when the program began, by `read_clock`.

    Raises:
        RunError: if budget.json is damaged.
    """
    if plan.budget is None:
        return FixedCourse(plan.view_sizes, plan.steps)
    return BudgetCourse(plan, run, first, started, read_clock)


class BudgetCourse:
    """The course of a run with a budget. The module's docstring explains it."""

    def __init__(self, plan: Plan, run: Run, first: int, started: float, clock: Callable[[], float]) -> None:
        """Read the decisions of earlier sessions.

        Args:
            plan: the plan of the run.
            run: the run folder.
            first: the last step before the session.
            started: when the program began, by the clock.
            clock: returns a time in seconds.

        Raises:
            RunError: if budget.json is damaged, or does not reach step `first`.
        """
        self._plan, self._run, self._clock = plan, run, clock
        self._seconds = (plan.budget or 0.0) * (1 - SPARE)
        self._decisions = read_decisions(run.folder)
        refuse_missing_decisions(run.folder, self._decisions, first)
        self._origin = clock() - estimate_elapsed(self._decisions, first) if first else started
        self._compiled: frozenset[int] = frozenset()
        self._compile_seconds = self._compiling = 0.0  # the latter: when the last compilation began
        self._mark: tuple[int, float] | None = None  # a step, and the time on the clock after it
        decided = self._decisions[-1] if self._decisions else None
        over = decided is not None and decided.to_share >= 1 - EQUAL
        self.last = decided.last if decided and over else max(plan.steps, decided.last + 1 if decided else 1)

    def needs_decision(self, done: int) -> bool:
        """Return whether the segment of the step after `done` is not decided yet."""
        return not self._decisions or done >= self._decisions[-1].last

    def find_segment(self, done: int) -> Segment:
        """Return the segment of the step after `done`. If it is not decided yet, decide and record it."""
        if self.needs_decision(done):
            self._decide(done)
        found = next(each for each in self._decisions if each.last > done)
        return Segment(found.first, found.last, found.image_size, found.from_share, found.to_share)

    def note_compiling(self) -> None:
        """Note that the first call with views of a new size begins."""
        self._compiling = self._clock()

    def note_compiled(self, done: int, side: int) -> None:
        """Note that the first call with views of this size has ended after step `done`."""
        now = self._clock()
        self._compiled |= {side}
        self._compile_seconds = max(self._compile_seconds, now - self._compiling)
        self._mark = done, now

    def _decide(self, done: int) -> None:
        """Decide the next segment, and write it into the run folder."""
        now = self._clock()
        left = self._measure(done, now)
        segment, per_step = decide_segment(left, self._plan.view_sizes)
        self._mark = (done, now) if self._mark else None
        decision = Decision(*segment, elapsed=round(now - self._origin, 3), seconds_per_step=per_step)
        self._decisions.append(decision)
        over = segment.to_share >= 1 - EQUAL
        expected = estimate_last_step(left, self._plan.view_sizes)
        self.last = segment.last if over else max(segment.last + 1, expected)
        write_decisions(self._run.folder, self._decisions)
        self._run.write_steps(self.last)

    def _measure(self, done: int, now: float) -> Left:
        """Return what is known about the segment that begins after step `done`."""
        plan, last = self._plan, self._decisions[-1] if self._decisions else None
        share, side = (last.to_share, last.image_size) if last else (0.0, plan.model.image_size)
        if self._mark and self._mark[0] < done:
            per_step = (now - self._mark[1]) / (done - self._mark[0])
        else:
            per_step = last.seconds_per_step if last else plan.batch_size / plan.pairs_per_second
        seconds = self._seconds - (now - self._origin)
        return Left(seconds, done, share, per_step, side, self._compiled, self._compile_seconds)


def refuse_missing_decisions(folder: Path, decisions: Sequence[Decision], first: int) -> None:
    """Check that the decisions of a run reach the step of its checkpoint.

    Raises:
        RunError: if they do not, because budget.json was removed or restored from an older copy.
    """
    if first and (not decisions or decisions[-1].last < first):
        raise RunError(
            f"{folder} has a checkpoint of step {first}, but its {DECISIONS} does not reach this step. Restore the "
            "file, or start a new run with --fresh."
        )
