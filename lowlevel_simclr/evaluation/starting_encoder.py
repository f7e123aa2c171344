"""Builds the encoder with which a training begins. Its weights can come from another run."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from lowlevel_simclr.config.choices import NAMED_WEIGHTS
from lowlevel_simclr.evaluation.export import describe_unfinished
from lowlevel_simclr.model.encoder import build_encoder
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkpoint import Checkpoint, CheckpointError, load_latest
from lowlevel_simclr.run.results import read_config
from lowlevel_simclr.runtime import keras

TAKEN = ("encoder", "stem", "input_mean", "input_std")  # settings that must equal those of the other run


def build_starting_encoder(
    name: str, stem: str, image_size: int, channels: int, weights: str, seed: int
) -> tf.keras.Model:
    """Return the encoder as it is before the first training step.

    Args:
        name: see `build_encoder`.
        stem: see `build_encoder`.
        image_size: see `build_encoder`.
        channels: see `build_encoder`.
        weights: see `build_encoder`. It may also be the folder of a run. Then the encoder gets the weights of that
            run's newest checkpoint. That run's projection head, optimizer and schedule are not used.
        seed: see `build_encoder`.

    Raises:
        ModelError: see `build_encoder`. Also if the run has no checkpoint, or if its encoder has another architecture.
    """
    if not is_run(weights):
        return build_encoder(name, stem, image_size, channels, weights=weights, seed=seed)
    encoder = build_encoder(name, stem, image_size, channels, seed=seed)
    saved = _load_run(Path(weights))
    try:
        keras.assign_named(keras.name_variables("encoder", encoder), saved.arrays)
    except ValueError as error:
        raise ModelError(
            f"The weights of the run {weights} do not fit {name} with the {stem} stem and {channels} channels "
            f"({str(error).removesuffix('.')}). Use the --encoder and the --stem of that run, or other --weights."
        ) from None
    return encoder


def is_run(weights: str) -> bool:
    """Return whether the starting weights are the folder of a run."""
    return weights not in NAMED_WEIGHTS and (Path(weights) / "config.json").is_file()


def describe_start(weights: str) -> str:
    """Return a text that says which checkpoint the starting weights come from, or "" if they do not come from a run.

    Raises:
        ModelError: if the run has no checkpoint.
    """
    if not is_run(weights):
        return ""
    step = _load_run(Path(weights)).step
    unfinished = describe_unfinished(Path(weights), step)
    taken = f"the encoder of {weights} at step {step}; projection head, optimizer and schedule are new"
    return f"{taken}. {unfinished}" if unfinished else taken


def list_other_settings(weights: str, model: dict[str, object]) -> dict[str, object]:
    """Return the settings that should equal those of the run that gives the weights, but do not.

    Args:
        weights: the starting weights.
        model: the section "model" of the config.json of the new run.

    Returns:
        The values of these settings in the run that gives the weights.

    Raises:
        RunError: if the config.json of the run that gives the weights is damaged.
    """
    if not is_run(weights):
        return {}
    theirs = read_config(Path(weights)).get("model")
    theirs = theirs if isinstance(theirs, dict) else {}
    return {name: theirs[name] for name in TAKEN if name in theirs and theirs[name] != model[name]}


def _load_run(folder: Path) -> Checkpoint:
    """Return the newest checkpoint of a run."""
    try:
        saved = load_latest(folder / "checkpoints")
    except (CheckpointError, RunError) as error:
        raise ModelError(f"The weights of the run {folder} cannot be read: {error}") from error
    if saved is None:
        raise ModelError(f"The run {folder} has no checkpoint yet. Train it first, or use other --weights.")
    return saved
