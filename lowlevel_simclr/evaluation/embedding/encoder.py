"""Makes the encoder of a run into a function that computes rows (h or z) of images, and reads the run's image shape.

A row is the output of the encoder (h) or of the projection head behind it (z) for one image. An image is read in the
same way as the training images of the run (`data/image_file.py`): it is turned upright, converted to the run's number
of channels, and scaled and cut to the shape that an evaluation of the run uses (data.json). Then it goes through the
test transform (scaling and resizing), in float32, as in the evaluation and in `encoder.keras`. So this function and the
evaluation give the same h for a training image of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr.config.settings import ModelConfig
from lowlevel_simclr.config.view_sizes import choose_evaluation_size
from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.transform import PixelScaling, find_transform
from lowlevel_simclr.evaluation import export
from lowlevel_simclr.evaluation.embedding.given import READ_CHANNELS, EmbedError
from lowlevel_simclr.evaluation.embedding.reading import Embed
from lowlevel_simclr.evaluation.represent import hash_weights
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import atomic, results
from lowlevel_simclr.runtime import precision


class Embedder(NamedTuple):
    """The trained networks of a run as a function.

    Attributes:
        embed: a function that takes images (B, H, W, C) uint8 and returns rows (B, d) float32.
        weights: the SHA-256 of the weights on which the rows depend, and the size of the images if it was set.
    """

    embed: Embed
    weights: str


def make_embedder(folder: Path, model: ModelConfig, scaling: PixelScaling, channels: int, output: str) -> Embedder:
    """Return a function that computes the rows of images, with the weights of the newest checkpoint.

    Args:
        folder: the run folder.
        model: the settings of the encoder and the projection head.
        scaling: the scaling of the pixels.
        channels: the number of channels of an image (C).
        output: "h" or "z".

    Raises:
        RunError: if there is no checkpoint, or if its weights do not fit these settings.
    """
    precision.set_precision("float32")
    f = encoder.build_encoder(model.encoder, model.stem, choose_evaluation_size(model), channels)
    g = projection.build_projection_head(
        f.output_shape[-1], model.projection_widths, batch_norm=model.projection_batch_norm
    )
    export.restore_weights(folder, encoder=f, projection=g)
    transform = find_transform(f, scaling)

    @tf.function(autograph=False)
    def embed_rows(images: tf.Tensor) -> tf.Tensor:
        h = f(transform(images), training=False)
        return h if output == "h" else g(h, training=False)

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return embed_rows(tf.constant(images)).numpy()

    size = "" if model.evaluation_size is None else f"-{model.evaluation_size}"
    return Embedder(embed, "".join(hash_weights(model) for model in ([f] if output == "h" else [f, g])) + size)


def read_stored_shape(folder: Path) -> image_file.Shape:
    """Return the shape of the images that the run was trained on, from its data.json.

    Args:
        folder: the run folder.

    Raises:
        RunError: if data.json does not hold the shape.
        EmbedError: if that shape has a number of channels that image files cannot have.
    """
    shape = (results.read_data(folder) or {}).get("shape")
    if shape is None:
        raise atomic.RunError(
            f"{folder} has no data.json with the shape of its images. Run its training command again to write it."
        )
    found = image_file.Shape(*shape)
    if found.channels not in READ_CHANNELS:
        raise EmbedError(
            f"The run in {folder} was trained on images with {found.channels} channels, but image files have 1 or 3. "
            "Load its encoder.keras and call it on your arrays."
        )
    return found


def read_bounds(folder: Path) -> image_file.Bounds | None:
    """Return the largest size of the run's images from its data.json, or None if all images have the same shape."""
    noted = (results.read_data(folder) or {}).get("frames")
    return image_file.Bounds(noted["shorter"], noted["longer"]) if noted else None
