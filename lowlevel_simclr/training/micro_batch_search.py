"""--micro-batch auto: the largest micro-batch whose step fits into a GPU's memory, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lowlevel_simclr.config.settings import ConfigError

AUTO = "auto"


def find_largest_micro_batch(
    sizes: Sequence[int], fits: Callable[[int], bool], tell: Callable[[str], object] = print
) -> int:
    """Return the first size that fits.

    Args:
        sizes: images of a micro-batch, the largest first.
        fits: tries one.
        tell: called with a sentence for each size that was tried.

    Raises:
        ConfigError: none fits.
    """
    for size in sizes:
        if fits(size):
            tell(f"micro-batches of {size} images fit into the memory")
            return size
        tell(f"micro-batches of {size} images do not fit into the memory")
    raise ConfigError(
        f"--micro-batch is auto and not even {sizes[-1]} images fit into the GPU's memory: give a smaller --encoder or "
        "--image-size, or --precision bfloat16"
    )
