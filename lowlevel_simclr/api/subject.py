"""Evaluates the newest checkpoint of a run, for the function `lowlevel_simclr.evaluate` and the program `evaluate`.

The subject of an evaluation is everything that the evaluation needs of the run: the encoder, the images and some
settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from lowlevel_simclr.api.stored import read_run_config
from lowlevel_simclr.config.evaluation_settings import EvaluationSettings
from lowlevel_simclr.config.identity import hash_config, replace
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.config.view_sizes import choose_evaluation_size
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import fine_tune
from lowlevel_simclr.evaluation.export import restore_weights
from lowlevel_simclr.evaluation.protocols import Options, Subject, evaluate_subject
from lowlevel_simclr.evaluation.report.page import write_report_or_warn
from lowlevel_simclr.evaluation.starting_encoder import build_starting_encoder
from lowlevel_simclr.evaluation.summary import format_table
from lowlevel_simclr.run.results import read_data
from lowlevel_simclr.runtime.precision import set_precision
from lowlevel_simclr.runtime.process_state import keep_process_state
from lowlevel_simclr.runtime.xla import find_xla_problem
from lowlevel_simclr.training.plan import load_images


def evaluate_run(
    folder: Path,
    settings: EvaluationSettings,
    data_dir: str | None = None,
    images: DataSet | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Evaluate the newest checkpoint of a run, and add the results to evaluation.json. Return the file's whole content.

    Without `out`, the function also writes the run's report.html again, with the new results.

    At its end, the function restores Keras' dtype policy and TensorFlow's op determinism to their values before the
    call.

    Args:
        folder: the run folder.
        settings: the settings of the evaluation.
        data_dir: the folder that holds the data now. None: the folder where training found them.
        images: the images of the run, if it was trained on images in memory. Otherwise None.
        out: the file for the results. None: evaluation.json in the run folder.

    Raises:
        ConfigError, DataError, RunError, CheckpointError: if the run or its images cannot be read.
        EncoderChanged: if the weights of the encoder changed during the evaluation.
        Diverged: if the learning rate of fine-tuning is too high.
    """
    config = read_run_config(folder)
    config = replace(config, data_dir=data_dir or config.data.data_dir, cache=_find_cache(config.data.cache))
    recipe = fine_tune.FINE_TUNING._replace(
        steps=settings.finetune_steps,
        batch_size=settings.finetune_batch_size,
        learning_rate=settings.finetune_learning_rate,
    )
    options = Options(settings.protocol, settings.label_fraction, settings.seeds, recipe, settings.probe_passes)
    with keep_process_state():
        if config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        found = evaluate_subject(_make_subject(folder, config, images), options, out)
    if out is None:
        write_report_or_warn(folder)
    return found


def _find_cache(cache: str | None) -> str | None:
    """Return the folder of `--cache` if it exists, otherwise None.

    An evaluation may run on another machine than the training, so it does not create this folder.
    """
    return cache if cache is not None and Path(cache).expanduser().is_dir() else None


def print_evaluation(folder: Path, settings: EvaluationSettings, data_dir: str | None, out: Path | None) -> None:
    """Evaluate a run with `evaluate_run`, and print the table of results."""
    print(format_table(evaluate_run(folder, settings, data_dir, out=out)))


def _make_subject(folder: Path, config: Config, given: DataSet | None) -> Subject:
    """Return the encoder of the newest checkpoint of a run, and the images of the run."""
    images = given or load_images(config, read_data(folder), own=folder)
    model = config.model

    def build(weights: str) -> tf.keras.Model:
        set_precision("float32")
        channels = images.train.images.shape[-1]
        size, seed = choose_evaluation_size(model), config.train.seed
        return build_starting_encoder(model.encoder, model.stem, size, channels, weights, seed)

    encoder = build("random")  # restore_weights replaces these weights by those of the checkpoint
    return Subject(
        folder=folder,
        step=restore_weights(folder, encoder=encoder),
        encoder=encoder,
        build_untrained=lambda: build(model.weights),
        images=images,
        seed=config.train.seed,
        train_on=config.data.train_on,
        scaling=PixelScaling(model.input_mean, model.input_std),
        recipe=config.views,
        compile_views=config.train.xla != "off" and find_xla_problem() is None,
        config_hash=hash_config(config),
    )
