"""Times both views of a batch: python -m bench.ops.bench_make_views [--sizes 32 96] [--cores 1] [--compare old.json].

Against the native op stand the stock form as a graph and under XLA, all three given the same drawn parameters, and a
per-image `tf.data` map in the manner of the code of the paper's authors: a distorted bounding box, bicubic resizing,
colour operations in random order, grey, blur, one image after another with random numbers of its own. That one computes
other pixels, so only its shape and range are compared. Views a processor second are printed and stored, and what share
of the device's copy bandwidth the bytes come to that must be moved: each image read once, each view written once.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bench import harness
from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.constants import GREY_WEIGHTS
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.reference.make_views import blur_taps

TOLERANCE = 1e-4  # of 1, the largest pixel; the views' differences are rounding, amplified by contrast and saturation
COPIED = 2**26  # floats of the array whose copy is timed: 256 MiB, beyond every cache
BLURS = {False: ViewRecipe(), True: ViewRecipe(blur_probability=0.5)}


class Problem(NamedTuple):
    """N images of height x width, and views of size pixels."""

    size: int
    height: int
    width: int
    images: int
    blur: bool


SOURCES = {32: [(32, 32)], 96: [(96, 96)], 224: [(256, 256), (375, 500)]}


def images_of(problem: Problem) -> np.ndarray:
    """(N, H, W, 3) uint8: smooth colour patches with noise, as photographs are smooth."""
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (problem.images, 6, 6, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, (problem.height, problem.width), "bicubic").numpy()
    noisy = smooth + random.normal(0, 8, (1, problem.height, problem.width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


# ---- Alternatives


def batched(module: Any, problem: Problem, images: np.ndarray, jit: bool = False) -> Callable[[], Any]:
    """A call of an implementation's `make_views` with parameters that were drawn before."""
    drawn = stock.draw_view_params(0, 0, np.arange(problem.images), BLURS[problem.blur], problem.height, problem.width)

    @tf.function(jit_compile=jit)
    def views(images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        return module.make_views(images, params, problem.size, blur=problem.blur)

    given = tf.constant(images)

    def call() -> list[tf.Tensor]:
        for _ in range(harness.in_a_row()):
            made = views(given, drawn)  # no copy of it is timed: training reads it where it lies
        tf.test.experimental.sync_devices()
        return [made]

    return call


def per_image(problem: Problem, images: np.ndarray) -> Callable[[], Any]:
    """A tf.data pipeline that makes two views of each image by itself, on all cores, and batches them."""
    recipe = BLURS[problem.blur]

    def two(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return one_view(image, problem.size, recipe), one_view(image, problem.size, recipe)

    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.map(two, num_parallel_calls=tf.data.AUTOTUNE).batch(problem.images)

    def call() -> list[np.ndarray]:
        for _ in range(harness.in_a_row()):
            first, second = next(iter(dataset))
        return [tf.concat([first, second], axis=0)]

    return call


def one_view(image: tf.Tensor, size: int, recipe: ViewRecipe) -> tf.Tensor:
    """One view of an image (H, W, 3), each step by an op of tf.image: (S, S, 3) in [0, 1]."""
    x = tf.image.convert_image_dtype(image, tf.float32)
    begin, length, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image), tf.zeros([1, 0, 4]), aspect_ratio_range=recipe.crop_aspect, area_range=recipe.crop_area,
        max_attempts=10, use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    x = tf.image.resize(tf.slice(x, begin, length), (size, size), "bicubic")
    x = tf.image.random_flip_left_right(tf.clip_by_value(x, 0.0, 1.0))
    x = with_probability(recipe.jitter_probability, lambda x: jittered(x, recipe), x)
    x = with_probability(
        recipe.grey_probability, lambda x: tf.repeat(tf.tensordot(x, GREY_WEIGHTS, 1)[..., None], 3, -1), x
    )
    if recipe.blur_probability > 0:
        x = with_probability(recipe.blur_probability, lambda x: blurred(x, recipe), x)
    return tf.clip_by_value(tf.ensure_shape(x, (size, size, 3)), 0.0, 1.0)


def with_probability(probability: float, change: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """`change(x)` with that probability, else x."""
    return tf.cond(tf.random.uniform([]) < probability, lambda: change(x), lambda: x)


def jittered(x: tf.Tensor, recipe: ViewRecipe) -> tf.Tensor:
    """The four colour operations in random order, each followed by a clip."""

    def operation(number: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        changes = [
            lambda: x * tf.random.uniform([], *recipe.brightness),
            lambda: tf.image.random_contrast(x, *recipe.contrast),
            lambda: tf.image.random_saturation(x, *recipe.saturation),
            lambda: tf.image.random_hue(x, recipe.hue[1]),
        ]
        return tf.clip_by_value(tf.switch_case(number, changes), 0.0, 1.0)

    order = tf.random.shuffle(tf.range(4))
    for slot in range(4):
        x = operation(order[slot], x)
    return x


def blurred(x: tf.Tensor, recipe: ViewRecipe) -> tf.Tensor:
    """A Gaussian blur of random sigma, one depthwise convolution a direction."""
    radius = blur_taps(x.shape[0]) // 2
    sigma = tf.random.uniform([], *recipe.blur_sigma)
    taps = tf.exp(-tf.square(tf.range(-radius, radius + 1, dtype=tf.float32)) / (2 * sigma * sigma))
    kernel = tf.tile((taps / tf.reduce_sum(taps))[:, None, None, None], (1, 1, 3, 1))  # (taps, 1, 3, 1)
    down = tf.nn.depthwise_conv2d(x[None], kernel, (1, 1, 1, 1), "SAME")
    return tf.nn.depthwise_conv2d(down, tf.transpose(kernel, (1, 0, 2, 3)), (1, 1, 1, 1), "SAME")[0]


def forms(problem: Problem, with_map: bool) -> list[harness.Alternative]:
    """Every alternative that runs here; the first is what the others must agree with."""
    images = images_of(problem)
    made = [harness.Alternative("native", lambda: batched(ops, problem, images))]
    if _route.find_route_error() is None:
        made.append(harness.Alternative("native jit", lambda: batched(ops, problem, images, True)))
    made.append(harness.Alternative("stock graph", lambda: batched(stock, problem, images)))
    made.append(harness.Alternative("stock XLA", lambda: batched(stock, problem, images, True)))
    if with_map:
        made.append(harness.Alternative("per-image map", lambda: per_image(problem, images), own_numbers=True))
    return made


# ---- Measuring


@functools.cache
def copy_bandwidth() -> float:
    """Bytes a second that the device reads and writes when it adds 1 to a large array: the best of ten."""
    add_one = tf.function(lambda x: x + 1.0)
    x, times = tf.zeros([COPIED]), []
    for _ in range(12):  # the first two warm up
        started = time.perf_counter()
        add_one(x)
        tf.test.experimental.sync_devices()
        times.append(time.perf_counter() - started)
    return 2 * 4 * COPIED / min(times[2:])


def bytes_moved(problem: Problem) -> int:
    """Every uint8 image once, both float32 views once."""
    return problem.images * 3 * (problem.height * problem.width + 2 * 4 * problem.size**2)


def measure(problem: Problem, seconds: float, with_map: bool = True) -> list[harness.Row]:
    """All rows of one problem, with views a processor second and a wall second, and the share of the copy bandwidth."""
    rows = harness.compare(
        problem._asdict(),
        forms(problem, with_map),
        operations=0,
        seconds=seconds,
        tolerance=TOLERANCE,
        in_a_row=harness.in_a_row(),
    )
    for row in rows:
        if row.processor and row.minimum:
            row.extra["views_per_processor_second"] = 2 * problem.images / row.processor
            row.extra["views_per_second"] = 2 * problem.images / row.minimum
            row.extra["of_copy_bandwidth"] = bytes_moved(problem) / row.minimum / copy_bandwidth()
    return rows


def text(rows: Sequence[harness.Row], old: Sequence[harness.Row]) -> str:
    """A line for each row: rates, and how many times native's processor time it takes."""
    before = {(str(row.problem), row.name): row for row in old}
    natives = {str(row.problem): row.processor for row in rows if row.name == "native"}
    lines = [f"{'problem':<62}{'name':<15}{'views/cpu s':>12}{'views/s':>10}{'x native':>9}{'of copy':>9}"]
    for row in rows:
        problem = " ".join(f"{key}={value}" for key, value in row.problem.items())
        if row.processor is None:
            lines.append(f"{problem:<62}{row.name:<15}  {row.note}")
            continue
        rates = f"{row.extra['views_per_processor_second']:>12,.0f}{row.extra['views_per_second']:>10,.0f}"
        line = f"{problem:<62}{row.name:<15}{rates}{row.processor / (natives[str(row.problem)] or 1):>9.2f}"
        line += f"{row.extra['of_copy_bandwidth']:>9.1%}"
        earlier = before.get((str(row.problem), row.name))
        if earlier and earlier.processor:
            line += f"  old/new {earlier.processor / row.processor:.2f}"
        lines.append(line + (f"  {row.note}" if row.note else ""))
    return "\n".join(lines)


def use_cores(count: int | None) -> None:
    """Keep this process on so many cores; before TensorFlow makes its threads."""
    if count:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def versions() -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = {"tensorflow": tf.__version__, "library": _library.read_build_information()}
    return found | {"instruction_set": _library.find_instruction_set(), "threads": _library.count_threads()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SOURCES), choices=list(SOURCES), help="S, pixels")
    parser.add_argument("--images", type=int, help="N; by default 512, 128 and 32 for 32, 96 and 224 pixels")
    parser.add_argument("--seconds", type=float, default=3.0, help="to measure each alternative of a problem")
    parser.add_argument("--no-map", action="store_true", help="leave out the per-image map, which takes seconds a call")
    parser.add_argument("--cores", type=int, help="keep to so many cores; by default all")
    parser.add_argument("--out", type=Path, help="by default make_views.json in the folder of this device and cores")
    parser.add_argument("--tf32", action="store_true", help="a GPU may round the stock forms' factors to 11 bits")
    parser.add_argument("--compare", type=Path, help="an older result to set beside this one")
    chosen = parser.parse_args(arguments)
    tf.config.experimental.enable_tensor_float_32_execution(chosen.tf32)
    use_cores(chosen.cores)
    out = chosen.out or harness.RESULTS / harness.device_name() / "make_views.json"
    rows: list[harness.Row] = []
    for size in chosen.sizes:
        count = chosen.images or {32: 512, 96: 128, 224: 32}[size]
        for height, width in SOURCES[size]:
            for blur in BLURS:
                rows += measure(Problem(size, height, width, count, blur), chosen.seconds, not chosen.no_map)
                harness.store(out, rows, versions())
    print(text(rows, harness.load(chosen.compare) if chosen.compare else ()))


if __name__ == "__main__":
    main()
