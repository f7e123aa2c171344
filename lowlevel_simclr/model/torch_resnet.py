"""ResNets as torchvision and timm build them ("v1.5"), so that weights can be exchanged with these libraries.

Three things differ from the encoders in `encoder.py`:

- Padding is equal on all sides. TensorFlow's "same" pads one pixel more at the bottom and at the right if the number of
  padded pixels is odd.
- The stride of a bottleneck block is in its 3x3 convolution. He et al. and Keras have it in the first 1x1 convolution.
- BatchNorm adds 1e-5 to a variance, and not 1.001e-5.

The layers have torchvision's names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from lowlevel_simclr.model import initial_values
from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.convolution import Convolution
from lowlevel_simclr.model.max_pooling import MaxPooling

layers = tf.keras.layers


class TorchResNet(NamedTuple):
    """A ResNet of torchvision.

    Attributes:
        blocks: number of blocks in each stage.
        bottleneck: whether a block has a 1x1, a 3x3 and another 1x1 convolution, which quadruples the width. Otherwise
            it has two 3x3 convolutions.
    """

    blocks: tuple[int, ...]
    bottleneck: bool


TORCH = {
    "resnet18v1.5": TorchResNet((2, 2, 2, 2), bottleneck=False),
    "resnet34v1.5": TorchResNet((3, 4, 6, 3), bottleneck=False),
    "resnet50v1.5": TorchResNet((3, 4, 6, 3), bottleneck=True),
}
WIDTH = 64  # channels of the first stage; they double from stage to stage
EXPANSION = 4  # output channels of a bottleneck block, divided by its inner channels
MOMENTUM, EPSILON = 0.9, 1e-5  # what Keras calls momentum 0.9 is 0.1 in torchvision


def build_torch_resnet(name: str, stem: str, view: Any, seed: int) -> tf.keras.Model:
    """Build a ResNet of torchvision without its classifier.

    Args:
        name: a name in TORCH.
        stem: cifar (3x3, stride 1, no pooling, as usual for small images), half (3x3, stride 2, no pooling) or imagenet
            (torchvision's own).
        view: the symbolic input (B, S, S, C).
        seed: seed of the random weights.

    Returns:
        A model (B, S, S, C) -> h (B, dim).
    """
    kind = TORCH[name]
    seeds = (initial_values.derive_layer_seed(seed, place) for place in range(10_000))
    if stem != "imagenet":
        x = _add_convolution(seeds, view, WIDTH, 3, 2 if stem == "half" else 1, "conv1", "bn1")
    else:
        x = _add_convolution(seeds, view, WIDTH, 7, 2, "conv1", "bn1")
        x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)  # zeros change no maximum after a ReLU
        x = MaxPooling(3, 2, padding="valid", name="maxpool")(x)
    for stage, blocks in enumerate(kind.blocks):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _add_block(seeds, x, WIDTH * 2**stage, stride, kind.bottleneck, f"layer{stage + 1}.{block}")
    return tf.keras.Model(view, layers.GlobalAveragePooling2D(name="h")(x), name=name)


def _add_block(seeds: Iterator[int], x: Any, width: int, stride: int, bottleneck: bool, label: str) -> Any:
    """Add a block of convolutions with its shortcut: (B, s, s, c) -> (B, s / stride, s / stride, c')."""
    sizes = (1, 3, 1) if bottleneck else (3, 3)
    out = width * EXPANSION if bottleneck else width
    y = x
    for place, size in enumerate(sizes, 1):
        last = place == len(sizes)
        step = stride if size == 3 and (bottleneck or place == 1) else 1
        names = (f"{label}.conv{place}", f"{label}.bn{place}")
        y = _add_convolution(seeds, y, out if last else width, size, step, *names, relu=not last)
    if stride > 1 or x.shape[-1] != out:
        names = (f"{label}.downsample.0", f"{label}.downsample.1")
        x = _add_convolution(seeds, x, out, 1, stride, *names, relu=False)
    return layers.ReLU(name=f"{label}.relu")(layers.Add(name=f"{label}.add")([y, x]))


def _add_convolution(
    seeds: Iterator[int], x: Any, width: int, size: int, stride: int, name: str, norm: str, relu: bool = True
) -> Any:
    """Add padding, a convolution, BatchNorm and ReLU."""
    # With stride 1, the convolution itself pads all sides equally ("same"), so no layer for the padding is needed.
    if stride > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.pad")(x)
    padding = "same" if stride == 1 else "valid"
    initializer = tf.keras.initializers.HeNormal(next(seeds))
    x = Convolution(width, size, stride, padding=padding, use_bias=False, kernel_initializer=initializer, name=name)(x)
    x = FusedBatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name=norm)(x)
    return layers.ReLU(name=f"{norm}.relu")(x) if relu else x
