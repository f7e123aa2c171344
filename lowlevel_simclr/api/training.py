"""`lowlevel_simclr.train`: trains one run from Python."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lowlevel_simclr.api.run import Run
from lowlevel_simclr.config.command_line import RunOptions, choose_default_out, override_settings
from lowlevel_simclr.config.fields import list_fields
from lowlevel_simclr.config.other_names import suggest_name
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.config.starting_point import choose_starting_point

BESIDE = (
    "dataset",
    "out",
    "preset",
    "config",
    "fresh",
    "profile",
    "jitter_strength",
    "hosts",
    "rank",
)  # arguments that are not fields of the configuration


def train(
    dataset: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    config: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    profile: bool = False,
    hosts: str | None = None,
    rank: int | None = None,
    **settings: Any,
) -> Run:
    """Train an encoder with SimCLR, evaluate it, and write one run folder.

    A second call with the same settings resumes the run from its last checkpoint. A finished run is not trained again.
    In the main thread, SIGTERM or Ctrl-C saves the state and raises `Stopped`.

    Args:
        dataset: the images to train on, in one of these forms. A name as for `--dataset`: "shapes", "cifar10",
            "folder:PATH", "tfds:NAME" and others. A NumPy array of uint8 images (n, H, W, C). A pair (images, labels)
            of arrays. A `tf.data.Dataset`, which is read into memory: its elements are images, pairs (image, label), or
            dictionaries with the keys "image" and "label". Two such pairs, or two `tf.data.Dataset`: the first is
            trained on, the second is held out for the evaluation. In all other forms of images in memory, a tenth of
            the images is held out. Labels are used only to evaluate.
        out: the run folder. None: runs/PRESET.
        preset: the name of a set of settings. `**settings` override it. None: the preset of the data set.
        config: the path of a config.json to start from, instead of a preset.
        fresh: if `out` already holds a run, train a new one in the first free folder of out-2, out-3 and so on.
        profile: record a profile of some training steps, and print which parts take the time.
        hosts: "host:port" of each worker (process) by rank, separated by commas, for a run on several hosts. None:
            TF_CONFIG or Slurm names the workers, or the run has only this process.
        rank: the place of this worker in `hosts`, from 0.
        **settings: any setting by its name on the command line, such as `temperature=0.5`, `batch_size=128` or
            `jitter_strength=0.5`. A range is a pair, as in `crop_area=(0.2, 1.0)`. `python -m lowlevel_simclr.train
            --help` lists all of them.

    Returns:
        The finished run, with its metrics, its encoder, its evaluation and its pictures.

    Raises:
        ConfigError: if a setting is unknown or impossible.
        DataError: if the images cannot be used, or there are fewer than a batch holds.
        RunError: if `out` holds a run with other settings, or other files, or cannot be written.
        DistributionError: if the list of workers is wrong, or if a worker is missing or lost.
        Stopped: if a signal asked to stop. The state is saved before that.
        NonFiniteLoss: if the loss became NaN or infinite.

    Example:
        >>> import numpy as np
        >>> import lowlevel_simclr as ls
        >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)  # yours
        >>> run = ls.train(images, "runs/noise", steps=2, batch_size=8, image_size=8, warmup_epochs=0)
        run ...
        >>> run.metrics["loss"].shape
        (2,)
        >>> run.encoder(images).shape
        TensorShape([40, 64])
    """
    started = time.monotonic()
    for name in settings:
        if name not in list_fields() and name not in BESIDE:
            known = (*list_fields(), *BESIDE)
            raise ConfigError(f"There is no setting '{name}'.{suggest_name(name, known) or ' See help(train).'}")
    in_memory = dataset is not None and not isinstance(dataset, str)
    base = choose_starting_point(preset, "memory:" if in_memory else dataset, None if config is None else Path(config))
    images = None
    if in_memory:
        from lowlevel_simclr.api.memory import load_from_memory  # here, so that --help does not import TensorFlow

        # This line raises an error for wrong settings before the images are read.
        plain = override_settings(base, {**settings, "dataset": "shapes"})
        images = load_from_memory(dataset, plain.train.seed, plain.data.memory_limit)
        dataset = images.name
    chosen = override_settings(base, settings if dataset is None else {**settings, "dataset": dataset})
    folder = choose_default_out(chosen) if out is None else Path(out)

    # Here, so that --help does not import TensorFlow.
    from lowlevel_simclr.api.picture_settings import choose_for_pictures
    from lowlevel_simclr.api.session import run_session

    if preset is None and config is None:
        chosen = choose_for_pictures(chosen, {**settings, "dataset": chosen.data.dataset}, folder, fresh)
    given = settings if preset is None and config is None else None
    options = RunOptions(folder, fresh=fresh, profile=profile, given=given, started=started, hosts=hosts, rank=rank)
    return Run(*run_session(chosen, options, images))
