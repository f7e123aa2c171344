"""The seed of each layer's initial weights."""

from __future__ import annotations

from lowlevel_simclr.contract.philox import LAYER_SEED, draw_words


def derive_layer_seed(seed: int, place: int) -> int:
    """Return the seed for the initial weights of a layer. It depends only on the run's seed and the layer's number.

    Without a seed, Keras 2 seeds an initialiser from a global counter and Keras 3 from a global generator. The weights
    would then depend on what was built before in the same process.

    Args:
        seed: seed of the run, in [0, 2^64).
        place: number of the layer, in [0, 2^32).

    Returns:
        A seed in [0, 2^31).

    Examples:
        >>> from lowlevel_simclr.model.initial_values import derive_layer_seed
        >>> derive_layer_seed(seed=0, place=3) == derive_layer_seed(seed=0, place=3)
        True
    """
    return int(draw_words(seed, 0, place, 0, LAYER_SEED)[..., 0].item()) % 2**31
