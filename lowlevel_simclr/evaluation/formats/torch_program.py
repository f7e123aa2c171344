"""The encoder of a SimCLR run as a PyTorch module. It needs torch, safetensors and the two other exported files.

    from encoder import load_encoder

    encoder = load_encoder()
    h = encoder(images)

The file `encoder.json` lists the layers, and `encoder.safetensors` holds their weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


def load_encoder(folder: str | Path = Path(__file__).parent) -> Encoder:
    """Return the encoder with its weights, in inference mode."""
    folder = Path(folder)
    encoder = Encoder(json.loads((folder / "encoder.json").read_text()), load_file(folder / "encoder.safetensors"))
    return encoder.eval()


class Encoder(nn.Module):
    """A model from images (n, C, H, W), uint8 or float in [0, 255], to h (n, d), or to {"h": h, "z": z}.

    Here h is the representation of each image, and z is the output of the projection head, if it was exported. If the
    model was exported without preprocessing, it takes images (n, C, S, S) that are already resized and scaled. In
    training mode, BatchNorm uses the statistics of the batch.
    """

    def __init__(self, description: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Store the contents of encoder.json and encoder.safetensors."""
        super().__init__()
        self.description = description
        for name, value in weights.items():
            self._register(name, value)

    def _register(self, name: str, value: torch.Tensor) -> None:
        """Register a weight, or a moving statistic of BatchNorm, under a name with dots such as "conv1.weight"."""
        module: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        if last.startswith("running_"):
            module.register_buffer(last, value)
        else:
            module.register_parameter(last, nn.Parameter(value))

    def forward(self, given: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return h (n, d), or {"h": h, "z": z} if the projection head was exported."""
        maps = {"": self._prepare(given)}
        for layer in self.description["layers"]:
            inputs = [maps[name] for name in layer["inputs"]]
            maps[layer["name"]] = getattr(self, f"_{layer['kind']}")(layer, *inputs)
        outputs = {name: maps[layer] for name, layer in self.description["outputs"].items()}
        return outputs["h"] if list(outputs) == ["h"] else outputs

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and scale the images, to (n, C, S, S). Return them unchanged if the export has no preprocessing."""
        recipe = self.description["preprocessing"]
        if recipe is None:
            return images
        x = images.to(torch.float32) / 255
        if tuple(x.shape[2:]) != (recipe["size"], recipe["size"]):
            down, across = (make_weights(length, recipe["size"]).to(x.device) for length in x.shape[2:])
            x = torch.einsum("sh,nchw,tw->ncst", down, x, across)
        mean, std = (torch.tensor(recipe[name], device=x.device)[:, None, None] for name in ("mean", "std"))
        return (x - mean) / std

    # Layers

    def _convolution(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        weight = self.get_parameter(f"{layer['name']}.weight")
        if layer["padding"] == "same":
            x = pad_as_tensorflow(x, weight.shape[2:], layer["stride"], 0.0)
        return functional.conv2d(x, weight, stride=layer["stride"])

    def _batch_norm(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        name = layer["name"]
        mean, variance = (self.get_buffer(f"{name}.running_{each}") for each in ("mean", "var"))
        weight = self.get_parameter(f"{name}.weight")
        bias = self.get_parameter(f"{name}.bias") if layer["bias"] else None
        momentum, epsilon = layer["momentum"], layer["epsilon"]
        return functional.batch_norm(x, mean, variance, weight, bias, self.training, momentum, epsilon)

    def _dense(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        bias = self.get_parameter(f"{layer['name']}.bias") if layer["bias"] else None
        return functional.linear(x, self.get_parameter(f"{layer['name']}.weight"), bias)

    def _max_pool(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        if layer["padding"] == "same":
            x = pad_as_tensorflow(x, layer["size"], layer["stride"], -float("inf"))
        return functional.max_pool2d(x, layer["size"], layer["stride"])

    def _average_pool(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(x, layer["size"], layer["stride"])

    def _pad(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x, layer["amounts"])

    def _relu(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x)

    def _add(self, layer: dict[str, Any], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def _mean(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    def _same(self, layer: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return x


def pad_as_tensorflow(x: torch.Tensor, size: Any, stride: Any, value: float) -> torch.Tensor:
    """Pad a map (n, c, h, w) as TensorFlow's "same" does: if the padding is odd, the extra pixel goes to the end."""
    amounts: list[int] = []
    for length, taps, step in zip(x.shape[2:], size, stride):
        missing = max((-(-length // step) - 1) * step + taps - length, 0)
        amounts = [missing // 2, missing - missing // 2, *amounts]  # PyTorch takes the last axis first
    return functional.pad(x, amounts, value=value)


def make_weights(length: int, size: int) -> torch.Tensor:
    """Return the weights (size, length) that resize one axis from `length` to `size` pixels: bilinear, antialiased."""
    scale = length / size
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    distances = (torch.arange(length, dtype=torch.float64) + 0.5 - centres[:, None]).abs() / max(scale, 1.0)
    weights = (1 - distances).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(torch.float32)
