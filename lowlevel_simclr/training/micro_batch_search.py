"""Searches for the largest micro-batch that fits into a GPU's memory (--micro-batch auto). It tries real steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lowlevel_simclr.config.settings import ConfigError

AUTO = "auto"


def find_largest_micro_batch(
    sizes: Sequence[int], fits: Callable[[int], bool], tell: Callable[[str], object] = print
) -> int:
    """Return the first size that fits.

    Args:
        sizes: numbers of images in a micro-batch, largest first.
        fits: function that tries a size, and returns whether it fits into the memory.
        tell: called with a progress message for each size.

    Raises:
        ConfigError: if no size fits.

    Example:
        >>> find_largest_micro_batch([256, 128, 64], lambda size: size <= 128, tell=lambda text: None)
        128
    """
    for size in sizes:
        if fits(size):
            tell(f"micro-batches of {size} images fit into the memory")
            return size
        tell(f"micro-batches of {size} images do not fit into the memory")
    raise ConfigError(
        f"--micro-batch auto found no size that fits: even {sizes[-1]} images need more than the GPU's memory. Use a "
        "smaller --encoder or --image-size, or --precision bfloat16."
    )
