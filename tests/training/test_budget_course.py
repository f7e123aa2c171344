"""Tests how training with a time limit (--budget) chooses its number of steps, on an imitated clock.

The class `BudgetCourse` divides a run into segments. A segment is a series of steps whose views (images) have one size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowlevel_simclr.config.view_sizes import ViewSize
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.decisions import DECISIONS, Decision, read_decisions, write_decisions
from lowlevel_simclr.training.budget_course import (
    BudgetCourse,
    Left,
    decide_segment,
    estimate_elapsed,
    estimate_last_step,
    list_borders,
)
from lowlevel_simclr.training.course import Segment

SIZES = (ViewSize(16, 0.3), ViewSize(20, 0.4), ViewSize(24, 0.3))
BUDGET, PER_STEP, COMPILES, STARTS = 100.0, 0.05, 3.0, 8.0  # seconds; PER_STEP is for views of 24 pixels
PER_CALL = 8


class Machine:
    """An imitation of a machine with a clock. Its steps can become slower, as if another program ran too."""

    def __init__(self, folder: Path, slowdown: Callable[[float], float] = lambda now: 1.0) -> None:
        """Set the clock to 0. A step that starts at time `now` takes `slowdown(now)` times as long as usual."""
        self.now, self.slowdown, self.written = 0.0, slowdown, [0]
        model = SimpleNamespace(image_size=24)
        self.plan: Any = SimpleNamespace(
            view_sizes=SIZES, budget=BUDGET, batch_size=10, pairs_per_second=10 / PER_STEP, steps=1500, model=model
        )
        self.run: Any = SimpleNamespace(folder=folder, write_steps=self.written.append)

    def train(self, first: int = 0, stop: int | None = None) -> list[Segment]:
        """Train from step `first` to the last step, or to step `stop`. Return the segments that were chosen."""
        started = self.now
        self.now += STARTS
        course = BudgetCourse(self.plan, self.run, first, started, lambda: self.now)
        done, compiled, segments = first, set(), []
        while done < course.last and (stop is None or done < stop):
            segment = course.find_segment(done)
            if segment not in segments:
                segments.append(segment)
            fresh = segment.side not in compiled
            count = 1 if fresh else min(PER_CALL, segment.last - done)
            if fresh:
                course.note_compiling()
            self.now += COMPILES * fresh
            self.now += count * PER_STEP * (segment.side / 24) ** 2 * self.slowdown(self.now)
            done += count
            if fresh:
                compiled.add(segment.side)
                course.note_compiled(done, segment.side)
        assert stop is not None or done == course.last
        return segments


def check_whole(segments: list[Segment]) -> None:
    """Check that the segments cover the whole training without a gap, and that the views never become smaller."""
    assert segments[0].from_share == 0 and segments[-1].to_share == 1
    for before, after in zip(segments, segments[1:]):
        assert (before.last, before.to_share) == (after.first, after.from_share) and before.side <= after.side
    assert [segment.side for segment in segments] == sorted(segment.side for segment in segments)


@pytest.mark.parametrize("factor", [1.0, 0.4, 3.0], ids=["as measured", "faster", "slower"])
def test_a_steady_machine_ends_just_before_the_budget(tmp_path: Path, factor: float) -> None:
    machine = Machine(tmp_path, lambda now: factor)
    segments = machine.train()
    check_whole(segments)
    assert 0.95 * BUDGET < machine.now <= BUDGET
    assert {segment.side for segment in segments} == {16, 20, 24}
    assert machine.written[-1] == segments[-1].last


@pytest.mark.parametrize("since", [10, 30, 50, 80, 90, 95, 98])
def test_a_second_program_from_any_time_on_does_not_exceed_the_budget_by_a_tenth(tmp_path: Path, since: float) -> None:
    machine = Machine(tmp_path, lambda now: 2.2 if now > since else 1.0)
    check_whole(machine.train())
    assert 0.9 * BUDGET < machine.now < 1.1 * BUDGET


@pytest.mark.parametrize("since", [20, 60, 90])
def test_a_second_program_that_ends_leaves_no_time_unused(tmp_path: Path, since: float) -> None:
    machine = Machine(tmp_path, lambda now: 1.0 if now > since else 2.2)
    check_whole(machine.train())
    assert 0.9 * BUDGET < machine.now < 1.1 * BUDGET


def test_a_program_that_comes_and_goes_changes_little(tmp_path: Path) -> None:
    machine = Machine(tmp_path, lambda now: 2.2 if int(now / 7) % 2 else 1.0)
    check_whole(machine.train())
    assert 0.9 * BUDGET < machine.now < 1.1 * BUDGET


def test_a_budget_that_is_over_ends_with_one_step(tmp_path: Path) -> None:
    machine = Machine(tmp_path, lambda now: 1e4 if now > 12 else 1.0)
    segments = machine.train()
    check_whole(segments)
    assert segments[-1].last == segments[-1].first + 1


@pytest.mark.parametrize("stop", [3, 200, 700, 1300])
def test_a_resumed_run_repeats_the_decisions_and_keeps_the_time_that_is_left(tmp_path: Path, stop: int) -> None:
    machine = Machine(tmp_path)
    machine.train(stop=stop)
    decided = read_decisions(tmp_path)
    first = max(1, decided[-1].first - 5)  # the run resumes at a checkpoint that is older than the last decision
    machine.now += 1000  # a pause in which nothing ran
    resumed = machine.now + STARTS
    machine.train(first)
    after = read_decisions(tmp_path)
    assert after[: len(decided)] == decided and after[-1].to_share == 1
    spent = estimate_elapsed(decided, first) + machine.now - resumed
    assert 0.95 * BUDGET < spent <= BUDGET


def test_a_finished_run_has_no_step_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    last = machine.train()[-1].last
    assert machine.train(first=last) == []
    assert BudgetCourse(machine.plan, machine.run, last, 0.0, lambda: 0.0).last == last


def test_a_run_whose_decisions_are_gone_is_not_resumed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(RunError, match=f"has a checkpoint of step 7, but its {DECISIONS} does not reach this step"):
        machine.train(first=7)
    write_decisions(tmp_path, [Decision(0, 5, 16, 0.0, 0.1, 8.0, 0.1)])
    with pytest.raises(RunError, match="does not reach this step. Restore the file"):
        machine.train(first=7)


def test_elapsed_time_lies_between_two_decisions() -> None:
    decisions = [Decision(0, 10, 16, 0.0, 0.5, 8.0, 0.1), Decision(10, 20, 24, 0.5, 1.0, 28.0, 0.3)]
    assert estimate_elapsed(decisions, 5) == pytest.approx(18)
    assert estimate_elapsed(decisions, 10) == pytest.approx(28)
    assert estimate_elapsed(decisions, 15) == pytest.approx(28 + 5 * 0.3)


def test_the_borders_end_each_stage_and_the_training() -> None:
    borders = list_borders(SIZES)
    shares = [share for share, _ in borders]
    assert shares == sorted(set(shares)) and shares[-1] == 1.0 and {0.3, 0.7} <= set(shares)
    assert dict(borders)[0.3] == 16 and dict(borders)[0.7] == 20 and dict(borders)[1.0] == 24


def test_the_expected_last_step_is_that_of_a_steady_machine(tmp_path: Path) -> None:
    left = Left(BUDGET - STARTS, 0, 0.0, PER_STEP, 24, compile_seconds=COMPILES)
    machine = Machine(tmp_path)
    assert machine.train()[-1].last == pytest.approx(estimate_last_step(left, SIZES), rel=0.15)


def test_time_for_compiling_is_not_given_to_steps() -> None:
    left = Left(10.0, 0, 0.0, 0.01, 16)
    short, _ = decide_segment(left._replace(compile_seconds=3.0), SIZES)
    long, _ = decide_segment(left, SIZES)
    assert short.last == pytest.approx(0.1 * long.last, abs=1)
