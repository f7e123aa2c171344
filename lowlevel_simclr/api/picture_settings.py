"""Chooses the settings for encoded images (such as JPEG files) if the user gave no preset (a named set of settings).

The choice depends on the size and the number of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.config.choices import PICTURE_FORMS
from lowlevel_simclr.config.command_line import override_settings
from lowlevel_simclr.config.presets import LARGEST_FOR_PICTURES, PRESETS_OF_PICTURES
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.config.starting_point import adapt_to_pictures
from lowlevel_simclr.data.catalog import measure_pictures
from lowlevel_simclr.data.picture_forms import Request
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.results import read_config
from lowlevel_simclr.runtime.devices import finds_gpu

LARGE_SIDE = PRESETS_OF_PICTURES[LARGEST_FOR_PICTURES]  # pixels; from this side on, it matters whether there is a GPU


def choose_for_pictures(config: Config, given: Mapping[str, Any] | None, out: Path, fresh: bool = False) -> Config:
    """Choose the settings for encoded images, such as those of a folder. Print the choice with its reason.

    If `out` already holds a run, its preset is chosen again, so that the same command resumes it.

    Args:
        config: the settings before the choice.
        given: the settings that the user gave. They override the choice. None: the user gave a preset or a file of
            settings, and `config` is returned unchanged.
        out: the run folder.
        fresh: whether the run in `out` is ignored, because a new run begins in a new folder.

    Raises:
        DataError: if no images can be listed.
        ConfigError: if a setting is impossible.
    """
    data = config.data
    if given is None or not data.dataset.startswith(PICTURE_FORMS):
        return config
    request = Request(
        data.dataset, data.data_dir, config.train.seed, data.splits, out, labels=data.labels, split=data.split
    )
    pictures = measure_pictures(request)
    if pictures is None:  # none of the images that were tried can be read; loading the data set raises the error
        return config
    gpu = finds_gpu()
    chosen = override_settings(adapt_to_pictures(*pictures, None if fresh else _read_preset(out), gpu), given)
    model, count = chosen.model, chosen.train.batch_size
    of_all = f" of {pictures.number}" if count <= pictures.number else ""  # otherwise a later step refuses the batch
    print(
        f"settings             preset {chosen.preset}, because the shorter side of the images has {pictures.side} "
        f"pixels (median){'' if gpu or pictures.side < LARGE_SIDE else ' and there is no GPU'}"
    )
    print(
        f"                     {model.encoder}, {model.stem} stem, views of {model.image_size} pixels, "
        f"{count}{of_all} images per step"
    )
    print("                     to change them: --preset, --encoder, --stem, --image-size, --batch-size", flush=True)
    return chosen


def _read_preset(out: Path) -> str | None:
    """Return the preset of the run in a folder, or None if there is no run."""
    try:
        return str(read_config(out).get("preset"))
    except RunError:
        return None
