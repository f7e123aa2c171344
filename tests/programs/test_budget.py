"""Tests training with images (views) that become larger in several stages, and training with a time limit (--budget).

If such a training is interrupted and resumed, it must end with the same bits as without the interruption. With a time
limit, it must print which settings it chose.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowlevel_simclr import train
from lowlevel_simclr.api.budget_settings import choose_for_budget
from lowlevel_simclr.config import identity
from lowlevel_simclr.config.command_line import RunOptions
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.data import catalog
from lowlevel_simclr.run import results
from lowlevel_simclr.run.decisions import DECISIONS, read_decisions
from lowlevel_simclr.training import budget_course, progress, session, step
from lowlevel_simclr.training.course import Segment
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.program import StepsFunction
from lowlevel_simclr.training.session import Session
from tests.support.small_runs import assert_same_state, draw_few_shapes, narrow_resnet20

SMALL = ["--batch-size", "16", "--projection-widths", "16", "8", "--steps-per-call", "2", "--knn-every", "0"]
GROWING = ["--image-sizes", "8:0.5", "12:0.5", "--warmup-epochs", "0"]


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a training take seconds: sixty images, a small encoder, and no evaluation."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)
    monkeypatch.setattr(Session, "finish", lambda session: session.train())


def run(out: Path, *flags: str) -> int:
    return train.main([*SMALL, "--out", str(out), *flags])


def cut_off_at(patch: pytest.MonkeyPatch, step_of_call: int) -> None:
    """Interrupt the training at the first call of TensorFlow from Python that begins at this step or later."""

    def cut_off(metrics: step.Metrics, first_step: int) -> None:
        if first_step >= step_of_call:
            raise step.NonFiniteLoss("cut off")

    patch.setattr(progress, "refuse_non_finite_loss", cut_off)


def note_sides(patch: pytest.MonkeyPatch) -> list[int]:
    """Return a list. Whenever the step is compiled for a size of views, this size is added to the list."""
    sides, make = [], session.make_steps

    def make_steps(plan: Plan, *given: Any) -> StepsFunction:
        sides.append(plan.model.image_size)
        return make(plan, *given)

    patch.setattr(session, "make_steps", make_steps)
    return sides


def test_the_views_of_a_run_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = note_sides(monkeypatch)
    assert run(tmp_path / "run", *GROWING, "--steps", "6") == 0
    assert sides == [8, 12] and len(results.read_metrics(tmp_path / "run")) == 6
    config = results.read_config(tmp_path / "run")["model"]
    assert config["image_sizes"] == ["8:0.5", "12:0.5"] and config["image_size"] == 12


@pytest.mark.slow  # by default, the run with a budget shows that growing views resume to the bit in each stage
@pytest.mark.parametrize("flags", [[], ["--micro-batch", "8"]], ids=["whole batch", "micro-batches"])
def test_a_run_whose_views_grow_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    wanted = [*GROWING, "--steps", "6", "--checkpoint-every", "2", *flags]
    assert run(tmp_path / "whole", *wanted) == 0
    with monkeypatch.context() as patch:
        cut_off_at(patch, 4)  # in the second stage, while the last checkpoint is from the first stage
        assert run(tmp_path / "cut", *wanted) == 1
    assert run(tmp_path / "cut", *wanted) == 0
    assert_same_state(tmp_path / "whole", tmp_path / "cut")
    assert len(results.read_metrics(tmp_path / "cut")) == 6


# Training with a time limit


def pretend_steady_clock(patch: pytest.MonkeyPatch, per_step: float = 0.2) -> None:
    """Give the training a clock that advances `per_step` seconds in each step, however busy the machine is."""
    now, call = [time.monotonic()], session._call

    def call_steps(steps: Callable[..., step.Metrics], batches: list[Any], count: int) -> step.Metrics:
        now[0] += per_step * count
        return call(steps, batches, count)

    patch.setattr(session, "_call", call_steps)
    patch.setattr(budget_course, "read_clock", lambda: now[0])


BUDGET = [*GROWING, "--budget", "8s", "--pairs-per-second", "60", "--checkpoint-every", "3"]


def cut_off_at_share(patch: pytest.MonkeyPatch, share: float) -> None:
    """Interrupt the training before the first segment that begins at this share of the training or later.

    A segment is a part of the training. The number of its steps has then been decided.
    """
    find = budget_course.BudgetCourse.find_segment

    def cut_off(course: budget_course.BudgetCourse, done: int) -> Segment:
        segment = find(course, done)
        if segment.from_share >= share:
            raise step.NonFiniteLoss("cut off")
        return segment

    patch.setattr(budget_course.BudgetCourse, "find_segment", cut_off)


def test_a_run_with_a_budget_resumes_to_the_bit_in_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test a training that is interrupted in both of its stages.

    Without interruptions, and with the same decisions about the numbers of steps, it must end with the same weights.
    """
    pretend_steady_clock(monkeypatch)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    for share in (0.2, 0.7):
        with monkeypatch.context() as patch:
            cut_off_at_share(patch, share)
            assert run(cut, *BUDGET) == 1
    chosen = capsys.readouterr().out
    assert "budget               8s: about" in chosen and "60 pairs/s were given" in chosen
    assert run(cut, *BUDGET) == 0
    decisions, rows = read_decisions(cut), results.read_metrics(cut)
    assert "resumes at step" in capsys.readouterr().out and {each.image_size for each in decisions} == {8, 12}
    whole.mkdir()
    for name in ("config.json", DECISIONS):
        shutil.copy(cut / name, whole)
    assert run(whole, *BUDGET) == 0
    assert read_decisions(whole) == decisions
    assert_same_state(cut, whole)
    assert decisions[-1].to_share == 1 and decisions[-1].last == len(rows)
    assert rows[-1]["learning_rate"] < 0.1 * max(row["learning_rate"] for row in rows)
    assert json.loads((cut / "environment.json").read_text())["steps"] == len(rows)
    config = results.read_config(cut)["train"]
    assert config["budget"] == "8s" and config["pairs_per_second"] == 60 and config["steps"] > 0
    assert run(cut, *BUDGET, "--temperature", "0.3") != 0
    assert "temperature: 0.1 -> 0.3" in capsys.readouterr().err


@pytest.mark.slow
def test_a_budget_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    assert run(tmp_path / "run", *GROWING, "--budget", "40s") == 0
    assert 0.85 * 40 < time.monotonic() - begin < 1.1 * 40
    assert "pairs/s were measured here" in capsys.readouterr().out


def test_a_preview_shows_what_a_budget_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "run", *GROWING, "--budget", "60s", "--pairs-per-second", "60", "--preview") == 0
    said = capsys.readouterr().out
    assert "views of 8 then 12 pixels" in said and "60s: about" in said and "Drew the views" in said


def test_a_budget_that_is_too_short_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "run", *GROWING, "--budget", "1s", "--pairs-per-second", "2") != 0
    said = capsys.readouterr().err
    assert "--budget is 1s, but after the start" in said and "less than 10 steps. Use a longer budget" in said
    assert not (tmp_path / "run" / "config.json").exists()


def test_several_replicas_have_no_budget() -> None:
    team: Any = SimpleNamespace(count=2)
    config = identity.replace(Config(), budget="10m")
    with pytest.raises(ConfigError, match="--budget works with one replica, but there are 2. Use --devices 1"):
        choose_for_budget(config, RunOptions(Path("none")), team, catalog.load_dataset("shapes"))
