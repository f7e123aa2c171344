"""What an evaluation keeps in the run folder, so that it is not computed twice.

h of the images, in h/KIND-SPLIT/step-00000123.npz, and the accuracies of trainings with labels, in scores.json, as they
are measured: each takes minutes to hours, so an evaluation that was stopped goes on with those that are missing.

Each entry says what it was made of: the weights (SHA-256), the configuration, the images, and the test transform or the
recipe. It is used again only where all of that is the same. Otherwise, or where it is damaged, it is computed anew and
replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling, find_transform
from lowlevel_simclr.evaluation.represent import Represented, hash_weights, represent_splits
from lowlevel_simclr.run import checkpoint, results

FOLDER = "h"
LOOKED_AT = 1000  # images of a split that its fingerprint reads, evenly spread


def represent_cached(
    folder: Path,
    kind: str,
    step: int,
    config_hash: str,
    encoder: tf.keras.Model,
    images: DataSet,
    scaling: PixelScaling = UNSCALED,
) -> Represented:
    """h of both splits, from the run folder where it is there, else from the encoder and into the run folder.

    Args:
        folder: of the run.
        kind: a word for the encoder, "trained" or "untrained".
        step: how many steps it was trained.
        config_hash: of the run's configuration.
        encoder: f, float32.
        images: whose h is wanted.
        scaling: of the pixels, see `transform.PixelScaling`.

    Raises:
        protocol.EncoderChanged, ValueError: see `represent.represent_splits`.
        checkpoint.CheckpointError: it cannot be written.
    """
    made_of = {
        "config_hash": config_hash,
        "weights": hash_weights(encoder),
        "transform": find_transform(encoder, scaling).describe(images.train.images.shape),
    }
    splits = {"train": images.train, "test": images.test}
    metas = {name: {**made_of, "images": fingerprint_split(split)} for name, split in splits.items()}
    places = {name: folder / FOLDER / f"{kind}-{name}" for name in splits}
    train, test = (_load_kept(places[name], metas[name]) for name in splits)
    if train is not None and test is not None:
        return Represented(train, test)
    h = represent_splits(encoder, images, scaling)
    for name, rows in zip(splits, h):
        checkpoint.save(places[name], step, {"h": rows}, metas[name], keep=1)
    return h


def _load_kept(place: Path, meta: dict[str, Any]) -> np.ndarray | None:
    """Return h (n, d) that was made of the same, or None where there is none or it cannot be used."""
    try:
        saved = checkpoint.load_latest(place)
    except checkpoint.CheckpointError:
        return None  # it is computed anew
    return saved.arrays["h"] if saved and saved.meta == meta else None


def fingerprint_split(split: Split) -> str:
    """Sixteen hexadecimal digits of the split's shape, labels and a thousand of its images (SHA-256)."""
    count = len(split.images)
    rows = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))
    digest = hashlib.sha256(f"{tuple(split.images.shape)}".encode())
    digest.update(np.ascontiguousarray(split.labels, np.int64).tobytes())
    digest.update(np.ascontiguousarray(split.images[rows]).tobytes())
    return digest.hexdigest()[:16]


FILE = "scores.json"


class ScoreStore:
    """The accuracies of one protocol, made of one encoder, one set of images and one recipe."""

    def __init__(self, folder: Path, protocol: str, made_of: Mapping[str, Any]) -> None:
        """Opens the store of a run; nothing is read or written yet.

        Args:
            folder: of the run.
            protocol: a word for what was trained, "finetune" for one.
            made_of: all that an accuracy depends on and that is the same for all of them; as JSON has it.
        """
        self.path, self.protocol, self.made_of = folder / FILE, protocol, dict(made_of)

    def get(self, seed: int, fraction: float = 1.0) -> float | None:
        """The accuracy in [0, 1] that was measured, or None.

        Raises:
            runlog.RunError: the file is not JSON.
        """
        entry = results.read_results(self.path).get(self._name(seed, fraction))
        return entry["accuracy"] if entry and entry["made_of"] == self.made_of else None

    def put(self, accuracy: float, seed: int, fraction: float = 1.0) -> None:
        """Keeps an accuracy in [0, 1] of a training with a seed on a fraction of the labels.

        Raises:
            runlog.RunError: the file is not JSON, or cannot be written.
        """
        results.merge_results(self.path, {self._name(seed, fraction): {"made_of": self.made_of, "accuracy": accuracy}})

    def _name(self, seed: int, fraction: float) -> str:
        return f"{self.protocol}, {fraction:g} of the labels, seed {seed}"
