"""Runs the CUDA kernels of image augmentation without TensorFlow, and compares the results with the NumPy reference.

An augmented image is called a view. The kernels of an op are started by a C function, its launcher. In
tests/kernels/test_cuda.py, the kernels are emulated on the CPU. In tests/kernels/gpu_kernels.py, they run on a GPU.
This module needs only NumPy.
"""

from __future__ import annotations

import ctypes
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr import reference
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.philox import split_seed
from lowlevel_simclr.contract.view_params import ViewParams
from tests.support.device_arrays import Buffer, Memory, from_bfloat16

PIXELS = {"uint8": 0, "uint16": 1, "float32": 2}
TYPES = {"float32": 0, "bfloat16": 2, "float16": 3}
KINDS = ViewParams("i4", "?", *["f4"] * 5, "i4", "?", "?", "f4")
WIDTHS = ViewParams((4,), (), (), (), (), (), (), (4,), (), (), ())
FULL_JITTER = ViewRecipe(jitter_probability=1.0, grey_probability=0.3, blur_probability=0.5)


class Case(NamedTuple):
    """One test problem: the images, the size of the views, and the kind of parameters."""

    count: int
    height: int
    width: int
    channels: int = 3
    size: int = 32
    pixels: str = "uint8"
    dtype: str = "float32"
    scaled: bool = False
    unaligned: bool = False  # whether the address of the views is not a multiple of 16 bytes
    odd: bool = False  # whether the parameters are such as the settings of a training (recipe) can never give


def small_cases() -> list[Case]:
    """Return cases for all paths of the kernels, small enough for the emulation.

    They cover views that are larger or smaller than the crop, sizes that are not a multiple of a vector's length,
    images with one, two and four channels, and views that are too large for shared memory.
    """
    return [
        Case(3, 32, 32),
        Case(2, 32, 32, dtype="bfloat16", scaled=True),
        Case(2, 40, 23, size=20, dtype="float16"),
        Case(2, 9, 50, size=11, pixels="uint16"),
        Case(1, 70, 64, size=13, pixels="float32", scaled=True),
        Case(2, 12, 12, channels=1, size=7),
        Case(1, 20, 24, size=96),
        Case(3, 32, 32, pixels="float32", dtype="float16"),
        Case(2, 32, 32, pixels="uint16", dtype="bfloat16"),
        Case(2, 5, 1, size=9, dtype="bfloat16", scaled=True),
        Case(2, 30, 50, channels=4, size=40, pixels="float32"),
        Case(1, 31, 17, channels=2, size=30, dtype="bfloat16"),
        Case(1, 90, 40, size=35, pixels="uint16", dtype="float16"),
        Case(1, 64, 200, size=64, dtype="bfloat16", scaled=True),
        Case(2, 32, 32, dtype="bfloat16", unaligned=True),
        Case(1, 24, 24, size=40, dtype="float16", unaligned=True),
        Case(3, 32, 32, odd=True),
        Case(3, 20, 28, pixels="float32", odd=True),
        Case(2, 30, 40, size=36, odd=True),
        Case(3, 20, 24, size=48),  # more views than the emulated kernel processes at a time
    ]


def large_cases() -> list[Case]:
    """Return all cases for a GPU.

    The added cases have many views, or the sizes of published recipes. In the emulation they would take too long.
    """
    cases = [Case(2048, 32, 32, dtype=dtype, scaled=True) for dtype in TYPES]
    return [*small_cases(), *cases, Case(200, 96, 96, size=96), Case(150, 375, 500, size=224, dtype="bfloat16")]


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the launchers' arguments, and return the library."""
    size, code, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    shape = [size] * 5 + [code] * 2
    library.lowlevel_simclr_make_views_cuda_workspace_bytes.argtypes = shape
    library.lowlevel_simclr_make_views_cuda_workspace_bytes.restype = size
    library.lowlevel_simclr_make_views_cuda.argtypes = [pointer, *shape, *[pointer] * 6]
    library.lowlevel_simclr_make_views_cuda.restype = ctypes.c_char_p
    library.lowlevel_simclr_draw_view_params_cuda.argtypes = [pointer, size, pointer, pointer, size, *[pointer] * 4]
    library.lowlevel_simclr_draw_view_params_cuda.restype = ctypes.c_char_p
    return library


def pointers(buffers: list[Buffer]) -> Any:
    return (ctypes.c_void_p * len(buffers))(*(buffer.pointer.value for buffer in buffers))


def images_of(case: Case) -> NDArray[Any]:
    random = np.random.default_rng(zlib.crc32(repr(case).encode()))
    x = random.uniform(size=(case.count, case.height, case.width, case.channels))
    x[: case.count // 2] = x[: case.count // 2].round()  # only 0 and 1: saturated pixels, and equal channels
    full = {"uint8": 255, "uint16": 65535, "float32": 1}[case.pixels]
    if case.odd and case.pixels == "float32":
        x = 1.4 * x - 0.2  # some pixels outside [0, 1]
    return (x * full).astype(case.pixels)


def params_of(case: Case) -> ViewParams:
    recipe = FULL_JITTER
    if case.channels != 3:
        recipe = ViewRecipe(jitter_probability=0.0, grey_probability=0.0, blur_probability=0.5)
    drawn = reference.draw_view_params(3, 5, np.arange(case.count), recipe, case.height, case.width)
    params = ViewParams(*(np.asarray(field, kind) for field, kind in zip(drawn, KINDS)))
    return odd_params(params) if case.odd else params


def odd_params(params: ViewParams) -> ViewParams:
    """Return parameters that are never drawn: no clipping, negative saturations, and huge hues."""
    rows = np.arange(len(params.box))
    # Brightness is first: clipping then leaves no pixel outside [0, 1], where the hue amplifies rounding errors.
    order = np.array([[0, 3, 1, 2], [0, 1, 3, 2], [0, 2, 3, 1], [0, 3, 2, 1]], np.int32)[rows % 4]
    saturation = np.array([1.7, -0.5, 1.7, 0.25, 1.0, 1.7], np.float32)[rows % 6]
    hue = np.where(rows % 5 == 2, np.float32(2**30), params.hue)  # changes nothing: 1 is a full circle
    contrast = np.where(rows % 3 == 2, params.contrast, np.float32(0.5))
    shift = np.where(rows % 2 == 0, np.float32(-0.3), np.float32(0.3))
    return params._replace(
        order=order, saturation=saturation, hue=hue, contrast=contrast, brightness_shift=shift, clip=rows % 3 != 2
    )


def make_views(
    library: ctypes.CDLL, memory: Memory, case: Case, images: NDArray[Any], params: ViewParams
) -> NDArray[Any]:
    """Return the views (2N, S, S, C) in the type of the case. bfloat16 views are returned as their bits."""
    shape = (*images.shape, case.size, PIXELS[case.pixels], TYPES[case.dtype])
    offset, scale = scaling_of(case)
    constants = [np.full(case.channels, number, np.float32) for number in (offset, 1 / scale)]
    source, *rest = (Buffer(memory, array) for array in (images, *constants, *params))
    workspace = Buffer(memory, library.lowlevel_simclr_make_views_cuda_workspace_bytes(*shape))
    stored = np.dtype("u2" if case.dtype == "bfloat16" else case.dtype)
    views_shape = (2 * case.count, case.size, case.size, case.channels)
    skipped = int(case.unaligned)
    views = Buffer(memory, (int(np.prod(views_shape)) + skipped) * stored.itemsize)
    start = ctypes.c_void_p(views.pointer.value + skipped * stored.itemsize)
    arrays = (source.pointer, pointers(rest[2:]), rest[0].pointer, rest[1].pointer, workspace.pointer, start)
    why = library.lowlevel_simclr_make_views_cuda(memory.stream, *shape, *arrays)
    assert why is None, why
    workspace.read("u1", (workspace.size,))
    return views.read(stored, (int(np.prod(views_shape)) + skipped,))[skipped:].reshape(views_shape)


def scaling_of(case: Case) -> tuple[float, float]:
    return (0.45, 0.25) if case.scaled else (0.0, 1.0)


def check_views(library: ctypes.CDLL, memory: Memory, case: Case) -> NDArray[Any]:
    """Run a case twice. Both must give the same bits, and these must agree with the reference.

    The allowed error of a pixel is 64 rounding errors of float32 plus one rounding to the type of the views. All
    operations together round a pixel about 30 times. For a nearly grey pixel, the saturation divides by nearly 0, but
    clipping to [0, 1] limits the error of such a pixel.
    """
    images, params = images_of(case), params_of(case)
    found = make_views(library, memory, case, images, params)
    assert found.tobytes() == make_views(library, memory, case, images, params).tobytes(), "other bits in a second run"
    offset, scale = scaling_of(case)
    some = np.unique(np.r_[: min(8, len(found)), len(found) - min(8, len(found)) : len(found)])
    expected = expected_views(case, images, params, some)
    actual = (from_bfloat16(found) if case.dtype == "bfloat16" else found).astype(np.float64)[some]
    half_spacing = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}[case.dtype]
    allowed = 64 * 2.0**-24 / scale + half_spacing * np.abs(expected)
    error = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(error - allowed), error.shape)
    assert np.all(error <= allowed), f"view {some[worst[0]]}: {actual[worst]} instead of {expected[worst]} at {worst}"
    return found


def expected_views(case: Case, images: NDArray[Any], params: ViewParams, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the views in these rows, made by the NumPy reference."""
    offset, scale = scaling_of(case)
    views = []
    for row in rows:
        pair = ViewParams(*(np.stack([field[row], field[row]]) for field in params))
        views.append(reference.make_views(images[row % case.count][None], pair, case.size, mean=offset, std=scale)[0])
    return np.stack(views)


def check_faulty_views(library: ctypes.CDLL, memory: Memory) -> None:
    """Assert that a view is NaN if its box is empty or outside the image, or if one channel must be made grey."""
    case = Case(3, 16, 16, size=8)
    images, params = images_of(case), params_of(case)
    sound = make_views(library, memory, case, images, params)
    for bad in ((0, 0, 17, 4), (-1, 0, 4, 4), (3, 3, 0, 4), (2**31 - 1, 0, 2**31 - 1, 2)):
        box = params.box.copy()
        box[4] = bad  # y, x, height, width
        found = make_views(library, memory, case, images, params._replace(box=box))
        assert np.all(np.isnan(found[4])), bad
        assert np.array_equal(np.delete(found, 4, 0), np.delete(sound, 4, 0))
    single = case._replace(channels=1)
    assert np.all(
        np.isnan(make_views(library, memory, single, images[..., :1].copy(), params._replace(grey=params.grey | True)))
    )


def draw(
    library: ctypes.CDLL,
    memory: Memory,
    index: NDArray[np.int64],
    epoch: int,
    height: int,
    width: int,
    sizes: NDArray[np.int64] | None = None,
) -> ViewParams:
    """Return the parameters that the launcher draws. If the images differ in size, `sizes` (N, 2) has their sizes."""
    recipe = FULL_JITTER
    ranges = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue, recipe.brightness_shift)
    switches = (recipe.flip_probability, recipe.jitter_probability, recipe.grey_probability, recipe.blur_probability)
    frames = np.array([[height, width]], np.int64) if sizes is None else sizes
    parts = (recipe.crop_area, np.log(recipe.crop_aspect), switches, *ranges, recipe.blur_sigma)
    numbers = np.concatenate([*parts, (recipe.clip, height, width), recipe.crop_aspect]).astype(np.float64)
    arrays = (index, frames, split_seed(7).astype(np.int64), np.array([epoch], np.int64), numbers)
    inputs = [Buffer(memory, array) for array in arrays]
    shapes = [(2 * len(index), *width) for width in WIDTHS]
    outputs = [Buffer(memory, int(np.prod(s)) * np.dtype(kind).itemsize) for s, kind in zip(shapes, KINDS)]
    place, frame, *rest = (buffer.pointer for buffer in inputs)
    why = library.lowlevel_simclr_draw_view_params_cuda(
        memory.stream, len(index), place, frame, len(frames), *rest, pointers(outputs)
    )
    assert why is None, why
    return ViewParams(*(buffer.read(kind, shape) for buffer, kind, shape in zip(outputs, KINDS, shapes)))


def check_draws(library: ctypes.CDLL, memory: Memory, count: int) -> None:
    """Assert that drawn integers and flags equal those of the reference, and floats differ by at most two roundings.

    If the index or the size of an image is invalid, both its views must get a box of -1.
    """
    index = np.r_[np.arange(count - 1), 2**32 - 1].astype(np.int64)
    sizes = np.random.default_rng(1).integers(1, (34, 48), (count, 2))  # for some images, none of the tried boxes fits
    for frames in (None, sizes):
        expected = reference.draw_view_params(7, 2, index, FULL_JITTER, 33, 47, frames)
        found = draw(library, memory, index, 2, 33, 47, frames)
        for name, actual, wanted in zip(ViewParams._fields, found, expected):
            if np.asarray(actual).dtype.kind == "f":
                assert np.allclose(actual, wanted, rtol=2 * 2.0**-23, atol=2.0**-24), name
            else:
                assert np.array_equal(actual, wanted), name
    index[1], sizes[2:5] = -1, [[0, 4], [34, 4], [4, 2**40]]
    marked = np.all(draw(library, memory, index, 2, 33, 47, sizes).box == -1, axis=1)
    assert np.array_equal(np.flatnonzero(marked), [1, 2, 3, 4, count + 1, count + 2, count + 3, count + 4])


def check_padding(library: ctypes.CDLL, memory: Memory) -> None:
    """Assert that the padding around an image does not change its views, if crops are made smaller or larger."""
    for case in (Case(4, 33, 47, size=12), Case(4, 20, 28, size=48, pixels="uint16")):
        sizes = np.array([[case.height, 5], [7, case.width], [1, 1], [15, 21]])
        drawn = reference.draw_view_params(3, 5, np.arange(4), FULL_JITTER, case.height, case.width, sizes)
        params = ViewParams(*(np.asarray(field, kind) for field, kind in zip(drawn, KINDS)))
        images = images_of(case)
        made = []
        for padding in (0, 255):
            padded = np.full_like(images, padding)
            for to, image, (height, width) in zip(padded, images, sizes):
                to[:height, :width] = image[:height, :width]
            made.append(make_views(library, memory, case, padded, params).tobytes())
        assert made[0] == made[1], case
