"""The sizes of the views in the stages of training. The first stages use small views, because they are cheap.

A view is a random crop of an image. In training, the encoder gets views.
The last stage uses the final size. An encoder ends with a mean over its last feature map, so the same weights take
views of any size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from lowlevel_simclr.config.settings import ConfigError, ModelConfig

COST_OF_A_VIEW = 40.0  # the time of a view is proportional to its pixels plus this number
SMALLEST_SIDE = 8  # pixels, as for --image-size


class ViewSize(NamedTuple):
    """A stage of training.

    Attributes:
        side: S, the pixels on a side of a view.
        share: the share of the training, in (0, 1].
    """

    side: int
    share: float


def parse_view_sizes(texts: Iterable[str]) -> tuple[ViewSize, ...]:
    """Return the stages of training that `--image-sizes` names.

    Args:
        texts: one text S:SHARE for each stage.

    Raises:
        ConfigError: if a text is not S:SHARE, a side is below 8, the sides do not grow, or the shares do not add up to
            1.

    Examples:
        >>> parse_view_sizes(["16:0.25", "24:0.75"])[0]
        ViewSize(side=16, share=0.25)
    """
    sizes = tuple(map(_parse_view_size, texts))
    sides = [size.side for size in sizes]
    if sides != sorted(set(sides)):
        raise ConfigError(f"--image-sizes has the sides {' '.join(map(str, sides))}. Give them in growing order.")

    total = math.fsum(size.share for size in sizes)
    if abs(total - 1) > 1e-6:
        raise ConfigError(f"The shares of --image-sizes add up to {total:g}. They must add up to 1.")
    return sizes


def _parse_view_size(text: str) -> ViewSize:
    """Return the stage that a text S:SHARE names."""
    found = re.fullmatch(r"(\d{1,5}):(\d*\.?\d+)", text)
    if not found or int(found[1]) < SMALLEST_SIDE or not 0 < float(found[2]) <= 1:
        raise ConfigError(
            f"--image-sizes has '{text}'. Give each stage as pixels:share, such as 16:0.3, with at least "
            f"{SMALLEST_SIDE} pixels and a share above 0 and at most 1."
        )
    return ViewSize(int(found[1]), float(found[2]))


def choose_evaluation_size(model: ModelConfig) -> int:
    """Return the side of the images that the trained encoder gets, in pixels.

    In the views of training, things look larger than in whole images, because a view is an enlarged crop. So an encoder
    that was trained with small views is better on larger images (Touvron et al. 2019, "Fixing the train-test resolution
    discrepancy").

    Examples:
        >>> from lowlevel_simclr.config.settings import ModelConfig
        >>> choose_evaluation_size(ModelConfig(image_size=16)), choose_evaluation_size(ModelConfig(evaluation_size=32))
        (16, 32)
    """
    return model.image_size if model.evaluation_size is None else model.evaluation_size


def compare_cost(side: int, other: int) -> float:
    """Return the time of a step with views of `side` pixels, divided by the time with views of `other` pixels.

    Examples:
        >>> compare_cost(16, 16)
        1.0
    """
    return (side**2 + COST_OF_A_VIEW) / (other**2 + COST_OF_A_VIEW)


def format_view_sizes(sizes: Iterable[ViewSize]) -> tuple[str, ...]:
    """Return the texts that `parse_view_sizes` takes.

    Examples:
        >>> format_view_sizes([ViewSize(16, 0.25), ViewSize(24, 0.75)])
        ('16:0.25', '24:0.75')
    """
    return tuple(f"{size.side}:{size.share:g}" for size in sizes)
