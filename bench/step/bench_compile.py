"""Times how long XLA needs to compile training steps: python -m bench.step.bench_compile [--turns 3] [--json FILE].

The bench compiles three programs, each in a separate process. In the code, each of them is called a way:

    step      one step without a loop; TensorFlow's loop outside XLA calls it
    one       one step, with the loop over steps inside XLA
    several   several steps, with the loop over steps inside XLA

A training run compiles the programs `one` and `several`. The bench times the compilation of each program twice: without
TensorFlow's persistent cache, which keeps compiled programs for later processes, and with this cache. The measurement
is repeated `--turns` times.
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

CACHE = "--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_device_types=CPU,XLA_CPU_JIT,GPU"
WAYS = ("step", "one", "several")
NAMES = {
    "step": "one step, with the loop outside XLA",
    "one": "one step, with the loop inside XLA",
    "several": "{steps} steps, with the loop inside XLA",
}
CHILD = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.training import loop, program
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.plan import load_images, make_plan
way, flags = sys.argv[1], sys.argv[2:]
tf.config.experimental.enable_op_determinism()
config, _ = parse_run(["--xla", "on", *flags])
images = load_images(config)
plan = make_plan(config, images)
learner, fetch = build_learner(plan, images.train.images.shape[-1]), loop.make_fetch(plan, images)
wanted = plan.batch_size, plan.seed, 0, plan.steps
batches = iter(make_batches(images.train.images, *wanted, with_images=fetch is None))
one_step, count = loop.make_step(plan, learner), plan.steps_per_program if way == "several" else 1
if way == "step":
    steps = loop.compile_steps(one_step, True, fetch)
else:
    steps = program.compile_program(one_step, count, fetch)
marks = []
for _ in range(2):
    wall, processor = time.perf_counter(), time.process_time()
    steps(batches, tf.constant(count)).loss.numpy()
    marks.append((time.perf_counter() - wall, time.process_time() - processor))
(wall, processor), (wall_again, processor_again) = marks
print(json.dumps([wall - wall_again, processor - processor_again, count]))
"""


def time_compilation(way: str, flags: Sequence[str], cache: Path | None) -> tuple[float, float, int]:
    """Return the seconds (wall and processor) of tracing and compiling, and the number of steps in the program.

    Only the first call of a program traces it (builds its graph) and compiles it. So the function returns the time of
    the first call minus that of the second call.

    Args:
        way: which of the three programs to compile, one of WAYS.
        flags: flags of the training command.
        cache: the folder of TensorFlow's persistent cache, or None for no cache.
    """
    environment = dict(os.environ, TF_XLA_FLAGS=CACHE.format(folder=cache) if cache else "")
    command = [sys.executable, "-c", CHILD, way, *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    wall, processor, count = json.loads(done.stdout.splitlines()[-1])
    return wall, processor, count


def measure(turns: int, flags: Sequence[str]) -> dict[str, Any]:
    """Return the result to store: for each program, the median wall time and the smallest processor time."""
    found: dict[tuple[str, bool], list[tuple[float, float, int]]] = {}
    for _ in range(turns):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault((way, False), []).append(time_compilation(way, flags, None))
                time_compilation(way, flags, Path(folder))  # fills the cache
                found.setdefault((way, True), []).append(time_compilation(way, flags, Path(folder)))
    rows = [
        {
            "way": way,
            "cached": cached,
            "steps": each[0][2],
            "wall_seconds": statistics.median(wall for wall, _, _ in each),
            "processor_seconds": min(processor for _, processor, _ in each),
        }
        for (way, cached), each in found.items()
    ]
    return {
        "benchmark": "compile",
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "flags": list(flags),
        "turns": turns,
        "rows": rows,
    }


def format_result(result: dict[str, Any]) -> str:
    """Return the result as text to print."""
    lines = [f"{'tracing and compiling of':<48}{'cached':>8}{'wall s':>9}{'cpu s':>9}"]
    for row in result["rows"]:
        name = NAMES[row["way"]].format(steps=row["steps"])
        cached = "yes" if row["cached"] else "no"
        lines.append(f"{name:<48}{cached:>8}{row['wall_seconds']:>9.2f}{row['processor_seconds']:>9.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Any further flag is passed to the training command."
    )
    parser.add_argument("--turns", type=int, default=3, help="how often each program is compiled")
    parser.add_argument("--json", type=Path, help="the file to store the result in")
    chosen, flags = parser.parse_known_args(arguments)
    result = measure(chosen.turns, flags)
    if chosen.json:
        harness.write_result(chosen.json, result)
    print(format_result(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
