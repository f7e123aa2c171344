"""The pixels of views in NumPy float64, one view after another, as SimCLR's appendix A describes them.

    crop and resize -> flip -> colour operations in the view's order -> grey -> blur -> scaling by mean and std

These definitions hold for every implementation:

Crop. The view's box is first cut out of the image and then resized by itself, so no pixel outside the box counts. The
resize is bilinear with half-pixel centres. If the box is larger than the view, the triangle filter is widened by the
scale (antialiasing). Weights that fall outside the box are left out, and the remaining weights are divided by their
sum.

Colour. f is the factor of the operation. Brightness: f x + shift. Contrast: f (x - m) + m, where m is the channel's
mean over the view. Saturation and hue are defined in HSV, with chroma C = S V. The saturation S becomes f S, so C
becomes f C. The hue moves by a share of a full turn. If the view's `clip` is true, each operation ends with a clip to
[0, 1], and S is limited to 1, which means C <= V. If `clip` is false, C has no such limit, because V may be 0 or below,
where S has no meaning.

Grey. 0.2989 R + 0.5870 G + 0.1140 B in all three channels.

Blur. The view is blurred with a Gaussian of its own sigma. The kernel has size // 10 taps, or one tap more if that
number is even. Its weights are divided by their sum. Beyond the border, the view is mirrored about its outermost
pixels, which are not repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lowlevel_simclr.contract.checks import check_fields, check_images, check_largest_pixel, check_params, check_scaling
from lowlevel_simclr.contract.constants import FULL_SCALE, GREY_WEIGHTS
from lowlevel_simclr.contract.view_params import BRIGHTNESS, CONTRAST, HUE, SATURATION, ViewParams

Pixels = NDArray[np.float64]


def make_views(
    images: ArrayLike,
    params: ViewParams,
    size: int,
    dtype: DTypeLike = np.float64,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    *,
    blur: bool = True,
) -> NDArray[Any]:
    """Make both views of every image.

    Args:
        images: (N, H, W, C) images. They are uint8 or uint16, which are scaled to [0, 1], or floating-point in [0, 1].
        params: parameters with 2N rows. Rows i and N + i are the views of image i.
        size: S, side of a view in pixels.
        dtype: type of the result. All arithmetic is in float64.
        mean: one number, or one for each channel. It is subtracted from the pixels at the end. None leaves the pixels
            in [0, 1].
        std: one number, or one for each channel. The pixels are divided by it after the mean is subtracted. Give both
            `mean` and `std`, or neither.
        blur: whether to blur views. False makes all views without blur, whatever their sigma.

    Returns:
        (2N, S, S, C) of `dtype`. If a view's `clip` is true, its pixels are in [0, 1] before mean and std apply.

    Raises:
        TypeError: if size is not a whole number, or if params are not ViewParams.
        ValueError: if a shape or type is wrong, if a box is empty or leaves the image, if a factor is NaN or infinite,
            if C is not 3 and a view is grey or changes saturation or hue, or if floating-point pixels are in [0, 255].

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> from lowlevel_simclr.config.settings import ViewRecipe
        >>> recipe = ViewRecipe()
        >>> params = reference.draw_view_params(seed=0, epoch=0, index=range(8), recipe=recipe, height=32, width=32)
        >>> reference.make_views(np.zeros((8, 32, 32, 3), np.uint8), params, size=24).shape
        (16, 24, 24, 3)
    """
    images = np.asarray(images)
    size = check_images(images.shape, images.dtype.name, size)
    params = ViewParams(*(np.asarray(field) for field in check_fields(params)))
    check_params(params, *images.shape)
    if images.dtype.name.startswith("float"):
        check_largest_pixel(float(images.max(initial=0)))
    check_scaling(mean, std, images.shape[-1])
    scaled = images.astype(np.float64) / FULL_SCALE.get(images.dtype.name, 1.0)
    views = np.zeros((2 * len(images), size, size, images.shape[-1]))
    for row in range(len(views)):
        own = ViewParams(*(field[row] for field in params))
        views[row] = _make_view(scaled[row % len(images)], own, size, blur)
    if mean is not None:
        views = (views - np.asarray(mean, np.float64)) / np.asarray(std, np.float64)
    return views.astype(dtype)


def _make_view(image: Pixels, params: ViewParams, size: int, blur: bool) -> Pixels:
    """Make one view in [0, 1]: (H, W, C) -> (S, S, C)."""
    x = crop_and_resize(image, params.box, size)
    if params.flip:
        x = x[:, ::-1]
    for operation in params.order:
        x = _change_colours(x, operation, params)
        if params.clip:
            x = np.clip(x, 0, 1)
    if params.grey:
        x = np.repeat(x @ np.array(GREY_WEIGHTS)[:, None], 3, axis=-1)
    if blur and params.blur_sigma > 0:
        x = blur_by_gaussian(x, params.blur_sigma)
    return x


def crop_and_resize(image: Pixels, box: ArrayLike, size: int) -> Pixels:
    """Cut the box out of the image and resize it: (H, W, C) -> (S, S, C)."""
    y, x, height, width = (int(number) for number in np.asarray(box))
    crop = image[y : y + height, x : x + width]
    return np.einsum(
        "ij,kl,jlc->ikc", compute_resize_weights(height, size), compute_resize_weights(width, size), crop, optimize=True
    )


def compute_resize_weights(length: int, size: int) -> Pixels:
    """Return the weights (size, length) that resize one axis from `length` to `size` pixels. Each row sums to 1.

    Examples:
        >>> from lowlevel_simclr.reference.make_views import compute_resize_weights
        >>> compute_resize_weights(length=4, size=2).round(3).tolist()
        [[0.429, 0.429, 0.143, 0.0], [0.0, 0.143, 0.429, 0.429]]
    """
    scale = length / size  # source pixels per target pixel
    centres = (np.arange(size) + 0.5) * scale  # (size,), in source pixels
    pixels = np.arange(length) + 0.5  # (length,)
    triangle = np.maximum(0, 1 - np.abs(pixels - centres[:, None]) / max(scale, 1))
    return triangle / triangle.sum(axis=1, keepdims=True)


def _change_colours(x: Pixels, operation: int, params: ViewParams) -> Pixels:
    """Apply one operation of the view's order, without the clip: (S, S, C) -> (S, S, C)."""
    if operation == BRIGHTNESS:
        return params.brightness * x + params.brightness_shift
    if operation == CONTRAST:
        mean = x.mean(axis=(0, 1))  # (C,)
        return params.contrast * (x - mean) + mean
    if operation == SATURATION and params.saturation != 1:
        hue, chroma, value = convert_to_hue_chroma_value(x)
        chroma = max(params.saturation, 0) * chroma
        return convert_to_red_green_blue(hue, np.minimum(chroma, value) if params.clip else chroma, value)
    if operation == HUE and params.hue != 0:
        hue, chroma, value = convert_to_hue_chroma_value(x)
        return convert_to_red_green_blue(hue + params.hue, chroma, value)
    return x


def convert_to_hue_chroma_value(rgb: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Return hue in turns (0 for a grey pixel), chroma max - min, and value max: (..., 3) -> (...) each."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    value = rgb.max(axis=-1)
    chroma = value - rgb.min(axis=-1)
    divisor = np.where(chroma == 0, 1, chroma)
    hue = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    return hue / 6 % 1, chroma, value


def convert_to_red_green_blue(hue: Pixels, chroma: Pixels, value: Pixels) -> Pixels:
    """Invert `convert_to_hue_chroma_value`, for a hue of any number of turns: (...) each -> (..., 3)."""
    channels = []
    for centre in (0, 1 / 3, 2 / 3):  # the hues of red, green and blue
        distance = np.abs((hue - centre + 0.5) % 1 - 0.5)  # turns, in [0, 1/2]
        share = np.clip(2 - 6 * distance, 0, 1)  # 1 up to a sixth of a turn away, 0 from a third on
        channels.append(value - chroma * (1 - share))
    return np.stack(channels, axis=-1)


def blur_by_gaussian(x: Pixels, sigma: float) -> Pixels:
    """Blur along both axes, mirrored at the border: (S, S, C) -> (S, S, C)."""
    radius = count_blur_taps(len(x)) // 2
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * np.float64(sigma) ** 2))
    taps /= taps.sum()
    padded = np.pad(x, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    down = sum(tap * padded[k : k + len(x)] for k, tap in enumerate(taps))
    return sum(tap * down[:, k : k + len(x)] for k, tap in enumerate(taps))


def count_blur_taps(size: int) -> int:
    """Return the number of taps of the blur's kernel for views of `size` pixels: a tenth, plus one if that is even."""
    taps = size // 10
    return taps + 1 - taps % 2
