"""The course of a run: its segments, one after another. In a segment, all views (augmented images) have one size.

Without --budget, the configuration fixes all segments (`FixedCourse`). With --budget, which limits the time, a segment
is decided just before it begins, from the time that is left (`budget_course.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from lowlevel_simclr.config.view_sizes import ViewSize


class Segment(NamedTuple):
    """Some steps with views of one size.

    Attributes:
        first: the number of steps before the segment. Its own first step is first + 1.
        last: the last step of the segment.
        side: the side of a view in pixels (S).
        from_share: the share of the training that is done before the segment, in [0, 1).
        to_share: the share that is done after it, in (0, 1].
    """

    first: int
    last: int
    side: int
    from_share: float
    to_share: float


class Course(Protocol):
    """The methods of a course that the training uses.

    Attributes:
        last: the last step of the run, as far as it is known. No step after it will be made.
    """

    last: int

    def find_segment(self, done: int) -> Segment:
        """Return the segment of the step after `done`."""

    def needs_decision(self, done: int) -> bool:
        """Return whether `find_segment(done)` would read the clock to decide the next segment.

        If so, the device must have finished its steps before `find_segment` is called.
        """

    def note_compiling(self) -> None:
        """Note the time when the first call with views of a new size begins."""

    def note_compiled(self, done: int, side: int) -> None:
        """Note the time when the first call with views of this size has ended, after step `done`."""


class FixedCourse:
    """The course whose segments the configuration fixes."""

    def __init__(self, sizes: Sequence[ViewSize], steps: int) -> None:
        """Divide the steps.

        Args:
            sizes: the sizes of the views, and their shares of the steps.
            steps: the number of steps of the run.
        """
        self.last, self._segments = steps, divide_steps(sizes, steps)

    def find_segment(self, done: int) -> Segment:
        """Return the segment of the step after `done`."""
        return next(segment for segment in self._segments if segment.last > done)

    def needs_decision(self, done: int) -> bool:
        """Return False, because nothing is measured."""
        return False

    def note_compiling(self) -> None:
        """Do nothing, because the course does not depend on time."""

    def note_compiled(self, done: int, side: int) -> None:
        """Do nothing, because the course does not depend on time."""


def divide_steps(sizes: Sequence[ViewSize], steps: int) -> list[Segment]:
    """Return the segments of a run with this number of steps.

    A size whose share is less than one step may get no segment. The last size always gets one.

    Args:
        sizes: the sizes of the views, and their shares of the steps.
        steps: the number of steps of the run.

    Examples:
        >>> [(each.side, each.first, each.last) for each in divide_steps([ViewSize(16, 0.3), ViewSize(24, 0.7)], 10)]
        [(16, 0, 3), (24, 3, 10)]
    """
    segments, first, share = [], 0, 0.0
    for place, size in enumerate(sizes):
        to_share = 1.0 if place == len(sizes) - 1 else share + size.share
        last = steps if to_share == 1.0 else min(round(to_share * steps), steps - 1)
        if last > first:
            segments.append(Segment(first, last, size.side, share, to_share))
        first, share = last, to_share
    return segments
