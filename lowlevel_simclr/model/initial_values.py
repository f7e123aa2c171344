"""The seed of each layer's initial values."""

from __future__ import annotations

from lowlevel_simclr.contract.philox import LAYER_SEED, draw_words


def derive_layer_seed(seed: int, place: int) -> int:
    """The seed of the initialiser at a place in its model: a function of the run's seed alone.

    Without one, Keras 2 seeds an initialiser from a global counter and Keras 3 from a global generator, so that the
    weights would depend on what was built before.
    """
    return int(draw_words(seed, 0, place, 0, LAYER_SEED)[..., 0].item()) % 2**31
