"""Both views of every image in one native pass. kernels/make_views/make_views.h says what is computed.

Name, signature and pixels as in `stock`. Each view is made by one thread that reads the image and writes the view, in
its final type, once. Inside `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`). It has no
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tensorflow as tf

from lowlevel_simclr.contract.checks import check_images, complete_scaling
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.ops._field_types import FIELD_TYPES

MOST_CHANNELS = 4
LARGEST = 32767  # pixels a side of an image or view
TYPES = (tf.float32, tf.bfloat16, tf.float16)


def make_views(
    images: tf.Tensor,
    params: ViewParams,
    size: int,
    dtype: tf.DType = tf.float32,
    mean: Any = None,
    std: Any = None,
    *,
    blur: bool = True,
) -> tf.Tensor:
    """Both views of every image.

    Args:
        images: (N, H, W, C) uint8 or uint16, scaled to [0, 1], or floating-point in [0, 1]; C from 1 to 4; only N may
            be unknown.
        params: 2N rows; rows i and N+i are views of image i.
        size: S, pixels a side of a view.
        dtype: of the result: float32, bfloat16 or float16; all arithmetic is float32.
        mean: a number, or one a channel, taken from the pixels at the end; None: pixels stay in [0, 1].
        std: a number, or one a channel, that they are divided by then; given with `mean` or not at all.
        blur: False leaves every view as it is, whatever its sigma.

    Returns:
        (2N, S, S, C) of `dtype`, in [0, 1] before mean and std where the view clips.

    Raises:
        ValueError: a wrong shape or type.
        tf.errors.InvalidArgumentError: a box that is empty or not inside the image, a view that changes saturation or
            hue or is grey of images that have not 3 channels, or params of another number of rows. It names the row.
            (On a GPU such a view is NaN.)
        XlaRouteError: under jit_compile or on a GPU with a TensorFlow whose XLA cannot reach the kernel.
        NotImplementedError: on a GPU, with a library that was built without CUDA kernels.
    """
    images, dtype = _check_images(images, size), _check_type(dtype)
    params = ViewParams(*(tf.convert_to_tensor(field, kind) for field, kind in zip(params, FIELD_TYPES)))
    if not blur:
        params = params._replace(blur_sigma=tf.zeros_like(params.blur_sigma))
    offset, scale = complete_scaling(mean, std, images.shape[-1])
    inputs = [images, *params, tf.constant(offset, tf.float32), tf.constant(1 / scale, tf.float32)]
    rows = None if images.shape[0] is None else 2 * images.shape[0]
    shape: tuple[Any, ...] = (rows, size, size, images.shape[-1])
    if _route.takes_custom_call(images):
        _check_rows(images, params)
        return _make_in_xla(inputs, (shape, dtype))
    names = ("images", *ViewParams._fields, "mean", "inverse_std")
    made = _library.load_library().lowlevel_simclr_make_views(
        **dict(zip(names, inputs, strict=True)), size=tf.constant(size, tf.int64), Tout=dtype
    )
    return tf.ensure_shape(made, shape)


def _check_images(images: Any, size: int) -> tf.Tensor:
    """The images as one of the kernel's types, or ValueError."""
    images = tf.convert_to_tensor(images)
    check_images(tuple(images.shape), images.dtype.name, size)
    height, width, channels = images.shape[1:]
    if channels > MOST_CHANNELS or max(height, width, size) > LARGEST:
        raise ValueError(
            f"images have shape {tuple(images.shape)} and size is {size}: the native op makes views of up to "
            f"{MOST_CHANNELS} channels and {LARGEST} pixels a side; use the stock ops (--ops stock)."
        )
    return tf.cast(images, tf.float32) if images.dtype.is_floating else images


def _check_type(dtype: Any) -> tf.DType:
    dtype = tf.as_dtype(dtype)
    if dtype not in TYPES:
        raise ValueError(f"dtype is {dtype.name}: views are {', '.join(kind.name for kind in TYPES)}.")
    return dtype


def _check_rows(images: tf.Tensor, params: ViewParams) -> None:
    """ValueError where static shapes do not fit one another; the TensorFlow op checks them itself."""
    rows = None if images.shape[0] is None else 2 * images.shape[0]
    for name, field in zip(ViewParams._fields, params):
        expected = (rows, 4) if name in ("box", "order") else (rows,)
        if rows is not None and not field.shape.is_compatible_with(expected):
            raise ValueError(
                f"{name} has shape {tuple(field.shape)} for {images.shape[0]} images: it must be {expected}, two rows "
                "for each."
            )


def _make_in_xla(inputs: Sequence[tf.Tensor], output: _route.Spec) -> tf.Tensor:
    @tf.custom_gradient
    def make(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., NoReturn]]:
        return _route.call_handler("lowlevel_simclr_make_views", inputs, [output])[0], _refuse_gradient

    return make(*inputs)


@tf.RegisterGradient("LowlevelSimclr>MakeViews")
def _refuse_gradient(*_: Any) -> NoReturn:
    raise LookupError("The native make_views has no gradient: use the stock op for it (--ops stock).")
