"""Tests the class `Calendar`, which decides how many training steps run in each call of TensorFlow (host call).

A host call ends at each checkpoint, at the end of the run, and before and after each step with a check-up. A check-up
measures the encoder's outputs during training.
"""

from __future__ import annotations

import pytest
import tensorflow as tf

from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.data import catalog
from lowlevel_simclr.training.calendar import Calendar, is_checkup_due, make_calendar
from lowlevel_simclr.training.plan import make_plan


def list_stops(calendar: Calendar) -> list[int]:
    """Return the number of the last step of each host call."""
    stops, done = [], calendar.first
    while done < calendar.last:
        stops.append(calendar.find_next_stop(done))
        done = stops[-1]
    return stops


def test_the_first_call_makes_one_step_and_the_others_as_many_as_they_may() -> None:
    assert list_stops(Calendar(0, 20, 8, 0, 0)) == [1, 9, 17, 20]
    assert list_stops(Calendar(13, 20, 8, 0, 0)) == [14, 20]  # resumed after step 13: again a first call of one step


def test_a_call_ends_where_a_checkpoint_is_due_and_the_step_of_a_check_up_is_a_call_of_its_own() -> None:
    assert list_stops(Calendar(0, 20, 8, 10, 0)) == [1, 9, 10, 18, 20]
    assert list_stops(Calendar(0, 20, 8, 10, 6)) == [1, 5, 6, 10, 11, 12, 17, 18, 19, 20]
    assert list_stops(Calendar(10, 20, 8, 10, 6)) == [11, 12, 17, 18, 19, 20]


def test_a_finished_run_makes_no_call() -> None:
    assert list_stops(Calendar(20, 20, 8, 10, 6)) == []


@pytest.mark.parametrize("per_call", [1, 3, 8, 100])
@pytest.mark.parametrize("first", [0, 1, 7, 29])
@pytest.mark.parametrize(("checkpoint_every", "checkup_every"), [(5, 0), (4, 6), (100, 7)])
def test_nothing_that_is_due_falls_inside_a_call(
    per_call: int, first: int, checkpoint_every: int, checkup_every: int
) -> None:
    calendar = Calendar(first, 30, per_call, checkpoint_every, checkup_every)
    stops = list_stops(calendar)
    due = [step for step in range(first + 1, 31) if calendar.is_checkpoint_due(step) or calendar.is_checkup_due(step)]
    assert set(due) <= set(stops) and stops[-1] == 30
    assert {step - 1 for step in due if calendar.is_checkup_due(step)} <= {first, *stops}
    assert all(0 < after - before <= per_call for before, after in zip([first, *stops], stops))


def test_both_are_due_at_the_end_and_never_where_they_are_off() -> None:
    calendar = Calendar(0, 7, 8, 5, 0)
    assert [step for step in range(1, 8) if calendar.is_checkpoint_due(step)] == [5, 7]
    assert not any(calendar.is_checkup_due(step) for step in range(1, 8))
    assert [step for step in range(1, 8) if Calendar(0, 7, 8, 5, 3).is_checkup_due(step)] == [1, 3, 6, 7]


def test_the_compiled_step_finds_the_same_check_ups() -> None:
    due = [step for step in range(1, 8) if bool(is_checkup_due(tf.constant(step, tf.int64), 3, 7))]
    assert due == [1, 3, 6, 7]


@pytest.mark.usefixtures("small_runs")
def test_a_session_takes_its_calendar_from_the_plan() -> None:
    config = identity.replace(settings.Config(), batch_size=20, epochs=4, steps_per_call=2, checkpoint_every=5)
    plan = make_plan(config, catalog.load_dataset("shapes"))  # an epoch has 3 steps; a check-up follows each epoch
    assert make_calendar(plan, 6) == Calendar(6, 12, 2, 5, 3)
