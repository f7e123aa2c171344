"""`lowlevel_simclr.export`: writes the encoder of a run as files for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lowlevel_simclr.api.run import Run, as_run
from lowlevel_simclr.api.stored import read_run_config
from lowlevel_simclr.config.choices import EXPORT_FORMATS, EXPORT_WEIGHTS
from lowlevel_simclr.config.settings import ConfigError

if TYPE_CHECKING:
    from lowlevel_simclr.evaluation.formats.form import Format
    from lowlevel_simclr.evaluation.formats.network import Network
    from lowlevel_simclr.evaluation.formats.parity import Parity


def export(
    run: Run | str | os.PathLike[str],
    format: str,  # noqa: A002, the name of the flag
    *,
    out: str | os.PathLike[str] | None = None,
    with_projection_head: bool = False,
    preprocessing: bool = True,
    image_size: int | None = None,
    weights: str = "float32",
) -> Path:
    """Write the encoder of a run's newest checkpoint as files for other programs, with a model card (README.md).

    The files are then tested. A process that cannot import this package opens them with the runtime of their format,
    such as onnxruntime, and computes the representation h of 64 images. If this h differs from the encoder's own h by
    more than rounding, the files are removed. The largest difference is printed and written into the card.

    Args:
        run: a `Run`, or its folder.
        format: "keras", "saved_model", "onnx", "litert" or "pytorch".
        out: the folder for the files, which must be empty or missing. None: export/FORMAT in the run's folder.
        with_projection_head: whether the model returns the projection z as well.
        preprocessing: True: the model takes uint8 images of any size. False: it takes float32 images (n, S, S, C) that
            are resized and scaled already.
        image_size: height and width of the images, in pixels, for programs that need a fixed size. None: any size.
        weights: the number type of the weights. "float16" and "int8" work only with "litert".

    Returns:
        The folder with the files.

    Raises:
        ConfigError: if an argument is impossible.
        RunError: if the folder holds no run or no checkpoint, or if a file cannot be written.
        ExportError: if a package is missing, the folder is not empty, or the files compute a wrong h.

    Example:
        >>> import lowlevel_simclr as ls
        >>> folder = ls.export("runs/shapes", "saved_model", out="exported")
        saved_model: largest difference on 64 images ...
        >>> sorted(path.name for path in folder.iterdir())[:2]
        ['README.md', 'assets']
    """
    _refuse_arguments(format, preprocessing, image_size, weights)
    folder = as_run(run).folder
    out = folder / "export" / format if out is None else Path(out)
    read_run_config(folder)  # raises an error if the folder holds no run

    from lowlevel_simclr.evaluation.formats.card import make_card
    from lowlevel_simclr.evaluation.formats.write import refuse_early, write_export
    from lowlevel_simclr.runtime.process_state import keep_process_state

    refuse_early(format, out)
    with keep_process_state():
        network = load_network(folder, with_projection_head, preprocessing, image_size)

        notes: list[str] = []

        def describe(form: Format, place: Path, parity: Parity) -> str:
            if weights != EXPORT_WEIGHTS[0]:
                notes.append(_describe_loss(folder, network, form, place, weights))
            return make_card(folder, network, form, parity, weights, " ".join(notes))

        parity = write_export(network, format, out, weights, describe)
    print("\n".join([f"{format}: {parity.describe()}", *notes]))
    return out


def load_network(folder: Path, with_head: bool, preprocessing: bool, image_size: int | None) -> Network:
    """Return the networks of the newest checkpoint of a run, in float32.

    Args:
        folder: the run folder.
        with_head: whether the projection head is exported.
        preprocessing: whether the preprocessing is exported.
        image_size: the size of the images, in pixels, or None for any.

    Raises:
        RunError: if the folder holds no run or no checkpoint.
    """
    from lowlevel_simclr.config.view_sizes import choose_evaluation_size
    from lowlevel_simclr.data.transform import PixelScaling
    from lowlevel_simclr.evaluation.export import describe_unfinished, restore_weights
    from lowlevel_simclr.evaluation.formats.network import Network
    from lowlevel_simclr.model.encoder import build_encoder
    from lowlevel_simclr.model.projection import build_projection_head
    from lowlevel_simclr.run.atomic import RunError
    from lowlevel_simclr.run.results import read_data
    from lowlevel_simclr.runtime.precision import set_precision

    model = read_run_config(folder).model
    shape = (read_data(folder) or {}).get("shape")
    if shape is None:
        raise RunError(
            f"{folder} has no data.json with the shape of its images. Run its training command again to write it."
        )
    set_precision("float32")
    f = build_encoder(model.encoder, model.stem, choose_evaluation_size(model), shape[-1])
    g = build_projection_head(f.output_shape[-1], model.projection_widths, batch_norm=model.projection_batch_norm)
    step = restore_weights(folder, encoder=f, projection=g)
    scaling = PixelScaling(model.input_mean, model.input_std)
    unfinished = describe_unfinished(folder, step)
    return Network(f, g if with_head else None, scaling, preprocessing, image_size, unfinished)


def _describe_loss(folder: Path, network: Network, form: Format, place: Path, weights: str) -> str:
    """Return a sentence about the accuracy that `weights` (a number type) costs, measured on images of the run."""
    from lowlevel_simclr.data.dataset import DataError
    from lowlevel_simclr.evaluation.formats.accuracy_loss import measure_accuracy_loss
    from lowlevel_simclr.evaluation.knn import draw_knn_sample
    from lowlevel_simclr.run.results import read_data
    from lowlevel_simclr.training.plan import load_images

    config = read_run_config(folder)
    try:
        images = load_images(config, read_data(folder), own=folder)
    except DataError as error:
        return f"The loss of accuracy was not measured, because the images of the run cannot be read: {error}"
    sample = draw_knn_sample(images, config.train.seed)
    return measure_accuracy_loss(network, form, place, weights, sample)


def _refuse_arguments(name: str, preprocessing: bool, image_size: int | None, weights: str) -> None:
    """Check the arguments of `export` that do not depend on the run.

    Raises:
        ConfigError: see `export`.
    """
    if name not in EXPORT_FORMATS:
        raise ConfigError(f"There is no format '{name}'. Use one of {', '.join(EXPORT_FORMATS)}.")
    if weights not in EXPORT_WEIGHTS:
        raise ConfigError(f"There are no weights of the type '{weights}'. Use one of {', '.join(EXPORT_WEIGHTS)}.")
    if weights != EXPORT_WEIGHTS[0] and name != "litert":
        raise ConfigError(f"The format {name} has float32 weights, not {weights}. Leave --weights out, or use litert.")
    if image_size is not None and not preprocessing:
        raise ConfigError("Without preprocessing, the size is that of the views. Leave --image-size out.")
    if image_size is not None and image_size < 1:
        raise ConfigError(f"The image size is {image_size}. Give at least 1 pixel.")
