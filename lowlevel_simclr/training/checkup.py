"""Makes the check-ups of a run while it trains. A check-up measures the encoder, and says what is unusual (verdicts).

The measures need no labels, except the k-NN accuracy. If several processes (workers) train together, only worker 0, the
chief, makes check-ups. Check-ups change neither the weights nor the random numbers of the training.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.config.view_sizes import choose_evaluation_size
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.evaluation.knn import measure_knn
from lowlevel_simclr.evaluation.measures import Sample, count_sample, draw_sample, measure_views, project_views
from lowlevel_simclr.evaluation.verdicts import Facts, History, judge
from lowlevel_simclr.model.encoder import give_other_size
from lowlevel_simclr.run import checkup as run_checkup
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkup import Verdict
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import Row, read_metrics, set_aside_loudly
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.training.learner import Learner, list_trainable_variables
from lowlevel_simclr.training.loop import make_views
from lowlevel_simclr.training.loss import LOSS_FACTORS, compute_chance_loss
from lowlevel_simclr.training.plan import Plan

JUDGED_EVERY = 100  # steps; the run is also judged after each check-up and after its last step


class Checkup:
    """The measures of one session (one start of the training program). The method `measure` takes them.

    Attributes:
        width_z: the width of z.
        rows: the number of views (augmented images) that are measured; 0 if there are too few images.
        knn_images: the number of images that k-NN classifies; 0 without labels.
    """

    def __init__(self, plan: Plan, images: DataSet, learner: Learner, knn_sample: DataSet | None) -> None:
        """Store the arguments. The first measurement draws the held-out images.

        Args:
            plan: the plan of the run.
            images: the data set of the run.
            learner: the encoder and the projection head that are measured.
            knn_sample: the images on which k-NN is measured, or None.
        """
        self._plan, self._images, self._learner, self._knn_sample = plan, images, learner, knn_sample
        self._views = make_views(plan)
        self.width_z = learner.projection.output_shape[-1]
        self.rows = 2 * count_sample(images)
        self.knn_images = 0 if knn_sample is None else len(knn_sample.test.labels)

    @functools.cached_property
    def _sample(self) -> Sample | None:
        return draw_sample(self._images, self._plan.seed)

    @functools.cached_property
    def _evaluated(self) -> tf.keras.Model:
        """The encoder for images of the evaluation's size. It shares its weights with the learner's encoder."""
        return give_other_size(self._learner.encoder, choose_evaluation_size(self._plan.model))

    def take_weights(self) -> list[tf.Tensor]:
        """Return the present weights. Later steps do not change the returned tensors, see `Learner.take_snapshot`."""
        variables = list_trainable_variables(self._learner.encoder, self._learner.projection)
        return [keras.unwrap_variable(each).read_value() for each in variables]

    def measure(self, before: Sequence[tf.Tensor]) -> dict[str, float]:
        """Return the present measures of the learner. The keys are their names in metrics.jsonl.

        Args:
            before: the weights before the last step.
        """
        learner, found = self._learner, {}
        if self._knn_sample is not None:
            found["knn"] = measure_knn(self._evaluated, self._knn_sample, self._plan.scaling)
        if self._sample is not None:
            found |= measure_views(project_views(learner.encoder, learner.projection, self._views, self._sample))
        found["update_ratio"] = compute_update_ratio(before, self.take_weights())
        if learner.loss_scale.dynamic:
            found["loss_scale"] = float(learner.loss_scale.variables[0].numpy())
        return found


def compute_update_ratio(before: Sequence[tf.Tensor], after: Sequence[tf.Tensor]) -> float:
    """Return the length of the change of all weights, divided by the length of the weights before the change.

    Args:
        before: the weights before a step.
        after: the weights after the step.
    """
    change = math.fsum(float(tf.nn.l2_loss(new - old)) for old, new in zip(before, after))
    length = math.fsum(float(tf.nn.l2_loss(old)) for old in before)
    return math.sqrt(change / length) if length > 0 else math.nan


class Watch:
    """Judges a run from its rows of metrics, prints each verdict once, and writes checkup.json."""

    def __init__(self, plan: Plan, run: Run, done: int, checkup: Checkup) -> None:
        """Read what an earlier session has written.

        Args:
            plan: the plan of the run.
            run: the run folder, whose metrics end at the step `done`.
            done: steps trained so far.
            checkup: the measures of the run.
        """
        self._facts, self._run = collect_facts(plan, checkup), run
        self._history = History()
        self._history.add(read_metrics(run.folder))
        earlier = load_earlier(run)
        self.verdicts = [verdict for verdict in earlier.verdicts if verdict.step <= done]
        if self._history.done == plan.steps and earlier.judged != plan.steps:  # trained by a version without check-ups
            self._judge(plan.steps)

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of a host call (a call that makes several steps), and judge the run if that is due.

        The run is judged after a check-up, when a multiple of JUDGED_EVERY steps has passed, and after the last step.

        Args:
            rows: rows of metrics.jsonl, in the order of the steps.

        Raises:
            RunError: if checkup.json cannot be written.
        """
        self._history.add(rows)
        done = rows[-1]["step"]
        passed = done // JUDGED_EVERY > (rows[0]["step"] - 1) // JUDGED_EVERY
        if passed or "update_ratio" in rows[-1] or done == self._facts.steps:
            self._judge(done)

    def _judge(self, done: int) -> None:
        """Judge the run up to a step, print the new verdicts, and write all verdicts."""
        told = {verdict.kind for verdict in self.verdicts}
        found = {verdict.kind: verdict for verdict in judge(self._history, self._facts)}
        new = [verdict for kind, verdict in found.items() if kind not in told]
        for verdict in new:
            tqdm.write(f"check-up, step {done}: {format_verdict(verdict)}")
        self.verdicts = [_mark(verdict, verdict.kind in found) for verdict in self.verdicts] + new
        run_checkup.write_verdicts(self._run.folder, done, self.verdicts)


def collect_facts(plan: Plan, checkup: Checkup) -> Facts:
    """Return what the rules of the verdicts need to know about a run.

    Args:
        plan: the plan of the run.
        checkup: the measures of the run.
    """
    return Facts(
        steps=plan.steps,
        warmup_steps=plan.warmup_steps,
        batch_size=plan.batch_size,
        temperature=plan.temperature,
        loss_factor=LOSS_FACTORS[plan.loss_reduction],
        chance=compute_chance_loss(plan.batch_size, plan.loss_reduction),
        warmup_epochs=plan.optimizer.warmup_epochs,
        learning_rate=plan.optimizer.learning_rate,
        width_z=checkup.width_z,
        rows=checkup.rows,
        knn_images=checkup.knn_images,
        recipe=plan.recipe,
    )


def load_earlier(run: Run) -> run_checkup.Checkup:
    """Return the check-up of an earlier session.

    If checkup.json is damaged, it is renamed, because a new one is written.

    Args:
        run: the run folder.
    """
    try:
        return run_checkup.read_checkup(run.folder)
    except RunError:
        set_aside_loudly(run.folder / run_checkup.CHECKUP, "is damaged")
        return run_checkup.read_checkup(run.folder)


def format_verdict(verdict: Verdict) -> str:
    """Return a verdict in one line: what is wrong, the numbers that show it, and what to try."""
    return show_name(" ".join([verdict.title, verdict.evidence, *verdict.advice]))


def print_checkup(plan: Plan, verdicts: Sequence[Verdict]) -> None:
    """Print the verdicts of a run, or that nothing unusual was noticed.

    Args:
        plan: the plan of the run.
        verdicts: what was noticed.
    """
    if not verdicts:
        missing = "" if plan.checkup_every else " in the loss (--knn-every 0: h and z were not measured)"
        print(f"check-up          nothing unusual{missing}")
    for verdict in verdicts:
        when = f"since step {verdict.step}" if verdict.holds else f"at step {verdict.step}, but not at the end"
        print(f"check-up          {when}: {format_verdict(verdict)}")


def _mark(verdict: Verdict, holds: bool) -> Verdict:
    return dataclasses.replace(verdict, holds=holds)
