"""Replaces each "auto" in a configuration by a value for this machine and these images. The plan holds all values.

Of the modules that the programs call, only this one uses `Config`. All others take plain values, or the `Plan`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.config.budget import parse_budget
from lowlevel_simclr.config.identity import hash_config, list_differences, replace
from lowlevel_simclr.config.presets import PRESETS
from lowlevel_simclr.config.settings import Config, ConfigError, ModelConfig, OptimizerConfig, ViewRecipe
from lowlevel_simclr.config.validation import restore_config
from lowlevel_simclr.config.view_sizes import ViewSize, parse_view_sizes
from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.batches import count_steps_per_epoch
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.optim.schedule import scale_learning_rate
from lowlevel_simclr.run.results import read_config
from lowlevel_simclr.runtime.devices import has_gpu
from lowlevel_simclr.runtime.platform_ops import choose_available_ops
from lowlevel_simclr.runtime.precision import choose_fast_precision
from lowlevel_simclr.runtime.xla import find_xla_problem
from lowlevel_simclr.training.implementation import Implementation, choose_implementation, refuse_unusable_library
from lowlevel_simclr.training.micro_batch_search import AUTO, find_largest_micro_batch
from lowlevel_simclr.training.workers import LONE, Team

RESIDENT = 2**30  # most bytes that `--data-on auto` puts on a GPU: six times CIFAR-10, or 1/8 of a small GPU's memory
RGB = 3  # channels of an image with colours


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plain values that a configuration resolves to.

    environment.json lists the fields from `steps` to `data_on`. `checkup_every` is the setting `knn_every`, in steps.
    It is the number of steps between two check-ups, which measure the encoder. 0 means never.
    """

    steps: int
    steps_per_epoch: int
    precision: str
    jit_compile: bool
    jit_compile_views: bool
    inline_step: bool
    implementation: Implementation
    learning_rate: float
    micro_batches: int
    replicas: int
    workers: int
    data_on: str

    dataset: str
    train_on: str
    epochs: int
    batch_size: int
    seed: int
    warmup_steps: int
    temperature: float
    loss_reduction: str
    batch_norm: str
    steps_per_call: int
    steps_per_program: int
    checkpoint_every: int
    keep_checkpoints: int
    checkup_every: int
    scaling: PixelScaling
    recipe: ViewRecipe
    model: ModelConfig
    optimizer: OptimizerConfig
    config_hash: str
    view_sizes: tuple[ViewSize, ...]  # the sizes of the views, one after the other; the last is that of `model`
    budget: float | None  # seconds for the start and the training, or None. With a budget, `steps` is only an estimate
    pairs_per_second: float  # measured before the run, for the budget; 0 if nothing was measured

    @property
    def micro_batch(self) -> int:
        """The number of images in a micro-batch (part of a batch), over all replicas."""
        return self.batch_size // self.micro_batches

    def describe(self) -> dict[str, Any]:
        """Return the values that environment.json lists."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(self, name) for name in names[: names.index("dataset")]}
        return {**values, "implementation": self.implementation.name}


Fits = Callable[[Plan, DataSet], bool]  # returns whether the step of a plan fits into the memory


# Before the images are read


def read_earlier(config: Config, folder: Path, fresh: bool = False) -> Config | None:
    """Return the configuration of the run to resume, if `--micro-batch auto` needs the choice that this run made.

    Args:
        config: the configuration that the user gave.
        folder: the run folder, which need not exist.
        fresh: whether the session starts a new folder.

    Returns:
        The configuration, or None if the session does not need it.

    Raises:
        RunError: if config.json is not JSON.
        ConfigError: if config.json is not a configuration of this version.
    """
    if config.train.micro_batch != AUTO or fresh or not (folder / "config.json").is_file():
        return None
    return restore_config(read_config(folder))


def refuse_early(config: Config, team: Team, earlier: Config | None = None) -> None:
    """Make the checks that do not need the images.

    Args:
        config: the configuration that the user gave.
        team: the replicas.
        earlier: see `read_earlier`.

    Raises:
        ConfigError: in one of these cases. `--micro-batch auto` is not possible (see `resolve`). The native library
            does not load, or has no kernels for the device. The run needs XLA to call the library, and XLA cannot.
            `--xla on` is given, and this TensorFlow has no XLA for the device.
    """
    chosen = _choose_for_machine(config, team, earlier)
    on_gpu = has_gpu() and not config.train.devices.startswith("cpu:")
    refuse_unusable_library(chosen.train.ops, on_gpu, config.train.xla == "on")
    if config.train.xla == "on" and (problem := find_xla_problem()):
        raise ConfigError(f"--xla on does not work here. {problem} Use --xla auto or --xla off.")


def list_early_differences(config: Config, team: Team, earlier: Config | None, found: Mapping[str, Any]) -> list[str]:
    """Return the differences that prevent resuming a run, one line for each setting.

    Before the program reads the images, it does not know whether they have colours. So the function tries both cases,
    and returns the shorter list.

    Args:
        config: the configuration that the user gave.
        team: the replicas.
        earlier: see `read_earlier`.
        found: the contents of the run's config.json.
    """
    chosen, before = _choose_for_machine(config, team, earlier), restore_config(found)
    return min((list_differences(before, after) for after in (chosen, _drop_colours(chosen))), key=len)


def load_images(
    config: Config, before: Mapping[str, Any] | None = None, at_least: int = 1, own: Path | None = None
) -> DataSet:
    """Return the data set that a configuration names.

    Args:
        config: the configuration, before or after `resolve`.
        before: the contents of data.json if a run is resumed, otherwise None.
        at_least: the number of images that the run needs.
        own: the run folder, whose pictures are not data.

    Raises:
        DataError: see `catalog.load_dataset`.
    """
    return catalog.load_dataset(
        config.data.dataset,
        config.data.data_dir,
        config.train.seed,
        largest_side=choose_stored_side(config),
        memory_limit=config.data.memory_limit,
        at_least=at_least,
        before=before,
        splits=config.data.splits,
        own=own,
        cache=config.data.cache,
        labels=config.data.labels,
        split=config.data.split,
    )


def choose_stored_side(config: Config) -> int:
    """Return the largest number of pixels for the shorter side of a stored image, for a folder of images.

    Without `--stored-side`, it is just large enough that even the smallest crop has as many pixels as a view.
    """
    needed = math.ceil(config.model.image_size / math.sqrt(config.views.crop_area[0]))
    return config.data.stored_side or max(8, needed)


# With the images


def resolve(
    config: Config,
    team: Team,
    images: DataSet,
    earlier: Config | None = None,
    fits: Fits | None = None,
    tell: Callable[[str], object] = print,
) -> tuple[Config, Plan]:
    """Return the final configuration and its plan.

    In the final configuration, the chosen precision, ops, devices and micro-batch replace "auto" and "all".

    Args:
        config: the configuration that the user gave.
        team: the replicas.
        images: the data set of the run.
        earlier: the configuration of the run to resume, or None. Its choice for `--micro-batch auto` is kept.
        fits: function that returns whether the step of a plan fits into the memory, for `--micro-batch auto`. With
            None, nothing is tried and the micro-batch is the whole batch. Pass None if no step will be made.
        tell: called with a progress message for each size that is tried.

    Raises:
        ConfigError: in one of these cases. The scaling of the pixels has another number of channels than the images.
            The warm-up is longer than --steps. The batch cannot be split into equal shares for the replicas. Several
            replicas are combined with XLA or `--data-on device`. `--micro-batch auto` has no GPU, has several workers,
            or finds no size that fits.
        DataError: if there are fewer images than a batch holds, or if `--data-on device` is given and the images are
            streamed.
    """
    config = _choose_for_machine(config, team, earlier)
    if images.train.images.shape[-1] != RGB:
        config = _drop_colours(config)
    _refuse_other_channels(config, images.train.images.shape[-1])
    _refuse_long_warmup(config, images)
    if config.train.micro_batch == AUTO:
        config = replace(config, micro_batch=str(_find_micro_batch(config, team, images, fits, tell)))
    return config, make_plan(config, images, team)


def _refuse_other_channels(config: Config, channels: int) -> None:
    """Check that the scaling of the pixels has one number, or one for each channel of the images.

    Raises:
        ConfigError: if it has several numbers, but not one for each channel.
    """
    for flag, values in (("--input-mean", config.model.input_mean), ("--input-std", config.model.input_std)):
        if values is not None and len(values) not in (1, channels):
            have = "1 channel" if channels == 1 else f"{channels} channels"
            raise ConfigError(
                f"{flag} has {len(values)} numbers, but the images have {have}. Give one number, or one per channel."
            )


def _refuse_long_warmup(config: Config, images: DataSet) -> None:
    """Check that a warm-up that the user chose ends within --steps.

    The warm-up of a preset may be longer than --steps, so that a user can try the first steps of the preset. In that
    case the learning rate only rises.

    Raises:
        ConfigError: if the warm-up does not end.
    """
    chosen, steps = config.optimizer.warmup_epochs, config.train.steps
    usual = PRESETS[config.preset]() if config.preset in PRESETS else Config()
    if steps is None or chosen == usual.optimizer.warmup_epochs:
        return
    trained_on = catalog.select_training_images(images, config.data.train_on)
    per_epoch = count_steps_per_epoch(len(trained_on), config.train.batch_size)
    warmup = round(chosen * per_epoch)
    if warmup > steps:
        most = math.floor(1000 * steps / per_epoch) / 1000
        raise ConfigError(
            f"--warmup-epochs ({chosen:g}) is {warmup} steps here, but the run has {steps} (--steps). "
            f"Use --warmup-epochs {most:g} or less."
        )


def _choose_for_machine(config: Config, team: Team, earlier: Config | None) -> Config:
    """Return the configuration with the precision, ops and devices of this machine.

    If a run is resumed, the micro-batch is that of the earlier session.

    If the device, the number of devices or the ops change, results are rounded differently. That would be a different
    run. Therefore a run with native ops is not resumed with stock ops on another platform.
    """
    devices = config.train.devices if config.train.devices.startswith("cpu:") else str(len(team.local))
    ops = choose_available_ops(config.train.ops)
    config = replace(config, precision=resolve_precision(config), devices=devices, ops=ops)
    if config.train.micro_batch != AUTO:
        return config
    if team.workers.count > 1:
        raise ConfigError(
            "--micro-batch auto does not work with several workers. Give every worker the same number of images."
        )
    if earlier is not None:
        return replace(config, micro_batch=earlier.train.micro_batch)
    if not has_gpu():
        raise ConfigError(
            "--micro-batch auto needs a GPU, but TensorFlow finds none. Use a number of images, or 0 for the whole "
            "batch."
        )
    return config


def resolve_precision(config: Config) -> str:
    """Return the precision of a configuration. For "auto", it is the one that is fastest on this device."""
    return choose_fast_precision() if config.train.precision == "auto" else config.train.precision


def _drop_colours(config: Config) -> Config:
    """Return the configuration for images that are not RGB. Its views keep saturation and hue, and are never made grey.

    Grey images lose nothing, because these operations do not change a grey pixel.
    """
    return replace(config, saturation=(1.0, 1.0), hue=(0.0, 0.0), grey_probability=0.0)


def _find_micro_batch(
    config: Config, team: Team, images: DataSet, fits: Fits | None, tell: Callable[[str], object]
) -> int:
    """Return the largest micro-batch that fits, or 0 for the whole batch if `fits` is None.

    With several replicas, the search tries one replica's share of the micro-batch on the first device.
    """
    if fits is None:
        return 0
    count_micro_batches(replace(config, micro_batch="0"), team.count)  # raises if even the whole batch is not possible

    def is_even(size: int) -> bool:
        try:
            return bool(count_micro_batches(replace(config, micro_batch=str(size)), team.count))
        except ConfigError:
            return False

    def has_memory(size: int) -> bool:
        share = _reduce_to_one_replica(replace(config, micro_batch=str(size)), team.count)
        return fits(make_plan(share, images), images)

    sizes = [size for size in range(config.train.batch_size, 0, -1) if config.train.batch_size % size == 0]
    return find_largest_micro_batch([size for size in sizes if is_even(size)], has_memory, tell)


def _reduce_to_one_replica(config: Config, replicas: int) -> Config:
    """Return the configuration of a single replica that trains alone on its share of each micro-batch.

    XLA is off, because XLA does not compile the step of several replicas either.
    """
    if replicas == 1:
        return config
    return replace(
        config,
        batch_size=config.train.batch_size // replicas,
        micro_batch=str(int(config.train.micro_batch) // replicas),
        devices="1",
        xla="off",
    )


def make_plan(config: Config, images: DataSet, team: Team = LONE) -> Plan:
    """Return the plan of a configuration whose micro-batch is a number.

    Where the setting of the precision, the ops, XLA or the place of the images is "auto", this function chooses a
    value.

    Args:
        config: the configuration.
        images: the data set of the run.
        team: the replicas.

    Raises:
        ConfigError: see `resolve`.
        DataError: see `resolve`.
    """
    train, optimizer, views = config.train, config.optimizer, config.views
    micro_batches = count_micro_batches(config, team.count)
    per_epoch = count_steps_per_epoch(
        len(catalog.select_training_images(images, config.data.train_on)), train.batch_size
    )
    ops = choose_available_ops(train.ops)
    jit_compile = train.xla == "on" or (train.xla == "auto" and has_gpu() and find_xla_problem() is None)
    data_on = place_data(config, images, team.count)
    return Plan(
        steps=train.steps or per_epoch * train.epochs,
        steps_per_epoch=per_epoch,
        precision=resolve_precision(config),
        jit_compile=jit_compile,
        # Stock views make dozens of elementwise passes. XLA fuses them into a few, which makes the views three to five
        # times as fast, also on a CPU. The native op makes one pass. It stays outside XLA unless XLA compiles the whole
        # step.
        jit_compile_views=train.xla != "off" and ops == "stock" and find_xla_problem() is None,
        inline_step=has_gpu(),  # on a CPU, calling the step was measured to be faster; on a GPU it was not measured
        implementation=choose_implementation(ops, jit_compile),
        learning_rate=scale_learning_rate(optimizer.learning_rate, train.batch_size, optimizer.learning_rate_scaling),
        micro_batches=micro_batches,
        replicas=team.count,
        workers=team.workers.count,
        data_on=data_on,
        dataset=config.data.dataset,
        train_on=config.data.train_on,
        epochs=train.epochs,
        batch_size=train.batch_size,
        seed=train.seed,
        warmup_steps=round(optimizer.warmup_epochs * per_epoch),
        temperature=config.loss.temperature,
        loss_reduction=config.loss.loss_reduction,
        batch_norm=train.batch_norm,
        steps_per_call=train.steps_per_call,
        steps_per_program=_count_steps_per_program(config, images, data_on),
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
        checkup_every=train.knn_every * per_epoch,
        scaling=PixelScaling(config.model.input_mean, config.model.input_std),
        recipe=views,
        model=config.model,
        optimizer=optimizer,
        config_hash=hash_config(config),
        view_sizes=list_view_sizes(config),
        budget=parse_budget(train.budget) if train.budget else None,
        pairs_per_second=train.pairs_per_second or 0.0,
    )


def list_view_sizes(config: Config) -> tuple[ViewSize, ...]:
    """Return the sizes of the views during training, one after the other.

    Without --image-sizes, there is only one size.
    """
    model = config.model
    return parse_view_sizes(model.image_sizes) if model.image_sizes else (ViewSize(model.image_size, 1.0),)


def _count_steps_per_program(config: Config, images: DataSet, data_on: str) -> int:
    """Return how many steps XLA compiles as one program: --steps-per-call, or fewer if the images are large.

    Images on the host are copied to the device before the program starts. So the device must hold the images of all
    steps of the program.
    """
    if data_on == "device":
        return config.train.steps_per_call
    batch = config.train.batch_size * math.prod(images.train.images.shape[1:])  # bytes, one per channel and pixel
    return max(1, min(config.train.steps_per_call, RESIDENT // batch))


def place_data(config: Config, images: DataSet, replicas: int) -> str:
    """Return where the images are stored while the run trains: "host" or "device".

    Args:
        config: the configuration.
        images: the data set of the run.
        replicas: the number of replicas.

    Raises:
        ConfigError: if the setting is "device" and there are several replicas.
        DataError: if the setting is "device" and the images are streamed.
    """
    chosen = config.data.data_on
    if chosen == "device":
        if replicas > 1:
            raise ConfigError(
                f"--data-on device works with one replica, but there are {replicas}. Use --data-on auto, or "
                "--devices 1."
            )
        catalog.refuse_to_keep_on_device(images)
    if chosen != "auto":
        return chosen
    if replicas > 1 or not has_gpu() or catalog.is_streamed(images):
        return "host"
    return "device" if catalog.select_training_images(images, config.data.train_on).nbytes <= RESIDENT else "host"


def count_micro_batches(config: Config, replicas: int) -> int:
    """Return the number of micro-batches in a step.

    Args:
        config: the configuration, whose micro-batch is a number.
        replicas: the number of replicas.

    Raises:
        ConfigError: if the replicas cannot have equal shares of a micro-batch, if a share is not a whole number of
            ghost groups (the groups of images that "ghost" BatchNorm normalises), or if XLA is asked to compile the
            step of several replicas.
    """
    choice = config.train
    count = choice.batch_size // (int(choice.micro_batch) or choice.batch_size)
    if choice.batch_size % (count * replicas):
        raise ConfigError(
            f"A batch of {choice.batch_size} images cannot be split into {count} micro-batches with equal shares for "
            f"{replicas} replicas. Use a --batch-size that is a multiple of {count * replicas}."
        )
    share = choice.batch_size // (count * replicas)
    if choice.batch_norm == "ghost" and share % choice.ghost_batch:
        raise ConfigError(
            f"--ghost-batch ({choice.ghost_batch}) does not divide the {share} images that a replica has at a time. "
            f"Use a divisor of {share}."
        )
    if choice.xla == "on" and replicas > 1:
        raise ConfigError(f"XLA cannot compile the step of {replicas} replicas. Use --xla auto or --xla off.")
    return count
