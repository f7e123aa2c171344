"""Times making both views of a batch: python -m bench.ops.bench_make_views [--sizes 32 96] [--compare FILE].

A view is a randomly changed version of an image: cropped, resized, with other colours. The bench compares the native op
with two alternatives. The first is the stock implementation, which uses TensorFlow's own ops. It runs as a graph and
under XLA. It gets the same parameters as the native op and must give the same views. The second is a `tf.data` pipeline
(in the rows: per-image map). It makes the views image by image, as the code of the paper's authors does: a distorted
bounding box, bicubic resizing, colour operations in random order, grey, blur. The pipeline draws its own random
numbers, so its pixels differ from those of the native op, and the bench checks only the shape and the range of its
views.

The result gives the views per processor second. It also gives the memory traffic of each alternative as a share of the
device's copy bandwidth. The traffic is counted as one read of each image and one write of each view. The rows named
`native jit` are the native op in a function that XLA compiles.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bench import hardware, harness, versions
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.constants import GREY_WEIGHTS
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _route
from lowlevel_simclr.reference.make_views import count_blur_taps

TOLERANCE = 1e-4  # relative to the largest pixel value, 1; changes of contrast and saturation amplify rounding errors
COPIED = 2**26  # the bandwidth is measured on an array of this many float32: 256 MiB, larger than every cache
BLURS = {False: ViewRecipe(), True: ViewRecipe(blur_probability=0.5)}


MakeViews = Callable[..., tf.Tensor]  # the signature of `ops.make_views`


class Problem(NamedTuple):
    """The sizes of a problem: N images of height x width pixels, and views of size x size pixels."""

    size: int
    height: int
    width: int
    images: int
    blur: bool


SOURCES = {32: [(32, 32)], 96: [(96, 96)], 224: [(256, 256), (375, 500)]}


def make_images(problem: Problem) -> np.ndarray:
    """Return images (N, H, W, 3) in uint8: smooth colour patches, as in photographs, with a little noise."""
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (problem.images, 6, 6, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, (problem.height, problem.width), "bicubic").numpy()
    noisy = smooth + random.normal(0, 8, (1, problem.height, problem.width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


# ---- Alternatives


def prepare_batch(make_views: MakeViews, problem: Problem, images: np.ndarray, jit: bool = False) -> harness.Call:
    """Return a function without arguments that makes views with `make_views`.

    This function draws the parameters once. The returned function uses them in every call.
    """
    drawn = stock.draw_view_params(0, 0, np.arange(problem.images), BLURS[problem.blur], problem.height, problem.width)

    @tf.function(jit_compile=jit)
    def make(images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        return make_views(images, params, problem.size, blur=problem.blur)

    given = tf.constant(images)

    def call() -> list[tf.Tensor]:
        for _ in range(harness.choose_calls_in_a_row()):
            made = make(given, drawn)  # the images are already on the device, as in training, so no copy is timed
        tf.test.experimental.sync_devices()
        return [made]

    return call


def prepare_map(problem: Problem, images: np.ndarray) -> harness.Call:
    """Return a function without arguments that runs a tf.data pipeline over all images.

    The pipeline makes two views of each image, image by image, on all cores.
    """
    recipe = BLURS[problem.blur]

    def make_two(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return make_one_view(image, problem.size, recipe), make_one_view(image, problem.size, recipe)

    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.map(make_two, num_parallel_calls=tf.data.AUTOTUNE).batch(problem.images)

    def call() -> list[np.ndarray]:
        for _ in range(harness.choose_calls_in_a_row()):
            first, second = next(iter(dataset))
        return [tf.concat([first, second], axis=0)]

    return call


def make_one_view(image: tf.Tensor, size: int, recipe: ViewRecipe) -> tf.Tensor:
    """Return one view (S, S, 3) in [0, 1] of an image (H, W, 3). Each augmentation is an op of tf.image."""
    x = tf.image.convert_image_dtype(image, tf.float32)
    begin, length, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image), tf.zeros([1, 0, 4]), aspect_ratio_range=recipe.crop_aspect, area_range=recipe.crop_area,
        max_attempts=10, use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    x = tf.image.resize(tf.slice(x, begin, length), (size, size), "bicubic")
    x = tf.image.random_flip_left_right(tf.clip_by_value(x, 0.0, 1.0))
    x = apply_with_probability(recipe.jitter_probability, lambda x: jitter_colours(x, recipe), x)
    x = apply_with_probability(
        recipe.grey_probability, lambda x: tf.repeat(tf.tensordot(x, GREY_WEIGHTS, 1)[..., None], 3, -1), x
    )
    if recipe.blur_probability > 0:
        x = apply_with_probability(recipe.blur_probability, lambda x: blur_randomly(x, recipe), x)
    return tf.clip_by_value(tf.ensure_shape(x, (size, size, 3)), 0.0, 1.0)


def apply_with_probability(probability: float, change: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Return `change(x)` with this probability, and x otherwise."""
    return tf.cond(tf.random.uniform([]) < probability, lambda: change(x), lambda: x)


def jitter_colours(x: tf.Tensor, recipe: ViewRecipe) -> tf.Tensor:
    """Apply the four colour operations in random order, and clip to [0, 1] after each of them."""

    def apply_operation(number: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        changes = [
            lambda: x * tf.random.uniform([], *recipe.brightness),
            lambda: tf.image.random_contrast(x, *recipe.contrast),
            lambda: tf.image.random_saturation(x, *recipe.saturation),
            lambda: tf.image.random_hue(x, recipe.hue[1]),
        ]
        return tf.clip_by_value(tf.switch_case(number, changes), 0.0, 1.0)

    order = tf.random.shuffle(tf.range(4))
    for slot in range(4):
        x = apply_operation(order[slot], x)
    return x


def blur_randomly(x: tf.Tensor, recipe: ViewRecipe) -> tf.Tensor:
    """Blur with a Gaussian of random sigma, with one depthwise convolution for each direction."""
    radius = count_blur_taps(x.shape[0]) // 2
    sigma = tf.random.uniform([], *recipe.blur_sigma)
    taps = tf.exp(-tf.square(tf.range(-radius, radius + 1, dtype=tf.float32)) / (2 * sigma * sigma))
    kernel = tf.tile((taps / tf.reduce_sum(taps))[:, None, None, None], (1, 1, 3, 1))  # (taps, 1, 3, 1)
    down = tf.nn.depthwise_conv2d(x[None], kernel, (1, 1, 1, 1), "SAME")
    return tf.nn.depthwise_conv2d(down, tf.transpose(kernel, (1, 0, 2, 3)), (1, 1, 1, 1), "SAME")[0]


def list_alternatives(problem: Problem, with_map: bool) -> list[harness.Alternative]:
    """Return every alternative that can run here. The first is the native op. All others must agree with it."""
    images = make_images(problem)
    made = [harness.Alternative("native", lambda: prepare_batch(ops.make_views, problem, images))]
    if _route.find_route_error() is None:
        made.append(harness.Alternative("native jit", lambda: prepare_batch(ops.make_views, problem, images, True)))
    made.append(harness.Alternative("stock graph", lambda: prepare_batch(stock.make_views, problem, images)))
    made.append(harness.Alternative("stock XLA", lambda: prepare_batch(stock.make_views, problem, images, True)))
    if with_map:
        made.append(harness.Alternative("per-image map", lambda: prepare_map(problem, images), own_numbers=True))
    return made


# ---- Measuring


@functools.cache
def measure_copy_bandwidth() -> float:
    """Return the copy bandwidth in bytes per second, read plus written.

    It is the rate of the fastest of ten calls. Each call adds 1 to a large array.
    """
    add_one = tf.function(lambda x: x + 1.0)
    x, times = tf.zeros([COPIED]), []
    for _ in range(12):  # the first two calls warm up
        started = time.perf_counter()
        add_one(x)
        tf.test.experimental.sync_devices()
        times.append(time.perf_counter() - started)
    return 2 * 4 * COPIED / min(times[2:])


def count_bytes(problem: Problem) -> int:
    """Return the least memory traffic in bytes: one read of each uint8 image, and one write of each float32 view."""
    return problem.images * 3 * (problem.height * problem.width + 2 * 4 * problem.size**2)


def measure(problem: Problem, seconds: float, with_map: bool = True) -> list[harness.Row]:
    """Time every alternative, and return one row for each.

    A row also has the views per processor second, the views per second, and its traffic as a share of the copy
    bandwidth.
    """
    rows = harness.time_alternatives(
        problem._asdict(),
        list_alternatives(problem, with_map),
        operations=0,
        seconds=seconds,
        tolerance=TOLERANCE,
        in_a_row=harness.choose_calls_in_a_row(),
    )
    for row in rows:
        if row.processor and row.minimum:
            row.extra["views_per_processor_second"] = 2 * problem.images / row.processor
            row.extra["views_per_second"] = 2 * problem.images / row.minimum
            row.extra["of_copy_bandwidth"] = count_bytes(problem) / row.minimum / measure_copy_bandwidth()
    return rows


def format_view_rates(rows: Sequence[harness.Row], old: Sequence[harness.Row]) -> str:
    """Return one line of text for each row.

    It has the speeds, the processor time divided by that of the native op, and the share of the copy bandwidth.
    """
    before = {(str(row.problem), row.name): row for row in old}
    natives = {str(row.problem): row.processor for row in rows if row.name == "native"}
    lines = [
        f"{'problem':<62}{'name':<15}{'views/cpu s':>12}{'views/s':>10}{'cpu time / native':>18}{'share of copy':>14}"
    ]
    for row in rows:
        problem = " ".join(f"{key}={value}" for key, value in row.problem.items())
        if row.processor is None:
            lines.append(f"{problem:<62}{row.name:<15}  {row.note}")
            continue
        rates = f"{row.extra['views_per_processor_second']:>12,.0f}{row.extra['views_per_second']:>10,.0f}"
        line = f"{problem:<62}{row.name:<15}{rates}{row.processor / (natives[str(row.problem)] or 1):>18.2f}"
        line += f"{row.extra['of_copy_bandwidth']:>14.1%}"
        earlier = before.get((str(row.problem), row.name))
        if earlier and earlier.processor:
            line += f"  old cpu time / new: {earlier.processor / row.processor:.2f}"
        lines.append(line + (f"  {row.note}" if row.note else ""))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size, store the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SOURCES),
        choices=list(SOURCES),
        help="S, the pixels on a side of a view",
    )
    parser.add_argument(
        "--images", type=int, help="N, the number of images (default: 512, 128 or 32 for views of 32, 96 or 224 pixels)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each alternative of a problem")
    parser.add_argument("--no-map", action="store_true", help="leave out the tf.data map, whose calls take seconds")
    parser.add_argument("--cores", type=int, help="number of cores to use (default: all)")
    parser.add_argument("--out", type=Path, help="result file (default: make_views.json in the folder of this device)")
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="allow TF32, in which a GPU rounds the factors of products in stock ops to 11 bits",
    )
    parser.add_argument("--compare", type=Path, help="an older result to compare with")
    chosen = parser.parse_args(arguments)
    tf.config.experimental.enable_tensor_float_32_execution(chosen.tf32)
    hardware.keep_to_cores(chosen.cores)
    out = chosen.out or harness.choose_result_path("make_views.json")
    rows: list[harness.Row] = []
    for size in chosen.sizes:
        count = chosen.images or {32: 512, 96: 128, 224: 32}[size]
        for height, width in SOURCES[size]:
            for blur in BLURS:
                rows += measure(Problem(size, height, width, count, blur), chosen.seconds, not chosen.no_map)
                harness.store_rows(out, rows, versions.read_native_versions())
    print(format_view_rates(rows, harness.read_rows(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
