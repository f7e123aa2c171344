"""Checks a whole configuration, before any work is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lowlevel_simclr.config.budget import parse_budget
from lowlevel_simclr.config.choices import (
    DATASET_FORMS,
    DATASETS,
    FILE_FORMS,
    FOLLOWS,
    IN_MEMORY,
    NAMED_WEIGHTS,
    describe_form,
)
from lowlevel_simclr.config.fields import check_field, describe_unknown, format_value, get_value, list_fields
from lowlevel_simclr.config.identity import from_dict
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.config.view_sizes import parse_view_sizes


def _check_names(config: Config) -> None:
    """Check the data set, and the weights from which the encoder starts."""
    name, weights = config.data.dataset, config.model.weights
    if name in DATASET_FORMS:
        raise ConfigError(f"--dataset {name} needs a {FOLLOWS.get(name, 'PATH').lower()}. Use {describe_form(name)}.")
    if name not in DATASETS and not name.startswith((*DATASET_FORMS, IN_MEMORY)):
        raise ConfigError(describe_unknown("--dataset", name, DATASETS + DATASET_FORMS))
    if weights not in NAMED_WEIGHTS and not re.search(r"[/.]", weights):
        raise ConfigError(
            describe_unknown("--weights", weights, NAMED_WEIGHTS)
            + " The name of a file or of a run folder must contain a / or a dot."
        )
    if weights == "imagenet" and config.model.encoder != "resnet50":
        raise ConfigError(f"--weights imagenet needs --encoder resnet50, but the encoder is {config.model.encoder}.")


def _check_tables(config: Config) -> None:
    """Check that --labels and --split are given only for data sets in which each file holds one image."""
    data = config.data
    for flag, file in (("--labels", data.labels), ("--split", data.split)):
        if file is not None and not data.dataset.startswith(FILE_FORMS):
            forms = ", ".join(map(describe_form, FILE_FORMS))
            raise ConfigError(f"{flag} describes image files, but --dataset is {data.dataset}. Use one of {forms}.")
    if data.split is not None and data.splits == "named":
        raise ConfigError(f"--split is {data.split} and --splits is named. Give only one of them.")


def _check_numbers(config: Config) -> None:
    """Check the numbers that must agree with one another."""
    train, warmup = config.train, config.optimizer.warmup_epochs
    if train.steps is None and warmup > train.epochs:
        raise ConfigError(
            f"--warmup-epochs ({warmup}) is larger than --epochs ({train.epochs}). Use {train.epochs} or less."
        )
    mean, std = config.model.input_mean, config.model.input_std
    if len(mean or ()) != len(std or ()):
        raise ConfigError(
            f"--input-mean is {format_value(mean)} and --input-std is {format_value(std)}. Give both, "
            "with one number per channel."
        )


def _check_stages(config: Config) -> None:
    """Check the budget, and the sizes of the views. The size may differ between the stages of training."""
    if config.train.budget is not None:
        parse_budget(config.train.budget)
    if config.model.image_sizes is None:
        return
    last = parse_view_sizes(config.model.image_sizes)[-1].side
    if last != config.model.image_size:
        raise ConfigError(
            f"--image-sizes ends with {last}, but --image-size is {config.model.image_size}. Leave --image-size out, "
            "or end with its value."
        )


def _check_replicas(config: Config) -> None:
    """Check the micro-batch and the devices, as far as this is possible without knowing the machine."""
    train = config.train
    if not re.fullmatch(r"\d{1,9}|auto", train.micro_batch):
        raise ConfigError(
            f"--micro-batch is {train.micro_batch}. Use a whole number of images, 0 for the whole batch, or auto."
        )
    micro = 0 if train.micro_batch == "auto" else int(train.micro_batch)
    if micro and train.batch_size % micro:
        raise ConfigError(
            f"--micro-batch ({micro}) does not divide --batch-size ({train.batch_size}). "
            f"Use a divisor of {train.batch_size}."
        )
    if not re.fullmatch(r"all|(cpu:)?[1-9]\d{0,3}", train.devices):
        raise ConfigError(f"--devices is {train.devices}. Use all, a number of GPUs, or cpu:R for R virtual devices.")


def validate(config: Config) -> None:
    """Check that a configuration can be trained, before any work is done.

    Some errors only show in the data, such as a missing folder or a batch larger than the data set. The code that reads
    the data raises them.

    Raises:
        ConfigError: if a setting is invalid. The message names the first invalid setting, its value, and what to give
            instead.
    """
    for field in list_fields().values():
        check_field(field, get_value(config, field))
    _check_names(config)
    _check_tables(config)
    _check_numbers(config)
    _check_stages(config)
    _check_replicas(config)


def restore_config(values: Mapping[str, Any]) -> Config:
    """Return the configuration that a run's config.json holds.

    Args:
        values: the content of config.json, as `identity.to_dict` gave it.

    Raises:
        ConfigError: if a setting is unknown, or if this version does not accept its value.
    """
    config = from_dict(values)
    validate(config)
    return config
