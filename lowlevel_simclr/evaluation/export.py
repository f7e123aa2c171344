"""Loads the networks of a run from its checkpoint, and writes the encoder into a file that needs only Keras."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tensorflow as tf

from lowlevel_simclr.data.transform import UNSCALED, PixelScaling, find_transform
from lowlevel_simclr.evaluation import keras_archive
from lowlevel_simclr.model import stock_layers
from lowlevel_simclr.run import atomic, checkpoint
from lowlevel_simclr.run.results import read_results
from lowlevel_simclr.runtime import keras

ENCODER_FILE = "encoder.keras"


def restore_weights(folder: Path, **models: tf.keras.Model) -> int:
    """Load the weights of a run's newest checkpoint into models.

    Args:
        folder: the run folder.
        **models: the models by their names in the checkpoint: `encoder=f`, `projection=g`.

    Returns:
        The number of the training step after which the checkpoint was written.

    Raises:
        RunError: if there is no checkpoint, or if its weights do not fit the models.
    """
    saved = checkpoint.load_latest(folder / "checkpoints")
    if saved is None:
        raise atomic.RunError(f"{folder} has no checkpoint yet. Train for at least --checkpoint-every steps first.")
    try:
        for name, model in models.items():
            keras.assign_named(keras.name_variables(name, model), saved.arrays)
    except ValueError as error:
        raise atomic.RunError(
            f"The checkpoint in {folder} does not fit its config.json: {str(error).removesuffix('.')}."
        ) from None
    unfinished = describe_unfinished(folder, saved.step)
    if unfinished:
        print(f"warning: {unfinished}", file=sys.stderr, flush=True)
    return saved.step


def describe_unfinished(folder: Path, step: int) -> str:
    """Return a sentence if the training of a run has not ended, otherwise "".

    Args:
        folder: the run folder. Its environment.json holds the number of steps. If that file is missing, the function
            returns "".
        step: the step of the newest checkpoint.
    """
    try:
        steps = read_results(folder / "environment.json").get("steps")
    except (OSError, atomic.RunError):  # only this message needs the file, so the error is ignored
        return ""
    if not isinstance(steps, int) or step >= steps:
        return ""
    return f"The training has not ended: these are the weights of step {step} of {steps}."


def add_preprocessing(f: tf.keras.Model, scaling: PixelScaling = UNSCALED) -> tf.keras.Model:
    """Return a model that applies the test transform (scaling and resizing, `data/transform.py`), then the encoder.

    It computes in float32 and has only Keras's own layers.

    Args:
        f: the encoder (B, S, S, C) -> (B, d), in any precision.
        scaling: how pixels are scaled before the encoder.

    Returns:
        A model from images (B, H, W, C) of any size, uint8 or float in [0, 255], to h (B, d) float32.
    """
    images = tf.keras.Input((None, None, f.input_shape[-1]), dtype="float32", name="images")
    x = find_transform(f, scaling)(images)
    return tf.keras.Model(images, stock_layers.build_stock_twin(f)(x), name=f.name)


def save_encoder(folder: Path, model: tf.keras.Model) -> Path:
    """Write `encoder.keras` into a run folder, either completely or not at all, and return its path.

    Keras 3.4 and later can read the file, even if a newer version of Keras 3 wrote it.

    Args:
        folder: the run folder.
        model: the encoder with its test transform, see `add_preprocessing`.

    Raises:
        RunError: if the file cannot be written.
    """
    path, unfinished = folder / ENCODER_FILE, folder / f"unfinished-{ENCODER_FILE}"
    try:
        model.save(unfinished)
        if keras.find_keras_generation() == 3:
            keras_archive.drop_defaults(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise atomic.RunError(
            f"Cannot write {path}: {error.strerror or error}. Free some disk space or check the folder's permissions, "
            "and run the same command again."
        ) from error
    return path
