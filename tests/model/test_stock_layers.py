"""Tests the twin of an encoder, a copy that has only Keras's own layers. Both must give the same output h."""

from __future__ import annotations

import numpy as np

from lowlevel_simclr.model import encoder, stock_layers
from lowlevel_simclr.model.convolution import Convolution
from lowlevel_simclr.runtime import precision


def test_its_twin_in_stock_layers_gives_the_same_h() -> None:
    precision.set_precision("float64")
    model = encoder.build_encoder("resnet18", "imagenet", 32)
    twin = stock_layers.build_stock_twin(model)
    assert not any(isinstance(layer, Convolution) for layer in twin.layers)
    x = np.random.default_rng(0).random((2, 32, 32, 3))
    h = model(x, training=False).numpy()
    # The twin computes in float32. Each of its twenty layers makes rounding errors in sums of about a hundred terms.
    np.testing.assert_allclose(twin(x.astype(np.float32), training=False), h, rtol=0, atol=1e-4 * np.abs(h).max())
