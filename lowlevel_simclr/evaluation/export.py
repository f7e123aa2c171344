"""A run's networks outside the run: weights from its checkpoint, and `encoder.keras`, which needs Keras alone.

Not here: training, the configuration.
"""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from lowlevel_simclr.data.transform import UNSCALED, PixelScaling, find_transform
from lowlevel_simclr.model import stock_layers
from lowlevel_simclr.run import atomic, checkpoint
from lowlevel_simclr.runtime import keras

ENCODER_FILE = "encoder.keras"


def restore_weights(folder: Path, **models: tf.keras.Model) -> int:
    """Gives models the weights of a run's newest checkpoint.

    Args:
        folder: of the run.
        models: by their name in the checkpoint, `encoder=f`, `projection=g`.

    Returns:
        The step of the checkpoint.

    Raises:
        runlog.RunError: there is none, or it is of another model.
    """
    saved = checkpoint.load_latest(folder / "checkpoints")
    if saved is None:
        raise atomic.RunError(f"{folder} has no checkpoint yet: train it first, for --checkpoint-every steps at least")
    try:
        for name, model in models.items():
            keras.assign_named(keras.name_variables(name, model), saved.arrays)
    except ValueError as error:
        raise atomic.RunError(f"the checkpoint in {folder} does not fit its config.json: {error}") from None
    return saved.step


def add_preprocessing(f: tf.keras.Model, scaling: PixelScaling = UNSCALED) -> tf.keras.Model:
    """The encoder behind its test transform (`data/transform.py`), in float32 and in layers of Keras's own.

    Args:
        f: (B, S, S, C) -> (B, d), in any precision.
        scaling: of the pixels.

    Returns:
        Images (B, H, W, C) of any size, uint8 or float in [0, 255] -> h (B, d) float32.
    """
    images = tf.keras.Input((None, None, f.input_shape[-1]), dtype="float32", name="images")
    x = find_transform(f, scaling)(images)
    return tf.keras.Model(images, stock_layers.build_stock_twin(f)(x), name=f.name)


def save_encoder(folder: Path, model: tf.keras.Model) -> Path:
    """Writes `encoder.keras` into a run folder, whole or not at all; returns the file.

    Raises:
        runlog.RunError: it cannot be written.
    """
    path, unfinished = folder / ENCODER_FILE, folder / f"unfinished-{ENCODER_FILE}"
    try:
        model.save(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise atomic.RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or mend the folder, and run the same "
            "command again"
        ) from error
    return path
