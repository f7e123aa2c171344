"""Measures how long a run takes to start on a folder of photographs, and how fast photographs are read.

    python -m bench.data.bench_images

The photographs are synthetic (`photographs.py`). They are read from the page cache, so the times contain no disk reads.

A start is all work on the images before the first training step: listing, hashing, checking and packing them. With the
training option `--cache FOLDER`, the first start stores packed images, and later starts read them. The bench times four
starts, each in a new process: the first and the second start without this option, then the first and the second start
with it. With `--before`, the bench also times the first start with an older version of this package.

The speed of reading is measured on one core, in images per second of processor time, for several ways to read:

- this package's code, with its native resize and with that of Pillow;
- `tf.io.decode_jpeg` in `tf.data`, with and without scaling;
- batches from the packed images;
- with `--lightly`, the loader of the package lightly.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from bench import hardware, harness, versions
from bench.data import start
from bench.data.lightly_loader import __file__ as LIGHTLY_LOADER
from bench.data.photographs import HEIGHT, WIDTH, write_photographs
from lowlevel_simclr.data import catalog, image_file, resize_pixels
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.image_file import Shape

ROOT = Path(__file__).parents[2]
BATCH = 64
LEAST_TURNS = 3


def run_start(package: Path, folder: Path, side: int, home: Path, cache: Path | None = None) -> dict[str, float]:
    """Return the times and the memory of one start, see `start.py`.

    Args:
        package: the folder with the version of this package that runs.
        folder: the photographs.
        side: the pixels on a side of the stored images.
        home: the user's cache folder.
        cache: the folder for `--cache`, or None for a start without it.
    """
    command = [sys.executable, str(start.__file__), str(folder), str(side), *([str(cache)] if cache else [])]
    environment = {**os.environ, "PYTHONPATH": str(package), "XDG_CACHE_HOME": str(home)}
    done = subprocess.run(command, env=environment, cwd=package, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def time_starts(folder: Path, side: int, work: Path, before: Path | None) -> dict[str, dict[str, float]]:
    """Return a dict from the name of each start to its times and its memory."""
    starts = {} if before is None else {"before: first": run_start(before, folder, side, work / "none")}
    starts["first"] = run_start(ROOT, folder, side, work / "home")
    starts["second"] = run_start(ROOT, folder, side, work / "home")
    starts["first with --cache"] = run_start(ROOT, folder, side, work / "none", work / "cache")
    starts["second with --cache"] = run_start(ROOT, folder, side, work / "none", work / "cache")
    return starts


def list_ways_to_read(paths: Sequence[Path], side: int, packed: Any) -> dict[str, Callable[[], int]]:
    """Return the ways to read photographs, by name. Each is a function that reads and returns the number of images."""
    contents = [path.read_bytes() for path in paths]
    names = [str(path) for path in paths]

    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    def scale(path: tf.Tensor) -> tf.Tensor:
        cut = (WIDTH - HEIGHT) // 2
        scaled = tf.image.resize(decode(path)[:, cut : cut + HEIGHT], (side, side), antialias=True)
        return tf.cast(tf.round(scaled), tf.uint8)

    def check() -> int:
        for content in contents:
            image_file.check_content(content)
        return len(contents)

    def read() -> int:
        return sum(image_file.read_pixels(content, Shape(side, side, 3)) is not None for content in contents)

    def read_with_pillow() -> int:
        with mock.patch.object(image_file, "resize_image", resize_pixels.resize_by_pillow):
            return read()

    def stream(function: Callable[[tf.Tensor], tf.Tensor]) -> Iterable[Any]:
        return tf.data.Dataset.from_tensor_slices(names).map(function)

    return {
        "decode, scale and cut": read,
        "decode, scale and cut, with Pillow's resize": read_with_pillow,
        "check only": check,
        "decode without scaling": lambda: sum(
            image_file.read_pixels(content, Shape(HEIGHT, WIDTH, 3)) is not None for content in contents
        ),
        "tf.data, decode_jpeg": lambda: sum(1 for _ in stream(decode)),
        "tf.data, decode_jpeg and resize": lambda: sum(1 for _ in stream(scale)),
        "packed, batches of 64": lambda: BATCH * sum(1 for _ in make_batches(packed, BATCH, 0, 0, 100)),
    }


def time_ways(ways: Mapping[str, Callable[[], int]], seconds: float) -> dict[str, float]:
    """Return the images per second of processor time for each way. The caller must restrict the process to one core."""
    best, turns = dict.fromkeys(ways, 0.0), 0
    end = time.perf_counter() + seconds
    # In each turn, every way to read runs once, so that other work on the machine slows all of them alike. The first
    # turn is slower than the others, because it also maps pages and builds graphs.
    while time.perf_counter() < end or turns < LEAST_TURNS:
        turns += 1
        for name, way in ways.items():
            used = time.process_time()
            done = way()
            best[name] = max(best[name], done / (time.process_time() - used))
    return best


def time_lightly(python: Path, folder: Path, side: int, images: int) -> dict[str, Any]:
    """Return the speed of lightly's loader on one core, see `lightly_loader.py`."""
    command = ["taskset", "-c", "0", str(python), LIGHTLY_LOADER, str(folder), str(side), str(images)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20000, help="number of files of a start")
    parser.add_argument("--different", type=int, default=500, help="number of different photographs")
    parser.add_argument("--side", type=int, default=256, help="side of the stored images, in pixels")
    parser.add_argument("--seconds", type=float, default=20, help="how long to measure reading")
    parser.add_argument("--before", type=Path, help="an older checkout of this package, whose first start is timed too")
    parser.add_argument("--lightly", type=Path, help="the Python of an environment with lightly and torchvision")
    parser.add_argument("--only-reading", action="store_true", help="measure no starts")
    parser.add_argument(
        "--work", type=Path, help="a folder for the files of this bench (default: the temporary folder of the system)"
    )
    parser.add_argument("--out", type=Path, help="result file (default: images.json in the folder of this device)")
    chosen = parser.parse_args(arguments)
    out = chosen.out or harness.choose_result_path("images.json")
    heading = {"device": hardware.name_results_folder(), "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory(dir=chosen.work) as temporary:
        work = Path(temporary)
        write_photographs(work / "data", chosen.files, min(chosen.files, chosen.different))
        result: dict[str, Any] = {"files": chosen.files, "side": chosen.side}
        if not chosen.only_reading:
            result["starts"] = time_starts(work / "data", chosen.side, work, chosen.before)
        hardware.keep_to_cores(1)
        cache = str(work / "cache")
        images = catalog.load_dataset(f"folder:{work / 'data'}", largest_side=chosen.side, memory_limit=0, cache=cache)
        paths = sorted((work / "data").glob("*/*.jpg"))[: chosen.different]
        reading = time_ways(list_ways_to_read(paths, chosen.side, images.train.images), chosen.seconds)
        result["images per second of one core"] = reading
        if chosen.lightly:
            result["lightly"] = time_lightly(chosen.lightly, work / "data", chosen.side, len(paths))
    result |= {"cores": os.cpu_count(), "numpy": np.__version__, "pillow": image_file.PIL.__version__}
    result["load"] = os.getloadavg()[0]
    harness.write_result(out, {**result, **heading, "versions": versions.read_native_versions()})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
