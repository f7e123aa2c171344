"""Trains SimCLR for some minutes with the PyTorch package lightly: python -m bench.baselines.torch_race REQUEST.

`bench.learning.race` starts this program in an environment of its own (`bench/learning/requirements-torch.txt`).
REQUEST is a text in JSON (`race.py` lists its keys). It gives the training settings (the recipe). There are two
recipes:

- "as shipped" has the settings of lightly's example examples/pytorch/simclr.py. These are torchvision's ResNet-18 with
  its first layers for large images, views of 32 pixels without blur, a projection head with widths 512 and 128, SGD
  with a constant learning rate of 0.06, and temperature 0.5.
- "ours" has the encoder, view size, batch size, temperature, crop range and colour jitter of this project. Its
  optimizer is AdamW. The learning rate first rises (warm-up), then falls like a cosine.

The program writes h, the output of the encoder, for the train and test images into a file. It prints one line of JSON
with the number of steps and the seconds that it trained.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms.simclr_transform import SimCLRTransform
from PIL import Image
from torch import nn
from torch.nn import functional

WARMUP = 0.1  # in our recipe, the learning rate rises during this share of the training
SETTLED = 5  # the measurement of the speed begins after this many steps


class ImagesInMemory(torch.utils.data.Dataset):
    """A data set whose images (n, H, W, 3), uint8, are in memory. An item is the two views of one image."""

    def __init__(self, images: np.ndarray, transform: SimCLRTransform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, place: int) -> list[torch.Tensor]:
        """Return the two views of an image, each of shape (3, S, S)."""
        return self.transform(Image.fromarray(self.images[place]))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. The shortcut's new channels are zeros (He et al. 2016, option A)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        self.stride, self.new = stride, (width - channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output (B, width, s / stride, s / stride)."""
        y = functional.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new, self.new))
        return functional.relu(x + y)


# The number of blocks in each stage, and the width of the first stage.
SMALL = {"resnet20": ((3, 3, 3), 16), "resnet8x4": ((1, 1, 1), 64)}


def build_small(name: str, stem: str) -> tuple[nn.Module, int]:
    """Return an encoder of SMALL, which maps views (B, 3, S, S) to h (B, d), and d. The stem is cifar or half."""
    blocks, width = SMALL[name]
    stride = {"cifar": 1, "half": 2}[stem]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
    channels = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            layers.append(BasicBlock(channels, width * 2**stage, 2 if stage > 0 and block == 0 else 1))
            channels = width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


def build_encoder(recipe: dict[str, Any]) -> tuple[nn.Module, int]:
    """Return the encoder of a recipe, and the length of its output h."""
    if recipe["encoder"] in SMALL:
        return build_small(recipe["encoder"], recipe["stem"])
    whole = torchvision.models.resnet18()
    return nn.Sequential(*list(whole.children())[:-1], nn.Flatten()), 512


def build_transform(recipe: dict[str, Any]) -> SimCLRTransform:
    """Return lightly's function that makes two views of an image, with the settings of a recipe."""
    if recipe["as_shipped"]:
        return SimCLRTransform(input_size=32, gaussian_blur=0.0)
    return SimCLRTransform(
        input_size=recipe["image_size"],
        gaussian_blur=0.0,
        cj_strength=0.5,
        min_scale=recipe["smallest_crop"],
    )


def read_batches(images: np.ndarray, recipe: dict[str, Any], workers: int) -> Iterator[list[torch.Tensor]]:
    """Yield batches without end. A batch has two tensors, each with one view of every image."""
    loader = torch.utils.data.DataLoader(
        ImagesInMemory(images, build_transform(recipe)),
        batch_size=recipe["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


class Clock:
    """Computes how much of the training is done: by time, or by steps if the number of steps is given."""

    def __init__(self, began: float, seconds: float, steps: int | None) -> None:
        self.began, self.seconds, self.steps = began, seconds, steps

    def compute_share(self, done: int) -> float:
        """Return the share (0 to 1) of the training that is done after `done` steps."""
        return done / self.steps if self.steps else (time.time() - self.began) / self.seconds


def compute_rate(recipe: dict[str, Any], share: float) -> float:
    """Return the learning rate after this share (0 to 1) of the training."""
    if recipe["as_shipped"]:
        return recipe["learning_rate"]
    rising = share / WARMUP
    falling = 0.5 * (1 + math.cos(math.pi * max(0.0, share - WARMUP) / (1 - WARMUP)))
    return recipe["learning_rate"] * max(min(rising, falling), 1e-4)


def choose_autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the context for the forward pass: autocast to bfloat16, or a context that changes nothing."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


def train(request: dict[str, Any], images: np.ndarray, clock: Clock) -> tuple[nn.Module, int]:
    """Train until the clock says that all of the training is done. Return the encoder and the number of steps."""
    recipe = request["recipe"]
    torch.manual_seed(request["seed"])
    f, width = build_encoder(recipe)
    g = SimCLRProjectionHead(width, *recipe["projection_widths"])
    weights = [*f.parameters(), *g.parameters()]
    if recipe["as_shipped"]:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(weights, lr=recipe["learning_rate"])
    else:
        optimizer = torch.optim.AdamW(weights, lr=recipe["learning_rate"], weight_decay=1e-4)
    criterion, done = NTXentLoss(temperature=recipe["temperature"]), 0
    for x0, x1 in read_batches(images, recipe, request["workers"]):
        share = clock.compute_share(done)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = compute_rate(recipe, share)
        with choose_autocast(request["precision"]):
            z0, z1 = g(f(x0)), g(f(x1))
        loss = criterion(z0.float(), z1.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1
        if done == SETTLED and request.get("measure"):
            clock.began, clock.seconds, clock.steps = time.time(), request["measure"], None
    return f, done


@torch.no_grad()
def represent(f: nn.Module, images: np.ndarray, side: int) -> np.ndarray:
    """Resize images to `side` pixels, normalise them like the views, and return their representations h (n, d)."""
    f.eval()
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    parts = []
    for first in range(0, len(images), 256):
        x = torch.from_numpy(images[first : first + 256]).permute(0, 3, 1, 2).float() / 255
        if x.shape[-1] != side:
            x = functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        parts.append(f((x - mean) / std).numpy())
    return np.concatenate(parts)


def main() -> None:
    """Train and write the representations h. If the request has the key "measure", only measure the speed."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    arrays = np.load(request["images"])
    clock = Clock(request["began"], request["seconds"], request["steps"])
    f, done = train(request, arrays["train_images"], clock)
    seconds = time.time() - clock.began
    result: dict[str, Any] = {"steps": done, "seconds": seconds, "torch": torch.__version__}
    if request.get("measure"):
        result["pairs_per_second"] = (done - SETTLED) * request["recipe"]["batch_size"] / seconds
    else:
        side = request["recipe"]["evaluation_size"]
        train_h, test_h = (represent(f, arrays[f"{split}_images"], side) for split in ("train", "test"))
        np.savez(Path(request["out"]), train_h=train_h, test_h=test_h)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
