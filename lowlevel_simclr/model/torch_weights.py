"""Converts weights to and from the names and the layout of torchvision and timm.

In both libraries, the weights of ResNet-18, -34 and -50 have the same names. The shape of a kernel is (F, C, kH, kW) in
PyTorch, and (kH, kW, C, F) in Keras.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

layers = tf.keras.layers

# PyTorch's names for the weights of a BatchNorm, in Keras's order
NORM = ("weight", "bias", "running_mean", "running_var")
UNUSED = ("fc.", "num_batches_tracked")  # the classifier, and the count of training steps


class OtherNetwork(ValueError):
    """The weights belong to another network. The message is a clause such as "it has no array 'conv1.weight'"."""


def name_torch_arrays(model: tf.keras.Model) -> dict[str, np.ndarray]:
    """Return the weights of an encoder or a projection head in the layout of PyTorch, by name.

    Args:
        model: the model, built from our layers or from Keras's. The names of the arrays begin with the names of its
            layers. In an encoder of `torch_resnet.py`, these are torchvision's names.

    Returns:
        float32 arrays such as "conv1.weight" (64, C, 7, 7) and "bn1.running_mean" (64,).

    Examples:
        >>> from lowlevel_simclr.model.encoder import build_encoder
        >>> from lowlevel_simclr.model.torch_weights import name_torch_arrays
        >>> f = build_encoder("resnet18v1.5", stem="imagenet", image_size=32)
        >>> name_torch_arrays(f)["layer2.0.downsample.0.weight"].shape
        (128, 64, 1, 1)
    """
    arrays = {}
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, layers.Conv2D):
            arrays[f"{layer.name}.weight"] = values[0].transpose(3, 2, 0, 1)
        elif isinstance(layer, layers.BatchNormalization):
            names = NORM if layer.center else [name for name in NORM if name != "bias"]
            arrays |= {f"{layer.name}.{name}": value for name, value in zip(names, values, strict=True)}
        elif isinstance(layer, layers.Dense):
            arrays |= {f"{layer.name}.{name}": value.T for name, value in zip(("weight", "bias"), values)}
    return arrays


def take_torch_arrays(model: tf.keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the weights of an encoder of `torch_resnet.py` to those of torchvision or timm.

    The function ignores a prefix that all names have, such as "model.". It also ignores the classifier.

    Args:
        model: the encoder. Its weights are overwritten.
        arrays: the arrays of a file by name.

    Raises:
        OtherNetwork: if an array is missing, has the wrong shape, or belongs to another network. In these cases, no
            weight of the model is changed.
    """
    given = _strip(arrays)
    wanted = {name: array.shape for name, array in name_torch_arrays(model).items()}
    missing = [name for name in wanted if name not in given]
    if missing:
        raise OtherNetwork(f"it has no array '{missing[0]}'")
    foreign = [name for name in given if name not in wanted and not _is_unused(name)]
    if foreign:
        raise OtherNetwork(f"it has an array '{foreign[0]}', which {model.name} does not have")
    for name, shape in wanted.items():
        if given[name].shape != shape:
            raise OtherNetwork(f"its array '{name}' has the shape {given[name].shape}, not {shape}")
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            layer.set_weights([given[f"{layer.name}.weight"].astype(np.float32).transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([given[f"{layer.name}.{name}"].astype(np.float32) for name in NORM])


def _strip(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove from all names the prefix of the first convolution's name. Drop the arrays whose names lack the prefix."""
    first = next((name for name in arrays if name.endswith("conv1.weight") and "layer" not in name), "conv1.weight")
    prefix = first.removesuffix("conv1.weight")
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _is_unused(name: str) -> bool:
    return name.startswith(UNUSED[0]) or name.endswith(UNUSED[1])
