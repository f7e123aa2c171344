"""Small untrained networks for tests of the export, and the folder of a run that has them in its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation.formats.network import Network
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras
from tests.support.small_runs import narrow_resnet20

SIZE, WIDTHS, BATCH_NORM = 8, (12, 6), "hidden"
SCALING = PixelScaling((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))


def build_networks(
    name: str = "resnet20", stem: str = "cifar", size: int = SIZE
) -> tuple[tf.keras.Model, tf.keras.Model]:
    """Return an encoder and a projection head, as after some training: BatchNorm does not have its initial values."""
    f = encoder.build_encoder(name, stem, size, seed=5)
    g = projection.build_projection_head(f.output_shape[-1], WIDTHS, seed=5, batch_norm=BATCH_NORM)
    random = np.random.default_rng(0)
    for model in (f, g):
        model.set_weights(
            [each + (each.ndim == 1) * random.uniform(0, 0.1, each.shape) for each in model.get_weights()]
        )
    return f, g


def make_network(
    patch: pytest.MonkeyPatch, head: bool = True, preprocessing: bool = True, size: int | None = None
) -> Network:
    """Return the `Network` to export: a narrow ResNet-20 for images of 8 x 8 pixels."""
    narrow_resnet20(patch)
    f, g = build_networks()
    return Network(f, g if head else None, SCALING, preprocessing, size)


def write_run(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Write a run folder for the networks of `build_networks`: the checkpoint, config.json and data.json."""
    narrow_resnet20(patch)
    f, g = build_networks()
    config = identity.replace(
        settings.Config(),
        image_size=SIZE,
        projection_widths=WIDTHS,
        projection_batch_norm=BATCH_NORM,
        input_mean=SCALING.mean,
        input_std=SCALING.std,
    )
    variables = {**keras.name_variables("encoder", f), **keras.name_variables("projection", g)}
    checkpoint.save(folder / "checkpoints", 2, {name: each.numpy() for name, each in variables.items()}, {}, keep=1)
    (folder / "config.json").write_text(json.dumps(identity.to_dict(config)))
    (folder / "data.json").write_text(json.dumps({"shape": [12, 12, 3]}))
    return folder
