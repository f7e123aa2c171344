"""Trains on very many small files, and measures the memory: python -m bench.data.many_files [--files 1000000].

The files are hard links to a few hundred PNG files of 16 x 16 pixels, so they take little room on the disk. Training
keeps no image in memory (`memory_limit=0`). The bench trains twice for 20 steps, each time in a new process. The second
process uses the image index (a list of the checked files) that the first one saved. The exit code is 1 if the memory
grew by more than ALLOWED.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench import hardware, harness

DIFFERENT = 300  # number of different images; more than one, because ext4 allows only 65000 links to one file
IN_A_FOLDER = 1000
SIDE, BATCH, STEPS = 16, 32, 20
ALLOWED = 2**31  # bytes; without TensorFlow's own memory, because TensorFlow is imported before the first measurement


def write_files(root: Path, count: int, side: int = SIDE) -> None:
    """Write `count` images of `side` x `side` pixels, in folders of IN_A_FOLDER files each."""
    random = np.random.default_rng(0)
    (root / "seeds").mkdir(parents=True)
    for number in range(DIFFERENT):
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(root / f"seeds/{number}.png")
    for number in range(count):
        folder = root / f"data/{number // IN_A_FOLDER:04d}"
        if number % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        os.link(root / f"seeds/{number % DIFFERENT}.png", folder / f"{number:07d}.png")


def train(root: Path) -> dict[str, float]:
    """Load the files and train. Return the seconds of loading and of training, and the peaks of the memory in bytes."""
    from bench.step.input_parts import build_parts
    from lowlevel_simclr.config.command_line import parse_run
    from lowlevel_simclr.data import catalog

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    images = catalog.load_dataset(f"folder:{root / 'data'}", largest_side=SIDE, memory_limit=0).train.images
    loaded = time.perf_counter()
    after_loading = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = parse_run(["--batch-size", str(BATCH), "--image-size", str(SIDE)], "")[0]
    batches, _, take_step = build_parts(config, images, STEPS)
    losses = [float(take_step(batch).loss) for batch in batches]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds to load": loaded - started,
        f"seconds of {STEPS} steps, compilation included": time.perf_counter() - loaded,
        "memory before loading": base * 1024,
        "peak memory after loading": after_loading * 1024,
        "peak memory after training": peak * 1024,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the first and the second training. Store the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="a folder on the disk to use (default: the temporary one)")
    parser.add_argument("--out", type=Path, help="result file (default: many_files.json in the folder of this device)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.work) as temporary:
        root = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(root / "home")
        write_files(root, chosen.files)
        time.sleep(3)  # the image index (data/image_index.py) does not store files that changed in the last two seconds
        starts = []
        for _ in range(2):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                starts.append(pool.apply(train, (root,)))
    grown = max(start["peak memory after training"] - start["memory before loading"] for start in starts)
    result = {"files": chosen.files, "first start": starts[0], "second start": starts[1], "memory grown": grown}
    heading = {"device": hardware.name_results_folder(), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
    harness.write_result(chosen.out or harness.choose_result_path("many_files.json"), {**result, **heading})
    print(json.dumps(result, indent=1))
    if grown > ALLOWED:
        raise SystemExit(f"The memory grew by {grown} bytes, more than ALLOWED ({ALLOWED} bytes).")


if __name__ == "__main__":
    main()
