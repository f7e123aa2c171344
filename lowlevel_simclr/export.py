"""A run's networks outside the run: weights from its checkpoint, and `encoder.keras`, which needs Keras alone.

Not here: training, the configuration.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from lowlevel_simclr import checkpoint, compat, encoder, runlog

layers = tf.keras.layers

NAME = "encoder.keras"


def restore(folder: Path, **models: tf.keras.Model) -> int:
    """Gives models the weights of a run's newest checkpoint.

    Args:
        folder: of the run.
        models: by their name in the checkpoint, `encoder=f`, `projection=g`.

    Returns:
        The step of the checkpoint.

    Raises:
        runlog.RunError: there is none, or it is of another model.
    """
    saved = checkpoint.latest(folder / "checkpoints")
    if saved is None:
        raise runlog.RunError(f"{folder} has no checkpoint yet: train it first, for --checkpoint-every steps at least")
    try:
        for name, model in models.items():
            compat.assign_named(compat.named_variables(name, model), saved.arrays)
    except ValueError as error:
        raise runlog.RunError(f"the checkpoint in {folder} does not fit its config.json: {error}") from None
    return saved.step


def with_preprocessing(
    f: tf.keras.Model, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tf.keras.Model:
    """The encoder behind the test transform of `protocol.representations`, in float32 and in layers of Keras's own.

    Args:
        f: (B, S, S, C) -> (B, d), in any precision.
        mean: per channel, taken from pixels in [0, 1]; None for 0.
        std: per channel, what they are divided by after that; None for 1.

    Returns:
        Images (B, H, W, C) of any size, uint8 or float in [0, 255] -> h (B, d) float32.
    """
    size, channels = f.input_shape[1], f.input_shape[-1]
    images = tf.keras.Input((None, None, channels), dtype="float32", name="images")
    x = layers.Rescaling(1 / 255, dtype="float32", name="to_0_1")(images)
    x = compat.antialiased_resize(x, size)
    if mean is not None or std is not None:
        offset, scale = (list(mean or [0.0] * channels), list(std or [1.0] * channels))
        variance = [float(value) ** 2 for value in scale]
        x = layers.Normalization(mean=offset, variance=variance, dtype="float32", name="mean_and_std")(x)
    return tf.keras.Model(images, encoder.stock_twin(f)(x), name=f.name)


def save(folder: Path, model: tf.keras.Model) -> Path:
    """Writes `encoder.keras` into a run folder, whole or not at all; returns the file.

    Raises:
        runlog.RunError: it cannot be written.
    """
    path, unfinished = folder / NAME, folder / f"unfinished-{NAME}"
    try:
        model.save(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise runlog.RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or mend the folder, and run the same "
            "command again"
        ) from error
    return path
