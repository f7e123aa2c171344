"""Makes both views of every image with one native kernel. A view is a random crop with changed colours.

kernels/make_views/make_views.h defines the pixels. The op of the same name in `stock` (plain TensorFlow) has the same
signature and makes the same views. The native kernel writes each view only once, directly in the type of the result.
One thread makes one view. Under `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`). The op has
no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tensorflow as tf

from lowlevel_simclr.contract.checks import check_images, complete_scaling
from lowlevel_simclr.contract.view_checks import convert_params, refuse_large_pixels, refuse_unsound_numbers
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _library, _route

MOST_CHANNELS = 4
LARGEST = 32767  # longest side of an image or a view, in pixels
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
    """Make both views of every image.

    Args:
        images: (N, H, W, C) images. They are uint8 or uint16, which are scaled to [0, 1], or floating-point in [0, 1].
            C is 1 to 4. Only N may be unknown.
        params: parameters with 2N rows. Rows i and N + i are the views of image i.
        size: S, side of a view in pixels.
        dtype: type of the result: float32, bfloat16 or float16. All arithmetic is float32.
        mean: one number, or one for each channel. It is subtracted from the pixels at the end. None leaves the pixels
            in [0, 1].
        std: one number, or one for each channel. The pixels are divided by it after the mean is subtracted. Give both
            `mean` and `std`, or neither.
        blur: False: no view is blurred, even if its sigma is above 0.

    Returns:
        (2N, S, S, C) of `dtype`. The pixels of a view that clips (`params.clip`) are in [0, 1] before mean and std
        apply.

    Raises:
        TypeError: if size is not a whole number, if params are not ViewParams, or if a field has the wrong type.
        ValueError: if a shape or type is wrong, or if params do not have 2N rows. In eager mode, it is also raised if a
            floating-point parameter is NaN or infinite, if a row of `order` does not hold each operation once, or if
            floating-point pixels are in [0, 255].
        tf.errors.InvalidArgumentError: in each of these cases: (1) a box is empty or reaches beyond the image; (2) a
            view is grey or changes saturation or hue, but C is not 3; (3) in a graph, a floating-point parameter is NaN
            or infinite, or an order does not hold each operation once; (4) params do not have 2N rows, and N was not
            known while the graph was built. In the first three cases, the message names the row. On a GPU, no error is
            raised: the pixels of a wrong view are NaN.
        XlaRouteError: under jit_compile or on a GPU, if XLA cannot call the kernels in this TensorFlow.
        NotImplementedError: on a GPU, if the library was built without CUDA kernels.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> from lowlevel_simclr.config.settings import ViewRecipe
        >>> recipe = ViewRecipe()
        >>> params = ops.draw_view_params(seed=0, epoch=0, index=tf.range(8), recipe=recipe, height=32, width=32)
        >>> ops.make_views(tf.zeros([8, 32, 32, 3], tf.uint8), params, size=24).shape
        TensorShape([16, 24, 24, 3])
    """
    (images, size), dtype = _check_images(images, size), _check_type(dtype)
    params = convert_params(params, images.shape[0])
    in_xla = _route.takes_custom_call(images)
    refuse_large_pixels(images)
    params = refuse_unsound_numbers(params)
    if not blur:
        params = params._replace(blur_sigma=tf.zeros_like(params.blur_sigma))
    offset, scale = complete_scaling(mean, std, images.shape[-1])
    inputs = [images, *params, tf.constant(offset, tf.float32), tf.constant(1 / scale, tf.float32)]
    rows = None if images.shape[0] is None else 2 * images.shape[0]
    shape: tuple[Any, ...] = (rows, size, size, images.shape[-1])
    if in_xla:
        return _make_in_xla(inputs, (shape, dtype))
    names = ("images", *ViewParams._fields, "mean", "inverse_std")
    made = _library.load_library().lowlevel_simclr_make_views(
        **dict(zip(names, inputs, strict=True)), size=tf.constant(size, tf.int64), Tout=dtype
    )
    return tf.ensure_shape(made, shape)


def _check_images(images: Any, size: Any) -> tuple[tf.Tensor, int]:
    """Return the images in a type that the kernel supports, and the size as an int.

    Raises:
        ValueError: if shape, type or size are wrong, or larger than the kernel supports.
    """
    images = tf.convert_to_tensor(images)
    size = check_images(tuple(images.shape), images.dtype.name, size)
    height, width, channels = images.shape[1:]
    if channels > MOST_CHANNELS or max(height, width, size) > LARGEST:
        raise ValueError(
            f"images have shape {tuple(images.shape)} and size is {size}. The native op makes views of up to "
            f"{MOST_CHANNELS} channels and {LARGEST} pixels a side. Use the stock ops (--ops stock)."
        )
    return tf.cast(images, tf.float32) if images.dtype.is_floating else images, size


def _check_type(dtype: Any) -> tf.DType:
    dtype = tf.as_dtype(dtype)
    if dtype not in TYPES:
        raise ValueError(f"dtype is {dtype.name}. It must be one of {', '.join(kind.name for kind in TYPES)}.")
    return dtype


def _make_in_xla(inputs: Sequence[tf.Tensor], output: _route.Spec) -> tf.Tensor:
    @tf.custom_gradient
    def make(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., NoReturn]]:
        return _route.call_handler("lowlevel_simclr_make_views", inputs, [output])[0], _refuse_gradient

    return make(*inputs)


@tf.RegisterGradient("LowlevelSimclr>MakeViews")
def _refuse_gradient(*_: Any) -> NoReturn:
    raise LookupError("The native make_views has no gradient. Use the stock op for it (--ops stock).")
