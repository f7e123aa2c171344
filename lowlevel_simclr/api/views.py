"""`lowlevel_simclr.make_views` and `lowlevel_simclr.SimCLRViews`: make two random views of every image.

You can use them in your own models.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from lowlevel_simclr.api.implementation import check_ops, choose_ops
from lowlevel_simclr.api.loss import PACKAGE
from lowlevel_simclr.config.fields import list_fields
from lowlevel_simclr.config.settings import ConfigError, ViewRecipe
from lowlevel_simclr.data.transform import InferenceTransform, PixelScaling
from lowlevel_simclr.data.views import make_two_views
from lowlevel_simclr.runtime.keras import unwrap_variable

RGB = 3  # channels of a colour image
WORD = 2**32  # after this many calls, a layer repeats its random parameters


def make_views(
    images: Any,
    recipe: ViewRecipe | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    size: int | None = None,
    ops: str = "auto",
    sizes: Any = None,
) -> tf.Tensor:
    """Return two random views of every image: cropped, perhaps flipped, with changed colours (SimCLR, appendix A).

    The same seed gives the same views. For training use `SimCLRViews`, which draws new views at every call.

    Args:
        images: (N, H, W, C), C from 1 to 4, uint8 or float with pixels in [0, 255].
        recipe: the ranges and probabilities of the random changes, as a `ViewRecipe` or a mapping of its fields. None:
            those of the paper, with strength 1 of the colour changes and without blur. If the images do not have
            three channels, only brightness and contrast change.
        seed: seed of the random parameters, in [0, 2^64).
        size: S, side of a view in pixels. None: the smaller side of the images.
        ops: "native" for this package's own kernels, "stock" for plain TensorFlow. "auto" is native if the kernels can
            be used here, and stock otherwise.
        sizes: (N, 2) integers, the height and width of each image, for images of different sizes. Each image then lies
            in the upper left corner of `images[i]`. The rest is padding, and no view shows it. None: all images have
            the size H x W.

    Returns:
        (2N, S, S, C) float32 in [0, 1]: all N first views, then all N second views.

    Raises:
        ValueError: if the images have a wrong shape or type, if all float pixels are at most 1, or if an entry of
            `sizes` is larger than H x W. Values are checked only in eager mode.
        ConfigError: if the recipe has an unknown field.

    Example:
        >>> import numpy as np
        >>> import lowlevel_simclr as ls
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        >>> ls.make_views(images, ls.ViewRecipe(crop_area=(0.2, 1.0)), seed=1, size=24).shape
        TensorShape([8, 24, 24, 3])

        A photograph of 24 x 32 pixels and one of 32 x 24, in arrays of 32 x 32:

        >>> ls.make_views(images[:2], seed=1, size=24, sizes=[[24, 32], [32, 24]]).shape
        TensorShape([4, 24, 24, 3])
    """
    images = _as_pixels(images)
    size = min(images.shape[1:3]) if size is None else size
    choices = as_recipe(recipe), size, tf.float32, PixelScaling(), check_ops(ops)
    return _draw_and_make(images, sizes, seed, 0, *choices)


@tf.keras.utils.register_keras_serializable(package=PACKAGE)
class SimCLRViews(tf.keras.layers.Layer):
    """A layer that makes two new views of every image at every call in training.

    The layer counts its calls in a variable, which is saved with the model. The random parameters depend on the seed,
    this count and the place of an image in the batch. So no two calls draw the same views. In inference
    (`training=False`, as in `predict`) the layer returns each image once: the whole image, resized and scaled as in the
    evaluation of this package. There are no pairs of views in inference, so Keras' `evaluate` and `validation_data`
    cannot measure a contrastive loss with this layer.

    Make this layer the first one of a model, and use the loss `NTXent`. If you call the layer in `tf.data`, use `map`
    without `num_parallel_calls`, because parallel calls could see the same count. One call already uses all cores.

    Args:
        size: S, side of a view in pixels.
        recipe: the ranges and probabilities of the random changes, see `make_views`.
        mean: one number for each channel, which is subtracted from pixels in [0, 1]. None: nothing is subtracted.
        std: one number for each channel. After the subtraction, the pixels are divided by it. Give both `mean` and
            `std`, or neither.
        seed: seed of the random parameters, in [0, 2^64). None: drawn once, when the layer is made.
        ops: "auto", "native" or "stock", see `make_views`.
        **options: options of `keras.layers.Layer`: name, dtype.

    Input:
        Images (N, H, W, C), C from 1 to 4, uint8 or float with pixels in [0, 255]. If the images have different sizes,
        also pass `sizes`, (N, 2) integers, see `make_views`.

    Output:
        In training (2N, S, S, C): all N first views, then all N second views. In inference (N, S, S, C). The number
        type is the layer's `compute_dtype`.

    Raises:
        ConfigError: if the recipe has an unknown field.

    Example:
        >>> import numpy as np
        >>> import lowlevel_simclr as ls
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        >>> views = ls.SimCLRViews(24, seed=1)
        >>> first, second = views(images, training=True), views(images, training=True)
        >>> first.shape, bool(np.any(first != second))
        (TensorShape([8, 24, 24, 3]), True)
        >>> views(images, training=False).shape
        TensorShape([4, 24, 24, 3])
    """

    def __init__(
        self,
        size: int,
        recipe: ViewRecipe | Mapping[str, Any] | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int | None = 0,
        ops: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.size = int(size)
        self.recipe = as_recipe(recipe)
        self.scaling = PixelScaling(*(None if given is None else tuple(map(float, given)) for given in (mean, std)))
        self.seed = secrets.randbits(63) if seed is None else int(seed)
        self.ops = check_ops(ops)
        self.calls = self.add_weight(name="calls", shape=(), dtype="int64", initializer="zeros", trainable=False)

    def call(self, images: Any, training: bool | None = None, sizes: Any = None) -> tf.Tensor:
        """Return two views of every image. In inference, return every image once, resized and scaled.

        Keras sets `training` in `fit`, `evaluate` and `predict`. In `tf.data` and in a direct call it sets no value,
        and the layer then returns views. The default is not True, because Keras 3 would pass this value on to the
        layers after this one.
        """
        kind = tf.as_dtype(self.compute_dtype)
        if training is not None and not training:
            return tf.cast(InferenceTransform(self.size, self.scaling)(images, sizes), kind)
        # XLA does not guarantee that a read sees an earlier write. So the assignment itself must return the new value.
        number = unwrap_variable(self.calls).assign_add(1, read_value=True) - 1
        images = _as_pixels(images)
        of_call = self.seed, number % WORD
        return _draw_and_make(images, sizes, *of_call, self.recipe, self.size, kind, self.scaling, self.ops)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of the output. The number of rows depends on whether this is training."""
        return (None, self.size, self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments of this layer, as Keras needs them to save and load it."""
        mean, std = self.scaling
        recipe = dataclasses.asdict(self.recipe)
        ours = {"size": self.size, "recipe": recipe, "mean": mean, "std": std, "seed": self.seed, "ops": self.ops}
        return {**super().get_config(), **ours}


def as_recipe(given: ViewRecipe | Mapping[str, Any] | None) -> ViewRecipe:
    """Return `given` as a `ViewRecipe`. It may be a `ViewRecipe` already, a mapping of its fields, or None.

    Raises:
        ConfigError: if a field is unknown, or has an impossible value.
    """
    from lowlevel_simclr.config.fields import check_field, convert_value, describe_unknown

    if given is None or isinstance(given, ViewRecipe):
        return given or ViewRecipe()
    known = {name: field for name, field in list_fields().items() if field.section == "views"}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(describe_unknown("field of ViewRecipe", name, known))
        check_field(known[name], value)
    return ViewRecipe(**{name: convert_value(known[name], value) for name, value in given.items()})


def _draw_and_make(
    images: tf.Tensor,
    sizes: Any,
    seed: int,
    call: int | tf.Tensor,
    recipe: ViewRecipe,
    size: int,
    dtype: tf.DType,
    scaling: PixelScaling,
    ops: str,
) -> tf.Tensor:
    """Return both views of every image (N, H, W, C).

    The random parameters of a view depend on `seed`, on `call` and on the place of its image in the batch.
    """
    if images.shape[-1] != RGB:
        recipe = dataclasses.replace(recipe, saturation=(1.0, 1.0), hue=(0.0, 0.0), grey_probability=0.0)
    return make_two_views(
        images,
        tf.cast(call, tf.int64),
        tf.range(tf.shape(images, tf.int64)[0])
        if images.shape[0] is None
        else tf.range(images.shape[0], dtype=tf.int64),
        seed=seed,
        recipe=recipe,
        size=size,
        dtype=dtype,
        implementation=choose_ops(ops, images),
        scaling=scaling,
        sizes=sizes,
    )


def _as_pixels(images: Any) -> tf.Tensor:
    """Return images in the form that the ops take: uint8 unchanged, floats in [0, 255] divided by 255.

    Raises:
        ValueError: if all float pixels are at most 1, because they are probably in [0, 1] already.
    """
    images = tf.convert_to_tensor(images)
    if not images.dtype.is_floating:
        return images
    if tf.executing_eagerly() and 0 < float(tf.reduce_max(images)) <= 1:
        raise ValueError("The images are floats of at most 1. Give uint8, or floats with pixels in [0, 255].")
    return tf.cast(images, tf.float32) / 255
