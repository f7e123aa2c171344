"""Exports the encoder to PyTorch: a program `encoder.py`, a list of the layers, and the weights as safetensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.evaluation.formats.form import ExportError, Format
from lowlevel_simclr.evaluation.formats.network import Network
from lowlevel_simclr.model.safetensors import write_safetensors
from lowlevel_simclr.model.torch_weights import name_torch_arrays
from lowlevel_simclr.runtime.keras import find_producer

layers = tf.keras.layers
Options = dict[str, Any]

PROGRAM = Path(__file__).with_name("torch_program.py")  # copied to encoder.py; this package does not import it
HEAD = "head."  # the beginning of the names of the projection head's layers

READER = """
sys.path.insert(0, sys.argv[1])
import torch
from encoder import load_encoder
encoder = load_encoder()

def represent(given):
    with torch.no_grad():
        found = encoder(torch.from_numpy(given).permute(0, 3, 1, 2))
    return {name: rows.numpy() for name, rows in (found if isinstance(found, dict) else {"h": found}).items()}
"""

EXAMPLE = """\
import numpy as np
import torch
from encoder import load_encoder

encoder = load_encoder()
{name} = {given}  # (n, H, W, C); PyTorch takes (n, C, H, W)
h = encoder(torch.from_numpy({name}).permute(0, 3, 1, 2))
"""


def write_pytorch(network: Network, folder: Path, weights: str) -> None:
    """Write `encoder.py`, `encoder.json` and `encoder.safetensors`.

    An encoder whose name ends in "v1.5" is built as in torchvision, and its weights get torchvision's names. All other
    encoders pad in another way than torchvision's networks. Their weights get the names of Keras's layers, so
    torchvision's networks refuse to load them.
    """
    found, arrays = describe_model(network.encoder, "", ""), name_torch_arrays(network.encoder)
    outputs = {"h": found[-1]["name"]}
    if network.head is not None:
        found += describe_model(network.head, HEAD, outputs["h"])
        arrays |= {HEAD + name: array for name, array in name_torch_arrays(network.head).items()}
        outputs["z"] = found[-1]["name"]
    description = {"preprocessing": _describe_preprocessing(network), "layers": found, "outputs": outputs}
    shutil.copyfile(PROGRAM, folder / "encoder.py")
    (folder / "encoder.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    write_safetensors(folder / "encoder.safetensors", arrays)


def describe_model(model: tf.keras.Model, prefix: str, given: str) -> list[Options]:
    """Return the layers of an encoder or a projection head in order, as encoder.py reads them.

    Args:
        model: the encoder or the projection head.
        prefix: a text to put in front of each name.
        given: the name of the layer whose output is the input of the model. "" stands for the images.

    Raises:
        ExportError: if encoder.py does not support a layer.
    """
    found = []
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = [find_producer(tensor) for tensor in tf.nest.flatten(layer.input)]
        names = [given if isinstance(each, layers.InputLayer) else prefix + each.name for each in inputs]
        found.append({"name": prefix + layer.name, "inputs": names, **_describe_layer(layer)})
    return found


def _describe_layer(layer: Any) -> Options:
    """Return the kind of a layer and its options, as encoder.json stores them."""
    for kind, describe in KINDS.items():
        if isinstance(layer, kind):
            return describe(layer)
    raise ExportError(
        f"The layer {layer.name} is a {type(layer).__name__}, which the PyTorch format does not know. Add it to "
        "to_pytorch.py and torch_program.py."
    )


def _describe_window(layer: Any, kind: str, size: Any) -> Options:
    return {"kind": kind, "size": list(size), "stride": list(layer.strides), "padding": layer.padding}


def _describe_padding(layer: Any) -> Options:
    """Describe a padding layer.

    PyTorch wants the amounts for the last axis first. Its axes are (n, c, h, w), and Keras's are (n, h, w, c).
    """
    first, second = (list(each) for each in layer.padding)
    if layer.data_format == "channels_last":
        return {"kind": "pad", "amounts": [*second, *first]}
    return {"kind": "pad", "amounts": [*first, 0, 0, *second]}  # the encoder uses this setting to pad W and C


KINDS: dict[type, Callable[[Any], Options]] = {
    layers.Conv2D: lambda layer: _describe_window(layer, "convolution", layer.kernel_size),
    layers.MaxPooling2D: lambda layer: _describe_window(layer, "max_pool", layer.pool_size),
    layers.AveragePooling2D: lambda layer: _describe_window(layer, "average_pool", layer.pool_size),
    layers.BatchNormalization: lambda layer: {
        "kind": "batch_norm",
        "epsilon": layer.epsilon,
        "momentum": 1 - layer.momentum,
        "bias": layer.center,
    },
    layers.Dense: lambda layer: {"kind": "dense", "bias": layer.use_bias},
    layers.ZeroPadding2D: _describe_padding,
    layers.ReLU: lambda layer: {"kind": "relu"},
    layers.Add: lambda layer: {"kind": "add"},
    layers.GlobalAveragePooling2D: lambda layer: {"kind": "mean"},
    layers.Reshape: lambda layer: {"kind": "same"},  # only Keras's BatchNorm needs these, to see rows as pixels
    layers.Activation: lambda layer: {"kind": "relu" if layer.activation.__name__ == "relu" else "same"},
}


def _describe_preprocessing(network: Network) -> Options | None:
    """Return the settings of the test transform (resizing and scaling), or None if the export has no preprocessing."""
    if not network.preprocessing:
        return None
    channels = network.encoder.input_shape[-1]
    mean, std = (
        np.broadcast_to(np.asarray(default if value is None else value, np.float64), channels).tolist()
        for value, default in ((network.scaling.mean, 0.0), (network.scaling.std, 1.0))
    )
    return {"size": network.encoder.input_shape[1], "mean": mean, "std": std}


PYTORCH = Format("PyTorch", ("torch", "safetensors"), "torch safetensors", "pytorch", write_pytorch, READER, EXAMPLE)
