"""The representations h, or the projections z, of encoded images: files, or any form that `--dataset` takes.

An image is read in the same way as the images of the run's folder (`data/image_file.py`). It is turned upright, keeps
its channels, and is scaled and cut to the shape in which an evaluation of the run sees its images (data.json). Then it
goes through the test transform, in float32, as in the evaluation and in `encoder.keras`. So an image of the run's
folder has the same h here as in the evaluation.

The output file holds the rows in the order of the given images, and the path of each image. The images of a folder are
sorted by name. The file holds no pickles.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.choices import PICTURE_FORMS
from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.config.settings import ModelConfig
from lowlevel_simclr.data import frames, image_file, image_walk
from lowlevel_simclr.data.encoded import Encoded, Files, Joined
from lowlevel_simclr.data.picture_forms import Request, find_pictures
from lowlevel_simclr.data.transform import PixelScaling, find_transform
from lowlevel_simclr.evaluation import export
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import atomic, results
from lowlevel_simclr.runtime import precision
from lowlevel_simclr.runtime.files import write_atomically
from lowlevel_simclr.runtime.progress_bar import track

ENDINGS = image_walk.ENDINGS  # file endings of the images in a folder
BATCH_SIZE = 256
READ_CHANNELS = (1, 3)  # grey, or red, green and blue


class EmbedError(OneLineError, RuntimeError):
    """Images that cannot be embedded. The message says why and what to do."""


def find_images(given: Sequence[Path]) -> tuple[Encoded, list[tuple[str, str]]]:
    """Return the given files and the images in the given folders, as training would find them in a folder.

    Args:
        given: paths of files or folders, or forms of a data set, such as list:FILE or parquet:PATH.

    Returns:
        The images in the order given, where the files of a folder are sorted by name. Then the entries of folders that
        cannot be used, each with the reason: folders that cannot be listed, run folders, and other kinds of images.

    Raises:
        EmbedError: if a path does not exist, or if there is no image at all.
        DataError: if a form of a data set has no images.
    """
    sources: list[Encoded] = []
    bad: list[tuple[str, str]] = []
    for path in given:
        name = str(path)
        if name.startswith(PICTURE_FORMS) and not os.path.lexists(path):
            found = find_pictures(Request(name))
        elif _is_folder(path):
            found = find_pictures(Request(f"folder:{name}"))
        else:
            sources.append(Files(Path(), [name]))
            continue
        sources.append(found.source)
        bad += found.left_out.items()
    images = Joined(sources)
    if not len(images):
        why = f" {len(bad)} were left out, the first is {bad[0][0]}: {bad[0][1]}." if bad else ""
        raise EmbedError(
            f"There is no image in {', '.join(map(str, given))}.{why} Image files must end in "
            f"{' '.join(sorted(ENDINGS))}."
        )
    return images, bad


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder and not a file.

    Raises:
        EmbedError: if it is neither a folder nor a file, or cannot be accessed.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise EmbedError(f"{path} does not exist. Give image files, or folders of image files.") from None
    except OSError as error:
        raise EmbedError(f"{path} cannot be read: {error.strerror}. Change its permissions.") from None


def make_embedder(
    folder: Path, model: ModelConfig, scaling: PixelScaling, channels: int, output: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from images (B, H, W, C) uint8 to rows (B, d). It has the weights of the newest checkpoint.

    Args:
        folder: the run folder.
        model: the settings of the encoder and the projection head.
        scaling: the scaling of the pixels.
        channels: C.
        output: "h" or "z".

    Raises:
        RunError: if there is no checkpoint, or if it is from another model.
    """
    precision.set_precision("float32")
    f = encoder.build_encoder(model.encoder, model.stem, model.image_size, channels)
    g = projection.build_projection_head(
        f.output_shape[-1], model.projection_widths, batch_norm=model.projection_batch_norm
    )
    export.restore_weights(folder, encoder=f, projection=g)
    transform = find_transform(f, scaling)

    @tf.function(autograph=False)
    def embed_rows(images: tf.Tensor) -> tf.Tensor:
        h = f(transform(images), training=False)
        return h if output == "h" else g(h, training=False)

    return lambda images: embed_rows(tf.constant(images)).numpy()


def read_stored_shape(folder: Path) -> image_file.Shape:
    """Return the shape in which the run stored its images, from its data.json.

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
    """Return the bounds of the images of a run, from its data.json, or None if they fill the shape of the run."""
    noted = (results.read_data(folder) or {}).get("frames")
    return image_file.Bounds(noted["shorter"], noted["longer"]) if noted else None


def embed_files(
    source: Encoded,
    embed: Callable[[np.ndarray], np.ndarray],
    shape: image_file.Shape,
    title: str = "",
    bounds: image_file.Bounds | None = None,
) -> tuple[np.ndarray, list[str], list[tuple[str, str]]]:
    """Compute the rows of all images that can be read.

    Args:
        source: the encoded images.
        embed: the function from images (B, H, W, C) uint8 to rows (B, d).
        shape: the shape of an image.
        title: shown with the progress. Without it, no progress is shown.
        bounds: see `read_bounds`.

    Returns:
        The rows (n, d), the names of their images, and the names of the images that cannot be read, each with the
        reason.

    Raises:
        EmbedError: if no image can be read.
    """
    paths: list[str] = []
    bad: list[tuple[str, str]] = []
    shown = track(range(len(source)), title, len(source), "images")
    rows = [embed(batch) for batch in _read_batches(source, shown, _choose_reader(shape, bounds), paths, bad)]
    if not rows:
        raise EmbedError(f"None of the {len(source)} images could be read. First problem: {bad[0][0]}: {bad[0][1]}.")
    return np.concatenate(rows), paths, bad


def _choose_reader(shape: image_file.Shape, bounds: image_file.Bounds | None) -> Callable[[bytes], np.ndarray]:
    """Return the function that decodes the bytes of a file as the evaluation of the run sees its images."""
    if bounds is None:
        return lambda content: image_file.read_pixels(content, shape)
    return lambda content: frames.read_square(content, shape.height, bounds, shape.channels)


def _read_batches(
    source: Encoded,
    rows: Iterable[int],
    decode: Callable[[bytes], np.ndarray],
    paths: list[str],
    bad: list[tuple[str, str]],
) -> Iterator[np.ndarray]:
    """Yield images (B, H, W, C) uint8. Append the name of each image to `paths`, or to `bad` with the reason."""
    waiting: list[np.ndarray] = []
    for row in rows:
        try:
            waiting.append(decode(source.read(row)))
            paths.append(source.name(row))
        except image_file.UnreadableError as error:
            bad.append((source.name(row), str(error)))
        if len(waiting) == BATCH_SIZE:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def write_embeddings(out: Path, rows: np.ndarray, paths: Sequence[str], output: str) -> None:
    """Write FILE.npz: the rows under "h" or "z", and "paths" (n,) with `/` between folders.

    Args:
        out: the path of the file.
        rows: (n, d).
        paths: the name of the image of each row.
        output: "h" or "z".

    Raises:
        EmbedError: if the file cannot be written.
    """
    arrays: dict[str, Any] = {output: rows, "paths": np.array(paths)}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, lambda file: np.savez(file, **arrays))
    except OSError as error:
        raise EmbedError(f"Cannot write {out}: {error.strerror or error}. Use another --out.") from error
