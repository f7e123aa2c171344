"""The encoder f, from a view x to its pooled representation h: ResNets with ImageNet or CIFAR stems (first layers).

A view is a random crop of an image. In training, the encoder gets views.
`projection.py` builds the projection head. `data/transform.py` preprocesses the images of the evaluation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from lowlevel_simclr.config.choices import ENCODERS, STEMS
from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.model import initial_values
from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.convolution import Convolution
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.model.max_pooling import MaxPooling
from lowlevel_simclr.model.pretrained import load_file, load_imagenet, take_folded_weights, turn_first_kernel
from lowlevel_simclr.model.torch_resnet import TORCH, build_torch_resnet

layers = tf.keras.layers

Shape = tuple[int, int, int]  # S, S, C of a view


class Basic(NamedTuple):
    """A ResNet of basic blocks. Such a block has two 3x3 convolutions and a shortcut past them.

    Attributes:
        blocks: number of blocks in each stage.
        width: number of channels in the first stage. Each stage has twice the channels of the stage before.
        projects: whether shortcuts that change the width are 1x1 convolutions (option B of He et al. 2016). Otherwise
            they pad with zeros (option A).
    """

    blocks: tuple[int, ...]
    width: int
    projects: bool


# resnet8x4 has one block in each stage (8 layers, if a classifier is counted) and four times the width of resnet20.
# The shortcuts are those of the paper (He et al. 2016): option B on ImageNet, option A on CIFAR. Option A saves
# 2 to 3 % of a training step of resnet20.
BASIC = {
    "resnet8x4": Basic((1, 1, 1), 64, projects=False),
    "resnet20": Basic((3, 3, 3), 16, projects=False),
    "resnet18": Basic((2, 2, 2, 2), 64, projects=True),
    "resnet34": Basic((3, 4, 6, 3), 64, projects=True),
}
REDUCTIONS = {"cifar": 1, "half": 2, "imagenet": 4}  # how many times smaller each stem makes the side of a view
# Momentum of the moving statistics. With Keras's 0.99, 1/8 of their first values would remain after 200 steps.
MOMENTUM = 0.9
EPSILON = 1.001e-5  # added to a variance. Keras's ResNets use this value too. cuDNN rejects values below 1e-5.


def build_encoder(
    name: str, stem: str, image_size: int, channels: int = 3, weights: str = "random", seed: int = 0
) -> tf.keras.Model:
    """Build the encoder f.

    Args:
        name: resnet20 (He et al. 2016, section 4.2; h has 64 entries), resnet8x4 (fewer and wider layers; h has 256
            entries), resnet18 or resnet34 (512 entries), or resnet50
            (2048 entries). With "v1.5" after the name, the last three are built as in torchvision and timm.
        stem: cifar (3x3, stride 1, no pooling), half (3x3, stride 2, no pooling) or imagenet (7x7, stride 2, then 3x3
            pooling with stride 2).
        image_size: S, side of a view in pixels.
        channels: C, number of channels of a view.
        weights: "random", "imagenet" or the path of a file. "imagenet" is only for resnet50 with the ImageNet stem.
            These weights expect the scaling of Keras's "caffe" preprocessing (`settings.CAFFE`), but views in the order
            red, green, blue as everywhere else. A file (`.weights.h5`, `.keras` or the older `.h5`) must come from this
            encoder, rebuilt from Keras's own layers (`stock_layers.build_stock_twin`) and saved by Keras. A file
            `.safetensors` has the weights of an encoder with "v1.5", under the names that torchvision and timm use.
        seed: seed of the random weights. They depend only on the seed, not on what was built before.

    Returns:
        A model (B, S, S, C) -> h (B, dim). It computes in the type of Keras's global dtype policy. Its variables are
        float32.

    Raises:
        ModelError: if there is no such encoder or stem, if the views are too small or have no channels, if the weights
            belong to another model or cannot be found, or if Keras is set to channels_first.

    Examples:
        >>> from lowlevel_simclr.model.encoder import build_encoder
        >>> f = build_encoder("resnet20", stem="cifar", image_size=32, seed=0)
        >>> f.output_shape
        (None, 64)
    """
    refuse_choice(name, stem, image_size, channels, weights)
    shape = (image_size, image_size, channels)
    model = _build_random(name, stem, shape, seed)
    if weights == "imagenet":
        take_folded_weights(model, load_imagenet())
        turn_first_kernel(model)
    elif weights != "random":
        load_file(model, weights)
    return model


def _build_random(name: str, stem: str, shape: Shape, seed: int) -> tf.keras.Model:
    """Build the encoder with random weights."""
    if name in TORCH:
        return build_torch_resnet(name, stem, _make_input(shape), seed)
    return _build_resnet50(stem, shape, seed) if name == "resnet50" else _build_basic(name, stem, shape, seed)


def give_other_size(encoder: tf.keras.Model, image_size: int) -> tf.keras.Model:
    """Return an encoder for views of another size. It has the same layers, so it shares all weights with `encoder`.

    Args:
        encoder: f, (B, S, S, C) -> h (B, dim).
        image_size: the new S, in pixels.

    Examples:
        >>> from lowlevel_simclr.model.encoder import build_encoder, give_other_size
        >>> f = build_encoder("resnet20", stem="cifar", image_size=32)
        >>> give_other_size(f, 16).input_shape
        (None, 16, 16, 3)
    """
    if image_size == encoder.input_shape[1]:
        return encoder
    view = _make_input((image_size, image_size, encoder.input_shape[-1]))
    return tf.keras.models.clone_model(encoder, input_tensors=view, clone_function=lambda layer: layer)


def measure_reduction(name: str, stem: str) -> int:
    """Return how many times smaller the side of the last feature map is than the side of a view: 4 to 32.

    Examples:
        >>> from lowlevel_simclr.model.encoder import measure_reduction
        >>> measure_reduction("resnet50", stem="imagenet")
        32
    """
    stages = len(BASIC[name].blocks) if name in BASIC else 4
    return 2 ** (stages - 1) * REDUCTIONS[stem]


def refuse_choice(name: str, stem: str, image_size: int, channels: int, weights: str = "random") -> None:
    """Check that `build_encoder` can build an encoder, without building it.

    Args:
        name: see `build_encoder`.
        stem: see `build_encoder`.
        image_size: see `build_encoder`.
        channels: see `build_encoder`.
        weights: see `build_encoder`. Only the existence of a file is checked.

    Raises:
        ModelError: see `build_encoder`.
    """
    if name not in ENCODERS:
        raise ModelError(f"There is no encoder '{name}'. Use one of {', '.join(ENCODERS)}.")
    if stem not in STEMS:
        raise ModelError(f"There is no stem '{stem}'. Use one of {', '.join(STEMS)}.")
    if tf.keras.backend.image_data_format() != "channels_last":
        raise ModelError(
            "Keras is set to channels_first, and the encoders have their channels last. Set image_data_format to "
            "channels_last in keras.json, in the folder of KERAS_HOME or ~/.keras."
        )
    if channels < 1:
        raise ModelError(f"Views cannot have {channels} channels. Use at least 1.")
    least = measure_reduction(name, stem) // 2 + 1
    if image_size < least:
        raise ModelError(
            f"Views of {image_size} pixels are too small for {name} with the {stem} stem: only one pixel would be left "
            f"before the last stage. Use an image size of {least} or more."
        )
    if weights == "imagenet" and (name, stem, channels) != ("resnet50", "imagenet", 3):
        raise ModelError(
            f"ImageNet weights are for resnet50 with the imagenet stem and 3 channels, not for {name} with the {stem} "
            f"stem and {channels} channels. Use those, or random weights."
        )
    if weights not in ("random", "imagenet") and not Path(weights).exists():
        raise ModelError(
            f"There is no weights file '{show_name(weights)}'. Give a file or a run folder, random or imagenet."
        )


def _make_input(shape: Shape) -> Any:
    # With a float32 input, Keras would cast half-precision views to float32, and the first layer would cast them back
    # to half precision.
    precision = tf.keras.mixed_precision.global_policy().compute_dtype
    return tf.keras.Input(shape, dtype=precision, name="view")


# ResNets of basic blocks


def _build_basic(name: str, stem: str, shape: Shape, seed: int) -> tf.keras.Model:
    """Build the stem, the stages of basic blocks and the mean over the last feature map."""
    kind = BASIC[name]
    seeds = (initial_values.derive_layer_seed(seed, place) for place in range(10_000))
    convolution = functools.partial(_add_convolution, seeds)
    view = _make_input(shape)
    if stem == "imagenet":
        x = convolution(view, kind.width, 7, 2, "stem")
        x = MaxPooling(3, 2, padding="same", name="stem_pool")(x)
    else:
        x = convolution(view, kind.width, 3, REDUCTIONS[stem], "stem")
    for stage, blocks in enumerate(kind.blocks):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            label = f"stage{stage + 1}_block{block + 1}"
            x = _add_basic_block(convolution, x, kind.width * 2**stage, stride, kind.projects, label)
    return tf.keras.Model(view, layers.GlobalAveragePooling2D(name="h")(x), name=name)


def _add_basic_block(
    convolution: Callable[..., Any], x: Any, width: int, stride: int, projects: bool, label: str
) -> Any:  # (B, s, s, c) -> (B, s / stride, s / stride, width)
    """Add two 3x3 convolutions and a shortcut past them (He et al. 2016, figure 2)."""
    y = convolution(x, width, 3, stride, f"{label}_conv1")
    y = convolution(y, width, 3, 1, f"{label}_conv2", relu=False)
    if stride > 1 and projects:
        x = convolution(x, width, 1, stride, f"{label}_shortcut", relu=False)
    elif stride > 1:
        x = _add_padded_shortcut(x, width, stride, label)
    return layers.ReLU(name=f"{label}_relu")(layers.Add(name=f"{label}_add")([x, y]))


def _add_convolution(
    seeds: Iterator[int], x: Any, width: int, size: int, stride: int, label: str, relu: bool = True
) -> Any:
    """Add a convolution, BatchNorm and ReLU.

    TensorFlow fuses BatchNorm and ReLU into one kernel only if no other operation is between them.
    """
    initializer = tf.keras.initializers.HeNormal(next(seeds))
    x = Convolution(width, size, stride, padding="same", use_bias=False, kernel_initializer=initializer, name=label)(x)
    x = FusedBatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name=f"{label}_bn")(x)
    return layers.ReLU(name=f"{label}_relu")(x) if relu else x


def _add_padded_shortcut(x: Any, width: int, stride: int, label: str) -> Any:
    """Add a shortcut without parameters.

    The shortcut takes every second pixel. The new channels are zeros, half of them before the old channels and half
    after.
    """
    new = (width - x.shape[-1]) // 2
    x = layers.AveragePooling2D(1, stride, name=f"{label}_subsample")(x)
    # "channels_first" makes this layer of Keras pad the last two axes, which are W and C here. The padding of W is 0.
    return layers.ZeroPadding2D(((0, 0), (new, new)), data_format="channels_first", name=f"{label}_pad")(x)


# ResNet-50 of Keras


def _build_resnet50(stem: str, shape: Shape, seed: int) -> tf.keras.Model:
    """Build `tf.keras.applications.ResNet50` from our layers, with the given stem and random weights from the seed.

    The convolutions have no bias, as in the paper (He et al. 2016). A bias would have no effect, because the BatchNorm
    after the convolution subtracts it again. Its gradient would be 0 apart from rounding errors.
    """
    # No size of the views is given here, because Keras refuses sides below 32 pixels and warns if C is not 1 or 3.
    stock = tf.keras.applications.ResNet50(include_top=False, weights=None, input_shape=(None, None, 3), pooling="avg")
    seeds = (initial_values.derive_layer_seed(seed, place) for place in range(10_000))
    own = functools.partial(_choose_own_layer, stem, seeds)
    return tf.keras.models.clone_model(stock, input_tensors=_make_input(shape), clone_function=own)


def _choose_own_layer(stem: str, seeds: Iterator[int], layer: Any) -> Any:
    """Return our layer that replaces one layer of Keras's ResNet-50."""
    config = layer.get_config()
    if isinstance(layer, layers.BatchNormalization):
        return FusedBatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name=layer.name)
    if stem != "imagenet" and layer.name in ("conv1_pad", "pool1_pad", "pool1_pool"):
        return layers.Activation("linear", name=layer.name)
    if isinstance(layer, layers.Conv2D):
        initializer = tf.keras.initializers.GlorotUniform(next(seeds))  # Keras's default
        config |= {"kernel_initializer": initializer, "use_bias": False}
        if stem != "imagenet" and layer.name == "conv1_conv":
            stride = REDUCTIONS[stem]
            config |= {"kernel_size": (3, 3), "strides": (stride, stride), "padding": "same"}
        return Convolution.from_config(config)
    return (MaxPooling if isinstance(layer, layers.MaxPooling2D) else type(layer)).from_config(config)
