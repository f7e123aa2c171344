"""`lowlevel_simclr.embed` and `lowlevel_simclr.load_encoder`: use the trained networks of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowlevel_simclr.api.run import Run, as_run
from lowlevel_simclr.api.stored import read_run_config
from lowlevel_simclr.config.settings import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from lowlevel_simclr.data.picture_forms import Request
    from lowlevel_simclr.evaluation.embedding.encoder import Embedder


def embed(run: Run | str | os.PathLike[str], images: Any, output: str = "h") -> np.ndarray:
    """Return the representation h or the projection z of images, computed with the newest checkpoint of a run.

    Each image is first resized, without a crop, to the size that the encoder takes. The evaluation of a run does the
    same.

    Args:
        run: a `Run`, or its folder.
        images: one of these: an array (n, H, W, C), uint8 or float with pixels in [0, 255]; the path of an image file;
            the path of a folder of image files; the name of a data set as in `train`, such as "list:FILE" or
            "npz:FILE"; a list of such paths and names.
        output: "h" for the representation (the output of the encoder), "z" for the projection (the output of the
            projection head, which takes h).

    Returns:
        (n, d) float32, one row for each image, in the order given. Images of a folder are sorted by name.

    Raises:
        ConfigError: if `output` is neither h nor z, or if the shape of the array is not (n, H, W, C).
        RunError: if the folder holds no run or no checkpoint.
        EmbedError: if a file is missing or cannot be read as an image.
        DataError: if a data set has no images.

    Example:
        >>> import numpy as np
        >>> import lowlevel_simclr as ls
        >>> images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)  # yours
        >>> ls.embed("runs/shapes", images).shape
        (5, 64)
        >>> ls.embed("runs/shapes", images, output="z").shape
        (5, 128)
    """
    if output not in ("h", "z"):
        raise ConfigError(f"output is {output!r}. Use 'h' for the representation or 'z' for the projection.")
    folder = as_run(run).folder
    paths = _list_paths(images)
    return _embed_array(folder, images, output) if paths is None else _embed_files(folder, paths, output)


def load_encoder(run: Run | str | os.PathLike[str]) -> tf.keras.Model:
    """Return the trained encoder of a run as a Keras model.

    The model contains its preprocessing. It takes images (n, H, W, C) of any size, uint8 or float with pixels in [0,
    255], and returns the representation h, (n, d) float32. The model is stored in the file encoder.keras of the run.
    Keras can load that file without this package.

    Args:
        run: a `Run`, or its folder.

    Raises:
        RunError: if the folder holds no run, or training has not finished.

    Example:
        >>> import lowlevel_simclr as ls
        >>> encoder = ls.load_encoder("runs/shapes")
        >>> encoder.output_shape
        (None, 64)
    """
    return as_run(run).encoder


def list_own_images(folder: Path) -> Request:
    """Return the data set of a run as a request: its name, and the settings with which training found the images.

    Raises:
        RunError: if the folder holds no run.
    """
    from lowlevel_simclr.data.picture_forms import Request

    config = read_run_config(folder)
    data = config.data
    return Request(data.dataset, data.data_dir, config.train.seed, data.splits, folder, data.labels, data.split)


def make_run_embedder(folder: Path, channels: int, output: str) -> Embedder:
    """Return an object that turns images (B, H, W, C) into rows (B, d), with a run's newest checkpoint.

    Raises:
        RunError: if the folder holds no run or no checkpoint.
    """
    from lowlevel_simclr.data.transform import PixelScaling
    from lowlevel_simclr.evaluation.embedding.encoder import make_embedder
    from lowlevel_simclr.runtime.process_state import keep_process_state

    model = read_run_config(folder).model
    with keep_process_state():
        return make_embedder(folder, model, PixelScaling(model.input_mean, model.input_std), channels, output)


def _list_paths(images: Any) -> list[Path] | None:
    """Return the paths or data sets that `images` names, or None if `images` is an array."""
    if isinstance(images, (str, os.PathLike)):
        return [Path(images)]
    if isinstance(images, Sequence) and images and all(isinstance(each, (str, os.PathLike)) for each in images):
        return [Path(each) for each in images]
    return None


def _embed_array(folder: Path, images: Any, output: str) -> np.ndarray:
    """Return one row for each image (n, H, W, C)."""
    import numpy as np

    from lowlevel_simclr.evaluation.embedding.reading import BATCH_SIZE
    from lowlevel_simclr.run.results import read_data

    images = np.asarray(images)
    channels = (read_data(folder) or {}).get("shape", images.shape)[-1] if images.ndim else 0
    if images.ndim != 4 or not len(images) or images.shape[-1] != channels:
        raise ConfigError(f"the images have shape {images.shape}. Give (n, height, width, {channels or 3}).")
    embed_rows = make_run_embedder(folder, channels, output).embed
    batches = range(0, len(images), BATCH_SIZE)
    return np.concatenate([embed_rows(images[start : start + BATCH_SIZE]) for start in batches])


def _embed_files(folder: Path, paths: list[Path], output: str) -> np.ndarray:
    """Return one row for each image of files or data sets. If an image cannot be read, raise an EmbedError.

    Rows are not left out, because row i must belong to image i.
    """
    from lowlevel_simclr.data import image_walk
    from lowlevel_simclr.evaluation.embedding.encoder import read_bounds, read_stored_shape
    from lowlevel_simclr.evaluation.embedding.given import EmbedError, find_given
    from lowlevel_simclr.evaluation.embedding.reading import choose_decoder, compute_all

    given, shape = find_given(paths, list_own_images(folder)), read_stored_shape(folder)
    embedder = make_run_embedder(folder, shape.channels, output)
    part = compute_all(given.source, choose_decoder(shape, read_bounds(folder)), embedder.embed)
    bad = [each for each in given.left_out if each[1] != image_walk.RUN]
    bad += [(given.source.name(place), reason) for place, reason in part.bad]
    if bad:
        count = len(given.source)
        raise EmbedError(f"{len(bad)} of {count} images cannot be read, the first is {bad[0][0]}: {bad[0][1]}")
    return part.rows
