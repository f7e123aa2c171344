"""--micro-batch auto: the largest micro-batch whose step fits into a GPU's memory, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from lowlevel_simclr import assembly, data, runlog
from lowlevel_simclr.config import Config, ConfigError, from_dict, replace
from lowlevel_simclr.distribute import Team

AUTO = "auto"
TRIED = 2  # steps: the second has the optimizer's new slots beside the old ones


def settled(config: Config, team: Team, folder: Path | None) -> Config:
    """The configuration before anything is tried: the number that an earlier session of a run found stands.

    Args:
        config: of the run.
        team: its replicas.
        folder: of the run that is gone on with, if it is there; None for a new one.

    Raises:
        ConfigError: `auto` with several workers, whose memories may differ, or without a GPU.
    """
    if config.train.micro_batch != AUTO:
        return config
    if team.workers.count > 1:
        raise ConfigError("--micro-batch is auto and there are several workers: give all of them the same number")
    if folder and (folder / "config.json").is_file():
        return replace(config, micro_batch=from_dict(runlog.read_config(folder)).train.micro_batch)
    if not assembly.on_gpu():
        raise ConfigError(
            "--micro-batch is auto and there is no GPU whose memory could be filled: give a number of images, or 0 for "
            "the batch"
        )
    return config


def untried(config: Config) -> Config:
    """The configuration for what takes no step, such as a picture of views: the whole batch in the place of `auto`."""
    return replace(config, micro_batch="0") if config.train.micro_batch == AUTO else config


def found(
    config: Config,
    images: data.DataSet,
    team: Team,
    fits: Callable[[Config, data.DataSet], bool] | None = None,
    tell: Callable[[str], object] = print,
) -> Config:
    """The configuration with the largest number that fits in the place of `auto`; any other as it is.

    Of several replicas the share of one is tried, on the first device.

    Args:
        config: of the run.
        images: of the run.
        team: its replicas.
        fits: how one is tried; `step_fits` if not given.
        tell: where each try is said.

    Raises:
        ConfigError: nothing fits.
    """
    if config.train.micro_batch != AUTO:
        return config
    for size in sizes(config, team.count):
        tried = replace(config, micro_batch=str(size))
        if (fits or step_fits)(share_of_one(tried, team.count), images):
            tell(f"micro-batches of {size} images fit into the memory")
            return tried
        tell(f"micro-batches of {size} images do not fit into the memory")
    raise ConfigError(
        f"--micro-batch is auto and not even {size} images fit into the GPU's memory: give a smaller --encoder or "
        "--image-size, or --precision bfloat16"
    )


def sizes(config: Config, replicas: int) -> Iterator[int]:
    """Divisors of the batch that come out even for every replica and ghost group, the largest first.

    Raises:
        ConfigError: there are none.
    """
    batch_size = config.train.batch_size
    assembly.count_micro_batches(replace(config, micro_batch="0"), replicas)  # the sentence of the whole batch
    for count in range(1, batch_size + 1):
        if batch_size % count:
            continue
        size = batch_size // count
        try:
            assembly.count_micro_batches(replace(config, micro_batch=str(size)), replicas)
        except ConfigError:
            continue
        yield size


def share_of_one(config: Config, replicas: int) -> Config:
    """What one of several replicas does alone: its part of each micro-batch. XLA does not compile a step of several."""
    if replicas == 1:
        return config
    return replace(
        config,
        batch_size=config.train.batch_size // replicas,
        micro_batch=str(int(config.train.micro_batch) // replicas),
        devices="1",
        xla="off",
    )


def step_fits(config: Config, images: data.DataSet) -> bool:
    """Whether memory lasts for the run's own program, and its images where they lie on the device.

    The program is built, takes a few steps and is thrown away.
    """
    try:
        plan = assembly.make_plan(config, images)
        pixels = assembly.training_images(config, images)
        fetch = assembly.fetcher(config, plan, images)
        learner = assembly.new_learner(config, plan, pixels.shape[-1])
        steps = assembly.steps_function(config, plan, learner, fetch=fetch)
        wanted = (config.train.batch_size, config.train.seed, 0, TRIED)
        batches = iter(data.batches(pixels, *wanted, with_images=fetch is None))
        steps(batches, tf.constant(TRIED, tf.int32)).loss.numpy()
    except tf.errors.ResourceExhaustedError:
        return False
    return True
