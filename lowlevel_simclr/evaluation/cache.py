"""The results that an evaluation keeps in the run folder, so that nothing is computed twice.

There are two kinds of results: the encoder's outputs for the images (representations, h), in
h/KIND-SPLIT/step-00000123.npz, and the accuracies of trainings with labels, in scores.json. Measuring one such accuracy
takes minutes to hours, so each one is kept as soon as it is measured. If an evaluation was stopped, it measures only
the missing accuracies when it runs again.

Each entry records what it was made from: the weights (SHA-256), the configuration, the images, and either the test
transform (scaling and resizing of the images) or the settings of the training. The entry is used again only if all of
these are the same. Otherwise, or if the entry is damaged, the result is computed again and replaces the entry.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling, find_transform
from lowlevel_simclr.evaluation.represent import Represented, hash_weights, represent_splits
from lowlevel_simclr.run import checkpoint, results
from lowlevel_simclr.run.atomic import RunError

FOLDER = "h"
Say = Callable[[str], object]
LOOKED_AT = 1000  # images of a split that its fingerprint covers, evenly spaced


def represent_cached(
    folder: Path,
    kind: str,
    step: int,
    config_hash: str,
    encoder: tf.keras.Model,
    images: DataSet,
    scaling: PixelScaling = UNSCALED,
    say: Say = lambda text: None,
) -> Represented:
    """Return h of both splits: read it from the run folder, or compute it with the encoder if it is not there.

    The function writes a newly computed h to the run folder. If that fails, it only prints a warning, because h can be
    computed again.

    Args:
        folder: the run folder.
        kind: a word for the encoder, "trained" or "untrained".
        step: the number of steps that the encoder was trained.
        config_hash: the hash of the run's configuration.
        encoder: the encoder (f), in float32.
        images: the data set to represent.
        scaling: the scaling of the pixels.
        say: called with a line of text that says whether h is read or computed.

    Raises:
        EncoderChanged: see `represent.represent_splits`.
        ValueError: see `represent.represent_splits`.
    """
    made_of = {
        "config_hash": config_hash,
        "weights": hash_weights(encoder),
        "transform": find_transform(encoder, scaling).describe(images.train.images),
    }
    splits = {"train": images.train, "test": images.test}
    metas = {name: {**made_of, "images": fingerprint_split(split)} for name, split in splits.items()}
    places = {name: folder / FOLDER / f"{kind}-{name}" for name in splits}
    train, test = (_load_kept(places[name], metas[name]) for name in splits)
    title = f"representation (h), {kind} encoder"
    if train is not None and test is not None:
        say(f"{title}: from an earlier evaluation")
        return Represented(train, test)
    say(f"{title} ...")
    h = represent_splits(encoder, images, scaling, title=title)
    for name, rows in zip(splits, h):
        try:
            checkpoint.save(places[name], step, {"h": rows}, metas[name], keep=1)
        except checkpoint.CheckpointError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            where = show_name(places[name])
            print(f"warning: The representation in {where} could not be kept: {reason}.", file=sys.stderr)
    return h


def _load_kept(place: Path, meta: dict[str, Any]) -> np.ndarray | None:
    """Return the kept h (n, d) if it was made from `meta`, otherwise None. None also stands for a damaged file."""
    try:
        saved = checkpoint.load_latest(place)
    except checkpoint.CheckpointError:
        return None  # the caller computes h again
    return saved.arrays["h"] if saved and saved.meta == meta else None


def fingerprint_split(split: Split) -> str:
    """Return the first 16 digits of a SHA-256 of the split's shape, its labels and a thousand of its images."""
    count = len(split.images)
    rows = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))
    digest = hashlib.sha256(f"{tuple(split.images.shape)}".encode())
    digest.update(np.ascontiguousarray(split.labels, np.int64).tobytes())
    digest.update(np.ascontiguousarray(split.images[rows]).tobytes())
    return digest.hexdigest()[:16]


FILE = "scores.json"


class ScoreStore:
    """The kept accuracies of one kind of training with labels, for one encoder, one data set and fixed settings."""

    def __init__(self, folder: Path, protocol: str, made_of: Mapping[str, Any]) -> None:
        """Prepare the store. Nothing is read or written yet.

        Args:
            folder: the run folder.
            protocol: the name of the protocol in scores.json, such as "finetune".
            made_of: all values that the accuracies depend on, except seed and fraction, as JSON values.
        """
        self.path, self.protocol, self.made_of = folder / FILE, protocol, dict(made_of)

    def get(self, seed: int, fraction: float = 1.0) -> float | None:
        """Return the kept accuracy in [0, 1], or None if it has not been measured.

        A damaged file counts as missing. `put` renames it.

        Args:
            seed: the seed of the training.
            fraction: the share of the labels, in (0, 1].
        """
        try:
            entry = results.read_results(self.path).get(self._name_score(seed, fraction))
        except RunError:
            return None
        if not isinstance(entry, dict) or entry.get("made_of") != self.made_of:
            return None
        accuracy = entry.get("accuracy")
        return accuracy if isinstance(accuracy, float) and 0 <= accuracy <= 1 else None

    def put(self, accuracy: float, seed: int, fraction: float = 1.0) -> None:
        """Keep the accuracy of a training.

        If the file cannot be written, the method only prints a warning, because the accuracy can be measured again.

        Args:
            accuracy: in [0, 1].
            seed: the seed of the training.
            fraction: the share of the labels, in (0, 1].
        """
        entry = {self._name_score(seed, fraction): {"made_of": self.made_of, "accuracy": accuracy}}
        try:
            results.merge_results(self.path, entry)
        except RunError as error:
            print(f"warning: {show_name(self.path)} could not be kept: {error}", file=sys.stderr)

    def _name_score(self, seed: int, fraction: float) -> str:
        return f"{self.protocol}, {fraction:g} of the labels, seed {seed}"
