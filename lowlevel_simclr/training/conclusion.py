"""Ends a run: evaluates and exports the trained encoder, draws the pictures, and prints the results."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.view_sizes import choose_evaluation_size
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.transform import find_transform
from lowlevel_simclr.evaluation import export, represent, summary
from lowlevel_simclr.evaluation.baselines import Baseline, describe_encoder, join_results, measure_baselines
from lowlevel_simclr.evaluation.knn import measure_knn
from lowlevel_simclr.evaluation.report.page import write_report_or_warn
from lowlevel_simclr.model.encoder import give_other_size
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.run.checkup import Verdict
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import EVALUATION, merge_evaluation
from lowlevel_simclr.training.checkup import print_checkup
from lowlevel_simclr.training.learner import Learner, build_learner
from lowlevel_simclr.training.messages import print_results
from lowlevel_simclr.training.pictures import MAPPED, draw_results
from lowlevel_simclr.training.plan import Plan

say = functools.partial(print, flush=True)


def conclude(
    plan: Plan,
    run: Run,
    images: DataSet,
    learner: Learner,
    sample: DataSet | None,
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """Evaluate and export the trained encoder, draw the pictures and print the results.

    The evaluation computes in float32, whatever the precision of the run.

    Args:
        plan: the plan of the run.
        run: the run folder.
        images: the data set of the run.
        learner: the trained networks after the last step.
        sample: the images on which k-NN was measured during training, or None.
        verdicts: what the check-ups noticed during training.

    Returns:
        The contents of evaluation.json.

    Raises:
        RunError: if a file cannot be written.
        NonFiniteRepresentation: if h is NaN or infinite.
    """
    say("evaluating the trained encoder beside the untrained one and plain pixels ...")
    encoder = _build_untrained(plan, images)
    untrained: Baseline | None = None
    mapped: np.ndarray | None = None
    baselines = {"pixels": measure_knn(None, sample)} if sample is not None else {}
    if encoder is None:
        random = dataclasses.replace(plan, model=dataclasses.replace(plan.model, weights="random"))
        encoder = _build_encoder(random, images)
    else:
        if sample is not None:
            baselines["untrained encoder"] = measure_knn(encoder, sample, plan.scaling)
        mapped = represent.compute_h(encoder, images.test.images[:MAPPED], plan.scaling)
        made_of = describe_encoder(encoder, images, plan.scaling)
        untrained = Baseline(made_of, functools.partial(_represent, encoder, images, plan, "untrained"))
    beside = measure_baselines(untrained, images, say)
    encoder.set_weights(learner.encoder.get_weights())
    h = _represent(encoder, images, plan, "trained")
    transform = find_transform(encoder, plan.scaling)
    say(f"writing {export.ENCODER_FILE} ...")
    export.save_encoder(run.folder, export.add_preprocessing(encoder, plan.scaling))
    results = join_results(summary.measure_frozen({"": h}, images, plan.train_on, say), beside)
    results["transform"] = transform.describe(images.train.images)
    evaluation = merge_evaluation(run.folder / EVALUATION, int(learner.step.numpy()), results)
    say(summary.format_table(evaluation))  # before the pictures, which take seconds
    say("drawing pictures, with a map of h by t-SNE ...")
    draw_results(plan, run, images, h, mapped, baselines, int(learner.step.numpy()))
    run.write_peak_memory()
    print_checkup(plan, verdicts)
    write_report_or_warn(run.folder)
    print_results(plan, run, labelled=len(images.classes) > 1)
    return evaluation


def _build_untrained(plan: Plan, images: DataSet) -> tf.keras.Model | None:
    """Return the encoder with its initial weights, or None if the file of these weights can no longer be used."""
    try:
        return _build_encoder(plan, images)
    except ModelError as error:
        say(f"warning: The untrained encoder is left out of the evaluation. {error}")
        return None


def _build_encoder(plan: Plan, images: DataSet) -> tf.keras.Model:
    """Return the encoder of a plan before its first step, in float32, for images of the evaluation's size."""
    learner = build_learner(dataclasses.replace(plan, precision="float32"), images.train.images.shape[-1])
    return give_other_size(learner.encoder, choose_evaluation_size(plan.model))


def _represent(encoder: tf.keras.Model, images: DataSet, plan: Plan, kind: str) -> represent.Represented:
    """Print a line, and return h of both splits. `kind` is a word for the encoder, "trained" or "untrained"."""
    title = f"representation (h), {kind} encoder"
    say(f"{title} ...")
    return represent.represent_splits(encoder, images, plan.scaling, title=title)
