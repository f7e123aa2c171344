"""SimCLR's training step as a competent user writes it in PyTorch. bench_step compares this package with it.

The step uses the memory format channels_last, autocast to bfloat16, and the optimizer LARS. The encoder is ResNet-50
with the ImageNet stem (the first layers for large images), as in the paper. As in Keras, the first 1x1 convolution of a
block has the block's stride. `grid_sample` and colour operations make the views (randomly changed versions) of a whole
batch at once. PyTorch's foreach operations update all weights at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TEMPERATURE = 0.1
GREY = (0.2989, 0.5870, 0.1140)


class Bottleneck(nn.Module):
    """A block of ResNet-50: convolutions of 1x1, 3x3 and 1x1, and a shortcut around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_make_convolution(channels, width, 1, stride),
            nn.ReLU(True),
            *_make_convolution(width, width, 3, 1),
            nn.ReLU(True),
            *_make_convolution(width, 4 * width, 1, 1),
        )
        changes = stride > 1 or channels != 4 * width
        self.shortcut = nn.Sequential(*_make_convolution(channels, 4 * width, 1, stride)) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output, of shape (B, 4 width, s / stride, s / stride), for an input x of shape (B, C, s, s)."""
        return functional.relu(self.body(x) + self.shortcut(x))


def _make_convolution(channels: int, width: int, size: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)]


def build_resnet50() -> nn.Module:
    """Return the encoder, which maps images x (B, 3, S, S) to representations h (B, 2048)."""
    layers: list[nn.Module] = [*_make_convolution(3, 64, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            width = 64 * 2**stage
            layers.append(Bottleneck(channels, width, 2 if stage > 0 and block == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def draw_views(x: torch.Tensor, size: int) -> torch.Tensor:
    """Return a view (N, 3, S, S) of each image in x (N, 3, H, W), whose pixels are in [0, 1]."""
    count = len(x)
    draw = torch.rand(11, count)
    area, aspect = 0.08 + 0.92 * draw[0], torch.exp((2 * draw[1] - 1) * float(np.log(4 / 3)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    flip = torch.where(draw[2] < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * (2 * draw[3] - 1), (1 - height) * (2 * draw[4] - 1)
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    x = functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (
        torch.where(draw[5] < 0.8, 0.6 + 0.8 * draw[place], torch.ones(())).view(-1, 1, 1, 1) for place in (6, 7, 8)
    )
    turn = torch.where(draw[5] < 0.8, (2 * draw[9] - 1) * 0.1, torch.zeros(()))
    x = (x * brightness).clamp(0, 1)
    mean = x.mean((2, 3), keepdim=True)
    x = ((x - mean) * contrast + mean).clamp(0, 1)
    grey = (x * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = rotate_hue(((x - grey) * saturation + grey).clamp(0, 1), turn)
    grey = (x * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return torch.where((draw[10] < 0.2).view(-1, 1, 1, 1), grey, x)


def rotate_hue(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Rotate the colours of each image about the grey axis. A `turn` of 1 is a full circle.

    One product with a 3x3 matrix for each pixel is cheaper than converting to HSV and back.
    """
    angle = turn * 2 * float(np.pi)
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    ones = torch.ones(3, 3) / 3
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / float(np.sqrt(3))
    matrix = cosine * torch.eye(3) + sine * cross + (1 - cosine) * ones
    return torch.einsum("nij,njhw->nihw", matrix, x).clamp(0, 1)


def compute_loss(z: torch.Tensor) -> torch.Tensor:
    """Return the mean NT-Xent loss of the projections z (2N, d), the outputs of the projection head for N images."""
    u = functional.normalize(z.float(), dim=1)
    s = (u @ u.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    return functional.cross_entropy(s, torch.arange(len(z)).roll(len(z) // 2))


@torch.no_grad()
def update_by_lars(weights: list[torch.Tensor], velocities: list[torch.Tensor], rate: float) -> None:
    """Update the weights with momentum 0.9, weight decay 1e-4 and trust coefficient 0.001.

    Weights with one dimension (biases, and the parameters of BatchNorm) get no decay and no trust ratio.
    """
    wide = [place for place, weight in enumerate(weights) if weight.dim() > 1]
    gradients = [weight.grad for weight in weights]
    torch._foreach_add_([gradients[p] for p in wide], [weights[p] for p in wide], alpha=1e-4)
    of_weights = torch._foreach_norm([weights[p] for p in wide])
    of_updates = torch._foreach_norm([gradients[p] for p in wide])
    ratios = [torch.where((w > 0) & (u > 0), 0.001 * w / u, 1.0) for w, u in zip(of_weights, of_updates)]
    torch._foreach_mul_([gradients[p] for p in wide], ratios)
    torch._foreach_mul_(velocities, 0.9)
    torch._foreach_add_(velocities, gradients, alpha=rate)
    torch._foreach_sub_(weights, velocities)


def prepare_step(
    size: int, batch_size: int, widths: tuple[int, ...], images: np.ndarray, autocast: bool
) -> Callable[[], float]:
    """Return a function without arguments that trains ResNet-50 for one step on the CPU and returns the loss.

    Args:
        size: S, the pixels on a side of a view.
        batch_size: the number of images in a step.
        widths: the widths of the projection head's layers.
        images: the training images (n, H, W, 3) in uint8.
        autocast: whether the model computes in bfloat16 (PyTorch's autocast).
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    f = build_resnet50()
    head: list[nn.Module] = []
    for before, width in zip((2048, *widths), widths):
        head += [nn.Linear(before, width), nn.ReLU(True)]
    model = nn.Sequential(f, *head[:-1]).to(memory_format=torch.channels_last).train()
    weights = list(model.parameters())
    velocities = [torch.zeros_like(weight) for weight in weights]
    stored = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def train_step() -> float:
        x = stored[torch.randint(len(stored), (batch_size,))].float() / 255
        x = torch.cat([draw_views(x, size), draw_views(x, size)]).contiguous(memory_format=torch.channels_last)
        for weight in weights:
            weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            z = model(x)
        loss = compute_loss(z)
        loss.backward()
        update_by_lars(weights, velocities, 0.1)
        return float(loss.detach())

    return train_step
