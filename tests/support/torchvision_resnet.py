"""torchvision's ResNets, written again in PyTorch, for tests without torchvision. Modules have torchvision's names."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """A basic block (two 3x3 convolutions), or a bottleneck block with the stride in its 3x3 convolution."""

    def __init__(self, width: int, out: int, stride: int, bottleneck: bool, narrow: int) -> None:
        super().__init__()
        sizes = (1, 3, 1) if bottleneck else (3, 3)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        widths = [width, *[narrow] * (len(sizes) - 1), out]
        for place, size in enumerate(sizes):
            convolution = nn.Conv2d(widths[place], widths[place + 1], size, strides[place], size // 2, bias=False)
            self.add_module(f"conv{place + 1}", convolution)
            self.add_module(f"bn{place + 1}", nn.BatchNorm2d(widths[place + 1]))
        self.count = len(sizes)
        if stride > 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        else:
            self.downsample = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for place in range(1, self.count + 1):
            y = getattr(self, f"bn{place}")(getattr(self, f"conv{place}")(y))
            y = torch.relu(y) if place < self.count else y
        return torch.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """`torchvision.models.resnet18`, `resnet34` or `resnet50` with its classifier; `forward` returns the features h."""

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool, cifar_stem: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, *((3, 1, 1) if cifar_stem else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, 1)
        width = 64
        for stage, count in enumerate(blocks):
            narrow = 64 * 2**stage
            out = narrow * 4 if bottleneck else narrow
            parts = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                parts.append(Block(width, out, stride, bottleneck, narrow))
                width = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*parts))
        self.fc = nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3))


def build_trained(blocks: tuple[int, ...], bottleneck: bool, cifar_stem: bool = False) -> ResNet:
    """Return a network in inference mode, as after training: BatchNorm does not have its initial values."""
    torch.manual_seed(0)
    model = ResNet(blocks, bottleneck, cifar_stem)
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            if value.dim() == 1 and value.is_floating_point():
                value += torch.rand_like(value) * 0.1
        model.bn1.running_var[:9] = 1e-6  # with so small a variance, a wrong epsilon of BatchNorm is noticed
        model.bn1.weight[:9] = 0.01
    return model.eval()
