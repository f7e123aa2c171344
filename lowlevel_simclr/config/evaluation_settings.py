"""The settings of an evaluation. Each is a flag of the program `evaluate`. They are not settings of the training."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from lowlevel_simclr.config.choices import PROTOCOLS
from lowlevel_simclr.config.fields import describe_unknown, format_value
from lowlevel_simclr.config.settings import ConfigError


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation measures, and how.

    Attributes:
        protocol: ways to measure how good the encoder is: names from `choices.PROTOCOLS`.
        label_fraction: the shares of the labelled images that fine-tuning uses, above 0 and at most 1.
        seeds: number of seeds. Everything random is repeated with each seed.
        finetune_steps: number of steps of fine-tuning, the same for every share of the labels.
        finetune_batch_size: images in a step of fine-tuning.
        finetune_learning_rate: the first learning rate of fine-tuning.
        probe_passes: number of passes of the protocol linear-augmented over the train split.
    """

    protocol: tuple[str, ...] = PROTOCOLS[:2]
    label_fraction: tuple[float, ...] = (0.01, 0.1, 1.0)
    seeds: int = 1
    # The SimCLR paper's settings for fine-tuning (appendix B.5), apart from the number of steps. It is so small that
    # fine-tuning takes only minutes on two CPU cores.
    finetune_steps: int = 600
    finetune_batch_size: int = 128
    finetune_learning_rate: float = 0.025
    probe_passes: int = 10


def make_evaluation_settings(**values: Any) -> EvaluationSettings:
    """Return the settings of an evaluation. A single protocol or fraction may be given without a tuple.

    Raises:
        ConfigError: if a value is impossible.
    """
    for name in ("protocol", "label_fraction"):
        if name in values:
            alone = isinstance(values[name], (str, int, float))
            values[name] = (values[name],) if alone else tuple(values[name])
    settings = EvaluationSettings(**values)
    for protocol in settings.protocol:
        if protocol not in PROTOCOLS:
            raise ConfigError(describe_unknown("--protocol", str(protocol), PROTOCOLS))
    for fraction in settings.label_fraction:
        if not 0 < fraction <= 1:
            raise ConfigError(f"--label-fraction is {format_value(fraction)}. Give numbers above 0 and at most 1.")
    for name in ("seeds", "finetune_steps", "finetune_batch_size", "probe_passes"):
        if getattr(settings, name) < 1 or getattr(settings, name) != int(getattr(settings, name)):
            raise ConfigError(
                f"--{name.replace('_', '-')} is {getattr(settings, name)}. It must be a whole number of at least 1."
            )
    if not 0 < settings.finetune_learning_rate < math.inf:
        raise ConfigError(
            f"--finetune-learning-rate is {settings.finetune_learning_rate}. It must be a number above 0."
        )
    return settings
