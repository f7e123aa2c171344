"""The end of a run: the evaluation and export of the trained encoder, the pictures, and the printed results."""

from __future__ import annotations

import dataclasses
from typing import Any

from tqdm import tqdm

from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.transform import find_transform
from lowlevel_simclr.evaluation import export, represent, summary
from lowlevel_simclr.evaluation.knn import measure_knn
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import merge_evaluation
from lowlevel_simclr.training.learner import Learner, build_learner
from lowlevel_simclr.training.messages import print_results
from lowlevel_simclr.training.pictures import draw_results
from lowlevel_simclr.training.plan import Plan


def conclude(plan: Plan, run: Run, images: DataSet, learner: Learner, sample: DataSet | None) -> dict[str, Any]:
    """Evaluate and export the trained encoder, draw the pictures and print the results.

    The evaluation computes in float32, whatever the precision of the run.

    Args:
        plan: the plan of the run.
        run: the run folder.
        images: the data set of the run.
        learner: the learner after the last step.
        sample: the images on which k-NN was measured during training, or None.

    Returns:
        What evaluation.json holds.

    Raises:
        RunError: if a file cannot be written.
        ValueError: if h is NaN or infinite.
    """
    channels = images.train.images.shape[-1]
    encoder = build_learner(dataclasses.replace(plan, precision="float32"), channels).encoder  # still untrained
    baselines = {}
    if sample is not None:
        baselines = {
            "pixels": measure_knn(None, sample),
            "untrained encoder": measure_knn(encoder, sample, plan.scaling),
        }
    tqdm.write("evaluating ...")
    h_untrained = represent.represent_splits(encoder, images, plan.scaling)
    encoder.set_weights(learner.encoder.get_weights())
    h = represent.represent_splits(encoder, images, plan.scaling)
    transform = find_transform(encoder, plan.scaling)
    export.save_encoder(run.folder, export.add_preprocessing(encoder, plan.scaling))
    rows = {"": h, "_untrained": h_untrained, "_pixels": represent.represent_pixels(images)}
    results = summary.measure_frozen(rows, images, plan.seed, plan.train_on)
    results["transform"] = transform.describe(images.train.images.shape)
    evaluation = merge_evaluation(run.folder, int(learner.step.numpy()), results)
    draw_results(plan, run, images, h, h_untrained, baselines)
    run.write_peak_memory()
    print_results(plan, run, evaluation)
    return evaluation
