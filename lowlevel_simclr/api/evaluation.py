"""`lowlevel_simclr.evaluate`: measures the accuracy of a run's encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowlevel_simclr.api.run import Run, as_run
from lowlevel_simclr.config.choices import PROTOCOLS
from lowlevel_simclr.config.evaluation_settings import EvaluationSettings, make_evaluation_settings

__all__ = ["PROTOCOLS", "EvaluationSettings", "evaluate"]  # lowlevel_simclr/evaluate.py imports all three

DEFAULTS = EvaluationSettings()


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    dataset: Any = None,
    data_dir: str | None = None,
    out: str | os.PathLike[str] | None = None,
    protocol: str | Sequence[str] = DEFAULTS.protocol,
    label_fraction: float | Sequence[float] = DEFAULTS.label_fraction,
    seeds: int = DEFAULTS.seeds,
    finetune_steps: int = DEFAULTS.finetune_steps,
    finetune_batch_size: int = DEFAULTS.finetune_batch_size,
    finetune_learning_rate: float = DEFAULTS.finetune_learning_rate,
    probe_passes: int = DEFAULTS.probe_passes,
) -> dict[str, Any]:
    """Evaluate the encoder of a run, and add the results to its evaluation.json.

    Everything is computed in float32. Older results in the file are kept if they belong to the newest checkpoint.

    Args:
        run: a `Run`, or its folder.
        dataset: the images, in the form in which `train` took them. They are needed only for a run that was trained on
            images in memory. The `Run` that `train` returned still has them, so they are not needed with it.
        data_dir: the folder that holds the files of the data set now. None: the folder where training found them.
        out: a JSON file for the results. None: evaluation.json in the run's folder. If that file cannot be written, a
            warning says so, and the results are only returned.
        protocol: ways to measure the accuracy, one or more of: "knn" (nearest neighbours), "linear" (a linear
            classifier on h, the output of the encoder), "linear-augmented" (the same, trained on h of random crops and
            flips) and "finetune" (the encoder and a linear classifier are trained together).
        label_fraction: shares of the labelled images that fine-tuning uses, above 0 and at most 1.
        seeds: number of seeds. Everything random is repeated with each seed.
        finetune_steps: number of steps of fine-tuning, the same for every share of the labels.
        finetune_batch_size: images in a step of fine-tuning.
        finetune_learning_rate: the first learning rate of fine-tuning.
        probe_passes: number of passes of "linear-augmented" over the train split.

    Returns:
        The whole content of evaluation.json: for each protocol the accuracies in [0, 1], such as
        {"knn": {"20": 0.93, ...}, "linear": 0.95}.

    Raises:
        ConfigError: if an argument is impossible.
        DataError: if the images are missing, or are not the images of the run.
        RunError: if the folder holds no run or no checkpoint, or if `out` cannot be written.

    Example:
        >>> import lowlevel_simclr as ls
        >>> results = ls.evaluate("runs/shapes", protocol="knn")
        representation (h), trained encoder ...
        >>> sorted(results["knn"])
        ['20', '200']
    """
    settings = make_evaluation_settings(
        protocol=protocol,
        label_fraction=label_fraction,
        seeds=seeds,
        finetune_steps=finetune_steps,
        finetune_batch_size=finetune_batch_size,
        finetune_learning_rate=finetune_learning_rate,
        probe_passes=probe_passes,
    )
    run = as_run(run)
    images = run.find_images(dataset)

    from lowlevel_simclr.api.subject import evaluate_run  # here, so that --help does not import TensorFlow

    return evaluate_run(run.folder, settings, data_dir, images, None if out is None else Path(out))
