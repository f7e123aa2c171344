"""h of a run's images, computed once and kept in the run folder: h/KIND-SPLIT/step-00000123.npz.

Each file says what it was made of: the weights (SHA-256), the configuration, the images and the test transform. It is
used again only where all of that is the same; otherwise, or where it is damaged, h is computed anew and replaces it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr import checkpoint, protocol
from lowlevel_simclr.data import DataSet, Split
from lowlevel_simclr.protocol import Represented

FOLDER = "h"
LOOKED_AT = 1000  # images of a split that its fingerprint reads, evenly spread


def represent(
    folder: Path,
    kind: str,
    step: int,
    config_hash: str,
    encoder: tf.keras.Model,
    images: DataSet,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Represented:
    """h of both splits, from the run folder where it is there, else from the encoder and into the run folder.

    Args:
        folder: of the run.
        kind: a word for the encoder, "trained" or "untrained".
        step: how many steps it was trained.
        config_hash: of the run's configuration.
        encoder: f, float32.
        images: whose h is wanted.
        mean: per channel, see `protocol.representations`.
        std: per channel.

    Raises:
        protocol.EncoderChanged, ValueError: see `protocol.represent`.
        checkpoint.CheckpointError: it cannot be written.
    """
    made_of = {
        "config_hash": config_hash,
        "weights": protocol.weights_hash(encoder),
        "transform": protocol.transform(images.train.images.shape, encoder.input_shape[1], mean, std),
    }
    splits = {"train": images.train, "test": images.test}
    metas = {name: {**made_of, "images": fingerprint(split)} for name, split in splits.items()}
    places = {name: folder / FOLDER / f"{kind}-{name}" for name in splits}
    train, test = (_kept(places[name], metas[name]) for name in splits)
    if train is not None and test is not None:
        return Represented(train, test)
    h = protocol.represent(encoder, images, mean, std)
    for name, rows in zip(splits, h):
        checkpoint.save(places[name], step, {"h": rows}, metas[name], keep=1)
    return h


def _kept(place: Path, meta: dict[str, Any]) -> np.ndarray | None:
    """h (n, d) that was made of the same, or None."""
    saved = checkpoint.latest(place)
    return saved.arrays["h"] if saved and saved.meta == meta else None


def fingerprint(split: Split) -> str:
    """Sixteen hexadecimal digits of the split's shape, labels and a thousand of its images (SHA-256)."""
    count = len(split.images)
    rows = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))
    digest = hashlib.sha256(f"{tuple(split.images.shape)}".encode())
    digest.update(np.ascontiguousarray(split.labels, np.int64).tobytes())
    digest.update(np.ascontiguousarray(split.images[rows]).tobytes())
    return digest.hexdigest()[:16]
