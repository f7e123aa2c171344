"""Times the training command until its first step: python -m bench.step.bench_startup [--turns 5] [--json FILE].

The bench repeats its measurement `--turns` times. In each repetition (turn) it starts three processes, one after
another. The first process only runs `import tensorflow`. The second runs the training command until it writes its first
row of metrics. The third runs the parts of this command in the order of train.py, and times each part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import hardware, harness
from bench.report import compare

PARTS = """
import json, os, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
marks = [("", time.perf_counter(), time.process_time())]
def mark(name): marks.append((name, time.perf_counter(), time.process_time()))
import lowlevel_simclr  # first, as in the training command: it must enable oneDNN before TensorFlow is imported
import tensorflow as tf
mark("import tensorflow")
from lowlevel_simclr import train
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.loop import make_steps
from lowlevel_simclr.training.plan import load_images, make_plan
mark("import of this package")
tf.config.experimental.enable_op_determinism()
chosen, _ = parse_run([])
images = load_images(chosen)
mark("the images")
plan = make_plan(chosen, images)
learner = build_learner(plan, images.train.images.shape[-1])
mark("f, g and the optimizer")
steps = make_steps(plan, learner)
batches = iter(make_batches(images.train.images, plan.batch_size, plan.seed, 0, plan.steps))
mark("the order and the input pipeline")
steps.get_concrete_function(batches, tf.TensorSpec((), tf.int32))
mark("tracing of the step")
steps(batches, tf.constant(1)).loss.numpy()
mark("graph optimization and first step")
steps(batches, tf.constant(1)).loss.numpy()
mark("second step")
print(json.dumps([[b[0], b[1] - a[1], b[2] - a[2]] for a, b in zip(marks, marks[1:])]))
"""


def time_tensorflow_import() -> float:
    """Return the time of a Python process that only imports TensorFlow, in seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, capture_output=True)
    return time.perf_counter() - started


def time_first_step() -> float:
    """Return the time from the start of the training command to its first row of metrics, in seconds.

    Raises:
        SystemExit: if the command ended before it wrote a row.
    """
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run" / "metrics.jsonl"
        command = [sys.executable, "-m", "lowlevel_simclr.train", "--out", str(metrics.parent), "--steps-per-call", "1"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            while not (metrics.exists() and metrics.stat().st_size):
                if process.poll() is not None:
                    assert process.stderr is not None
                    errors = process.stderr.read().decode()[-2000:]
                    raise SystemExit(f"bench_startup: The training command ended before its first step: {errors}")
                time.sleep(0.005)
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()


def time_parts() -> dict[str, tuple[float, float]]:
    """Return the (wall, processor) seconds of each part of the training command."""
    done = subprocess.run([sys.executable, "-c", PARTS], check=True, capture_output=True, text=True)
    return {name: (wall, processor) for name, wall, processor in json.loads(done.stdout.splitlines()[-1])}


def measure(turns: int) -> dict[str, Any]:
    """Return the result to store: the median of each wall time and the minimum of each processor time."""
    imports, steps, split = [], [], []
    for _ in range(turns):
        imports.append(time_tensorflow_import())
        steps.append(time_first_step())
        split.append(time_parts())
    of_parts = {
        name: {
            "wall": statistics.median(each[name][0] for each in split),
            "processor": min(each[name][1] for each in split),
        }
        for name in split[0]
    }
    return {
        "benchmark": "startup",
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "import_tensorflow_seconds": statistics.median(imports),
        "first_step_seconds": statistics.median(steps),
        "beyond_import_seconds": statistics.median(step - each for step, each in zip(steps, imports)),
        "parts": of_parts,
    }


def format_result(result: dict[str, Any]) -> str:
    """Return the result as text to print."""
    lines = [f"{'part':<36}{'wall s':>9}{'cpu s':>9}"]
    lines += [f"{name:<36}{part['wall']:>9.2f}{part['processor']:>9.2f}" for name, part in result["parts"].items()]
    names = {
        "training command until first step": "first_step_seconds",
        "import tensorflow": "import_tensorflow_seconds",
        "difference of the two": "beyond_import_seconds",
    }
    lines += [f"{label:<36}{result[name]:>9.2f}" for label, name in names.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="how often the measurement is repeated")
    parser.add_argument("--json", type=Path, help="the file to store the result in")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD", help="an older result; the exit code is 1 if the new result is slower"
    )
    chosen = parser.parse_args(arguments)
    result = measure(chosen.turns)
    if chosen.json:
        harness.write_result(chosen.json, result)
    print(format_result(result))
    return compare.print_changes(compare.read_result(chosen.compare), result) if chosen.compare else 0


if __name__ == "__main__":
    sys.exit(main())
