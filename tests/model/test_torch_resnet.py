"""Tests the encoders that have the layers of torchvision's ResNets: sizes, names of variables, initial weights."""

from __future__ import annotations

import numpy as np
import pytest

from lowlevel_simclr.model import encoder
from lowlevel_simclr.model.torch_resnet import TORCH
from lowlevel_simclr.runtime import keras

# name -> dimension of h (the output), and number of parameters of torchvision's network with the ImageNet stem (the
# first layers for large images), without its classifier
COUNTS = {
    "resnet18v1.5": (512, 11_176_512),
    "resnet34v1.5": (512, 21_284_672),
    "resnet50v1.5": (2048, 23_508_032),
}


@pytest.mark.parametrize("name", TORCH)
def test_sizes_and_parameter_counts(name: str) -> None:
    dim, parameters = COUNTS[name]
    model = encoder.build_encoder(name, "imagenet", 64)
    assert model.output_shape == (None, dim) and keras.count_trainable(model) == parameters
    assert tuple(model.layers[-1].input.shape)[1:3] == (2, 2)
    assert encoder.measure_reduction(name, "imagenet") == 32


def test_the_cifar_stem_keeps_the_size() -> None:
    model = encoder.build_encoder("resnet18v1.5", "cifar", 32)
    assert tuple(model.layers[-1].input.shape)[1:3] == (4, 4)
    views = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    h = model(views, training=True).numpy()
    assert h.shape == (2, 512) and np.isfinite(h).all() and h.std() > 0


def test_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (
        encoder.build_encoder("resnet18v1.5", "cifar", 8, seed=seed).get_weights() for seed in (3, 3, 4)
    )
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(np.array_equal(one, two) for one, two in zip(first, other, strict=True) if one.ndim > 1)
