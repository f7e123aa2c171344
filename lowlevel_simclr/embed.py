"""python -m lowlevel_simclr.embed RUN IMAGES... --out FILE.npz: h, or z, of any images.

Each image is read as those of the run's folder were (`picture.py`): upright, in their channels, scaled and cut to the
shape that they are stored in, by the run's data.json. Then it goes through the test transform of the evaluation, in
float32, as in `encoder.keras`: an image of the run's folder has the h that the evaluation saw. The file holds the rows
in the order that the images were given in (those of a folder by name), and the path of each; it holds no pickles.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: its start-up notes are not the user's business

import numpy as np
import tensorflow as tf

from lowlevel_simclr import compat, encoder, export, image_folder, picture, projection, runlog
from lowlevel_simclr.command_line import FlagParser
from lowlevel_simclr.config import Config, ConfigError, from_dict

DESCRIPTION = "Writes the representation h (or the projection z) of images, as the encoder of a run sees them."
ENDINGS = image_folder.ENDINGS  # what is taken for an image in a folder
BATCH_SIZE = 256
READ_CHANNELS = (1, 3)  # grey, or red, green, blue


class EmbedError(RuntimeError):
    """Images that cannot be embedded; the text says why and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Embeds and writes; names on stderr what could not be read; returns the exit code."""
    given = _parser().parse_strictly(sys.argv[1:] if argv is None else argv)
    try:
        config = from_dict(runlog.read_config(given.run))
        files = found(given.images)
        shape = stored_shape(given.run)
        embed = embedder(given.run, config, shape.channels, given.output)
        rows, paths, bad = embedded(files, embed, config.model.image_size, shape)
        write(given.out, rows, paths, given.output)
    except (ConfigError, runlog.RunError, EmbedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, reason in bad:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    print(f"{given.output} {rows.shape} of {len(paths)} images: {given.out} ({len(bad)} skipped)")
    return 0


def found(given: Sequence[Path]) -> list[Path]:
    """The files that were named, and the images in the folders that were, by name.

    Raises:
        EmbedError: something named is not there, or there is no image at all.
    """
    files: list[Path] = []
    for path in given:
        if not path.exists():
            raise EmbedError(f"{path} is not there: give image files, or folders of them")
        inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        files += [each for each in inside if each.is_file()]
    if not files:
        raise EmbedError(
            f"there is no image in {', '.join(map(str, given))}: images end in {' '.join(sorted(ENDINGS))}"
        )
    return files


def embedder(folder: Path, config: Config, channels: int, output: str) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (B, S, S, C) in [0, 1], already resized -> rows (B, d), with the newest checkpoint's weights.

    Raises:
        runlog.RunError: there is none, or it is of another model.
    """
    compat.set_precision("float32")
    model, mean, std = config.model, config.model.input_mean, config.model.input_std
    f = encoder.build(model.encoder, model.stem, model.image_size, channels)
    g = projection.build(f.output_shape[-1], model.projection_widths, batch_norm=model.projection_batch_norm)
    export.restore(folder, encoder=f, projection=g)

    @tf.function(autograph=False)
    def rows_of(x: tf.Tensor) -> tf.Tensor:
        x = x if mean is None else x - tf.constant(mean, tf.float32)
        x = x if std is None else x / tf.constant(std, tf.float32)
        h = f(x, training=False)
        return h if output == "h" else g(h, training=False)

    return lambda x: rows_of(tf.constant(x)).numpy()


def stored_shape(folder: Path) -> picture.Shape:
    """The shape in which the run stored its images, by its data.json.

    Raises:
        runlog.RunError: it does not say.
        EmbedError: no image file has as many channels.
    """
    shape = (runlog.read_data(folder) or {}).get("shape")
    if shape is None:
        raise runlog.RunError(
            f"{folder} has no data.json with the shape of its images: run the command that trained it once more"
        )
    found = picture.Shape(*shape)
    if found.channels not in READ_CHANNELS:
        raise EmbedError(
            f"the images of {folder} have {found.channels} channels, and image files are read with 1 or 3: "
            "call its encoder.keras on your arrays"
        )
    return found


def embedded(
    files: Sequence[Path], embed: Callable[[np.ndarray], np.ndarray], size: int, shape: picture.Shape
) -> tuple[np.ndarray, list[Path], list[tuple[Path, str]]]:
    """Rows (n, d) of the files that can be read, these files, and the others with the reason.

    Raises:
        EmbedError: none can be read.
    """
    paths: list[Path] = []
    bad: list[tuple[Path, str]] = []
    rows = [embed(batch) for batch in _batches(files, size, shape, paths, bad)]
    if not rows:
        raise EmbedError(f"none of {len(files)} images can be read, the first is {bad[0][0]}: {bad[0][1]}")
    return np.concatenate(rows), paths, bad


def _batches(
    files: Sequence[Path], size: int, shape: picture.Shape, paths: list[Path], bad: list[tuple[Path, str]]
) -> Iterator[np.ndarray]:
    """Images (B, S, S, C) in [0, 1]; notes which file is a row and which is bad, as it comes to them."""
    waiting: list[np.ndarray] = []
    for path in files:
        try:
            waiting.append(resized(picture.pixels(path.read_bytes(), shape), size))
            paths.append(path)
        except picture.UnreadableError as error:
            bad.append((path, str(error)))
        except OSError as error:
            bad.append((path, f"cannot be read: {error.strerror}"))
        if len(waiting) == BATCH_SIZE:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The test transform of `protocol.representations` up to the scaling: uint8 (H, W, C) -> float32 (S, S, C)."""
    x = tf.cast(image, tf.float32) / 255
    return (x if x.shape[:2] == (size, size) else tf.image.resize(x, (size, size), antialias=True)).numpy()


def write(out: Path, rows: np.ndarray, paths: Sequence[Path], output: str) -> None:
    """FILE.npz: the rows under "h" or "z", and "paths" (n,), `/`-separated.

    Raises:
        EmbedError: it cannot be written.
    """
    names = np.array([path.as_posix() for path in paths])
    arrays: dict[str, Any] = {output: rows, "paths": names}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        runlog.write_atomically(out, lambda file: np.savez(file, **arrays))
    except OSError as error:
        raise EmbedError(f"cannot write {out}: {error.strerror or error}; give another --out") from error


def _parser() -> FlagParser:
    """The flags of one call."""
    usage = "%(prog)s RUN IMAGES... --out FILE.npz [--output z]"
    parser = FlagParser(prog="python -m lowlevel_simclr.embed", description=DESCRIPTION, usage=usage)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("images", metavar="IMAGES", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", metavar="FILE.npz", type=Path, required=True, help="what is written")
    parser.add_argument("--output", choices=("h", "z"), default="h", help="the representation or the projection")
    return parser


if __name__ == "__main__":
    sys.exit(main())
