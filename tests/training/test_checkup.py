"""Tests the check-up, which measures the encoder during training and prints warnings (verdicts).

A check-up must not change the training. It must print each warning only once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import train
from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.optim.loss_scale import build_loss_scale
from lowlevel_simclr.optim.optimizers import build_optimizer
from lowlevel_simclr.reference import checkup as reference
from lowlevel_simclr.run.checkup import CHECKUP, MEASURES, Verdict, read_checkup
from lowlevel_simclr.run.folder import Run, open_run
from lowlevel_simclr.run.results import read_metrics
from lowlevel_simclr.training import step
from lowlevel_simclr.training.checkup import Checkup, Watch, compute_update_ratio, print_checkup
from lowlevel_simclr.training.learner import Learner, build_learner
from lowlevel_simclr.training.plan import Plan, make_plan
from lowlevel_simclr.training.session import Session
from tests.support.open_runs import CONFIG, compare_temperature, make_row
from tests.support.small_runs import assert_same_state, draw_few_shapes, narrow_resnet20

SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--warmup-epochs", "0"]
SMALL += ["--precision", "float32", "--steps", "8", "--steps-per-call", "3", "--checkpoint-every", "4"]
SMALL += ["--knn-every", "1"]
VERDICT = Verdict("stuck", 100, "The loss is stuck.", "It is 6.2.", ("Use --epochs 9.", "Or --seed 1."))


@pytest.fixture(scope="module", autouse=True)
def small_runs() -> Iterator[None]:
    """Use sixty images for training and a narrow encoder. Skip the evaluation after training."""
    with pytest.MonkeyPatch.context() as patch:
        draw_few_shapes(patch)
        narrow_resnet20(patch)
        patch.setattr(Session, "finish", lambda session: session.train())
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for eight steps, with check-ups after steps 1, 3, 6 and 8. Return the folder of the run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train.main([*SMALL, "--out", str(out)]) == 0
    return out


def read_rows(out: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.jsonl without the speed, which differs in every run."""
    return [{name: value for name, value in row.items() if name != "pairs_per_second"} for row in read_metrics(out)]


# The measures of a whole run


def test_a_run_has_all_measures_at_its_check_ups_and_none_elsewhere(whole: Path) -> None:
    found = read_checkup(whole)
    assert set(found.series) == set(MEASURES) - {"loss_scale"}
    assert all(series.steps == [1, 3, 6, 8] for series in found.series.values())
    assert all(np.isfinite(series.values).all() for series in found.series.values())
    assert found.series["rank_z"].values[0] != found.series["rank_z"].values[-1]
    assert [row["step"] for row in read_metrics(whole) if "knn" in row] == [1, 3, 6, 8]
    assert found.verdicts == [] and found.judged == 8


def test_check_ups_change_neither_the_weights_nor_the_loss_and_a_resumed_run_measures_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test a run that begins without check-ups, is interrupted, and resumes after step 4 with check-ups."""
    out = tmp_path / "cut"

    def cut_off(metrics: step.Metrics, first_step: int) -> None:
        if first_step >= 7:
            raise step.NonFiniteLoss("cut off")

    with monkeypatch.context() as patch:
        patch.setattr("lowlevel_simclr.training.progress.refuse_non_finite_loss", cut_off)
        assert train.main([*SMALL, "--knn-every", "0", "--out", str(out)]) == 1
    assert read_checkup(out).series == {} and len(read_rows(out)) >= 5
    assert train.main([*SMALL, "--out", str(out)]) == 0
    assert_same_state(whole, out)
    found, right = read_rows(out), read_rows(whole)
    assert found[4:] == right[4:]
    assert found[:4] == [{name: row[name] for name in ("step", "loss", "top1", "learning_rate")} for row in right[:4]]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--xla", "on"], ["--micro-batch", "8"], ["--devices", "cpu:1"]], ids=" ".join)
def test_check_ups_change_nothing_in_any_form_of_the_step(tmp_path: Path, flags: list[str]) -> None:
    for every in ("0", "1"):
        assert train.main([*SMALL, *flags, "--knn-every", every, "--out", str(tmp_path / every)]) == 0
    assert_same_state(tmp_path / "0", tmp_path / "1")
    assert read_checkup(tmp_path / "1").series["gradient_norm"].steps == [1, 3, 6, 8]


def test_images_without_labels_have_the_same_measures_without_knn(plan: Plan) -> None:
    images = load_dataset("shapes")
    learner = build_learner(plan, 3)
    measured = Checkup(plan, images, learner, None)
    before = measured.take_weights()
    weight = learner.projection.trainable_variables[0]
    weight.assign(weight + 1e-3)
    found = measured.measure(before)
    assert set(found) == set(MEASURES) - {"gradient_norm", "loss_scale"}
    assert all(math.isfinite(value) for value in found.values()) and found["update_ratio"] > 0
    assert (measured.rows, measured.knn_images) == (80, 0)


# The measures of one step


def test_the_update_ratio_agrees_with_the_reference() -> None:
    random = np.random.default_rng(0)
    before = [random.normal(size=shape).astype(np.float32) for shape in ((7,), (3, 4), (2, 3, 5))]
    after = [weights + np.float32(1e-3) * random.normal(size=weights.shape).astype(np.float32) for weights in before]
    found = compute_update_ratio([tf.constant(each) for each in before], [tf.constant(each) for each in after])
    assert found == pytest.approx(reference.compute_update_ratio(before, after), rel=1e-5)
    assert compute_update_ratio([tf.constant([3.0])], [tf.constant([3.3])]) == pytest.approx(0.1)
    assert math.isnan(compute_update_ratio([tf.zeros(2)], [tf.ones(2)]))


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_norm_is_that_of_the_gradient_without_its_scale(precision: str, compiled: bool) -> None:
    """Compare the norm with the reference. Every second step measures it; in the other steps it is NaN.

    The optimizer has no momentum, no weight decay and the learning rate 1. So each step changes the weights by exactly
    the gradient.
    """
    random = np.random.default_rng(1)
    weights = [tf.Variable(random.normal(size=shape), dtype=tf.float32) for shape in ((4, 3), (5,))]
    gradients = [tf.constant(random.normal(size=weight.shape), tf.float32) for weight in weights]
    optimizer, scale = build_optimizer("sgd", weights, momentum=0.0), build_loss_scale(precision)
    learner = Learner(None, None, optimizer, scale, tf.Variable(0, dtype=tf.int64))
    factor = float(scale.scale_loss(tf.constant(1.0)))

    def act() -> tf.Tensor:
        due = tf.equal(learner.step % 2, 0)
        return step._update_weights(learner, [factor * each for each in gradients], tf.constant(1.0), due)

    call = tf.function(act) if compiled else act
    before = [weight.numpy() for weight in weights]
    norms = [float(call()) for _ in range(3)]
    right = reference.compute_length([each.numpy() for each in gradients])
    assert norms == [pytest.approx(right, rel=1e-6), pytest.approx(math.nan, nan_ok=True), norms[0]]
    moved = [old - new.numpy() for old, new in zip(before, weights)]
    assert reference.compute_length(moved) == pytest.approx(3 * right, rel=1e-5)


# Warnings (verdicts) during a run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(tmp_path / "run", CONFIG, compare_temperature()) as opened:
        yield opened


@pytest.fixture(scope="module")
def plan() -> Plan:
    config = identity.replace(presets.load_preset("shapes"), batch_size=16, epochs=120, warmup_epochs=1.0)
    return make_plan(config, load_dataset("shapes"))  # an epoch has 3 steps


class NoMeasures:
    """Takes the place of a `Checkup` whose data set has too few images to measure."""

    width_z, rows, knn_images = 8, 0, 0


def feed(watch: Watch, run: Run, steps: range, loss: float) -> None:
    """Append the rows of metrics of `steps` to the run and to `watch`, which judges the run. Add ten rows at a time."""
    for first in steps[::10]:
        rows = [{**make_row(number), "loss": loss} for number in range(first, min(first + 10, steps.stop))]
        run.append(rows)
        watch.add(rows)


def test_a_verdict_is_told_when_it_happens_and_once(plan: Plan, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    chance = math.log(31)
    watch = Watch(plan, run, 0, NoMeasures())
    feed(watch, run, range(1, 191), chance)
    assert watch.verdicts == [] and read_checkup(run.folder).judged == 100
    feed(watch, run, range(191, 201), chance)
    said = capsys.readouterr()
    line = next(line for line in (said.out + said.err).splitlines() if line.startswith("check-up, step 200: "))
    assert "The loss does not leave the chance level" in line and "--learning-rate" in line
    feed(watch, run, range(201, 351), chance)
    said = capsys.readouterr()
    assert "check-up" not in said.out + said.err
    stored = read_checkup(run.folder)
    assert [(verdict.kind, verdict.step, verdict.holds) for verdict in stored.verdicts] == [("stuck", 200, True)]
    feed(watch, run, range(351, 361), chance)
    assert read_checkup(run.folder).judged == 360  # the last step of the run
    assert read_checkup(run.folder).verdicts == watch.verdicts == stored.verdicts


def test_a_verdict_that_no_longer_holds_says_so(plan: Plan, run: Run) -> None:
    watch = Watch(plan, run, 0, NoMeasures())
    feed(watch, run, range(1, 201), math.log(31))
    feed(watch, run, range(201, 301), 1.5)
    assert [(verdict.kind, verdict.holds) for verdict in watch.verdicts] == [("stuck", False)]


def test_a_resumed_session_knows_what_was_told_before(plan: Plan, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    chance = math.log(31)
    feed(Watch(plan, run, 0, NoMeasures()), run, range(1, 251), chance)
    capsys.readouterr()
    feed(Watch(plan, run, 250, NoMeasures()), run, range(251, 301), chance)
    assert "check-up" not in capsys.readouterr().out
    run.cut_metrics(150)  # the run resumes at step 150, and the warning came at step 200
    earlier = Watch(plan, run, 150, NoMeasures())
    assert earlier.verdicts == []
    feed(earlier, run, range(151, 201), chance)
    assert "check-up, step 200" in capsys.readouterr().out


def test_a_run_that_ended_before_there_were_check_ups_is_judged(plan: Plan, run: Run) -> None:
    run.append([{**make_row(number), "loss": math.log(31)} for number in range(1, 361)])
    assert [verdict.kind for verdict in Watch(plan, run, 360, NoMeasures()).verdicts] == ["stuck"]
    assert read_checkup(run.folder).judged == 360


def test_a_damaged_check_up_is_kept_under_another_name(
    plan: Plan, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.folder / CHECKUP).write_text("{")
    assert Watch(plan, run, 0, NoMeasures()).verdicts == []
    assert f"{CHECKUP} is damaged" in capsys.readouterr().err
    assert (run.folder / f"{CHECKUP}.damaged").read_text() == "{"


def test_the_end_of_a_run_says_what_was_noticed(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    print_checkup(plan, [])
    print_checkup(dataclasses.replace(plan, checkup_every=0), [])
    print_checkup(plan, [VERDICT, dataclasses.replace(VERDICT, step=7, holds=False)])
    assert capsys.readouterr().out.splitlines() == [
        "check-up          nothing unusual",
        "check-up          nothing unusual in the loss (--knn-every 0: h and z were not measured)",
        "check-up          since step 100: The loss is stuck. It is 6.2. Use --epochs 9. Or --seed 1.",
        "check-up          at step 7, but not at the end: The loss is stuck. It is 6.2. Use --epochs 9. Or --seed 1.",
    ]
