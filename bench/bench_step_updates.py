"""Times whole steps by their LARS: python -m bench.bench_step_updates [--out FILE] [flags of bench_step].

    all      every variable in a few launches, `ops.lars_update_all`: what a GPU takes
    each     a call for every variable, `ops.lars_update`: what a processor takes
    stock    TensorFlow's ops, fused by XLA where it compiles the step: what `--ops stock` takes

and the encoder alone, in turns of one process as bench_step has them. On a GPU a step of many small variables can wait
for the host to launch their kernels, which no timing of the update alone shows.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from bench import bench_step, harness
from lowlevel_simclr import ops, step, stock


def each(weights: Any, gradients: Any, velocities: Any, **choices: Any) -> Any:
    """A call of the native op for every variable."""
    return tuple(zip(*(ops.lars_update(*variable, **choices) for variable in zip(weights, gradients, velocities))))


UPDATES = {"all": ops.lars_update_all, "each": each, "stock": stock.lars_update_all}


def measure(ways: Sequence[str], flags: Sequence[str]) -> dict[str, Any]:
    """The whole result."""
    tf.config.experimental.enable_op_determinism()  # as the job has it by default
    chosen = bench_step.parser().parse_args(list(flags))
    config = bench_step.configuration(chosen)
    native = step.Implementation.of("native", ops)
    jobs = {way: bench_step.Job(config, native._replace(lars_update_all=UPDATES[way])) for way in ways}
    forms: dict[str, bench_step.Steps] = {way: each.run for way, each in jobs.items()}
    forms["encoder"] = bench_step.repeated(bench_step.encoder_alone(jobs[ways[-1]]))
    times = bench_step.take_turns(forms, chosen.turns, chosen.steps_per_turn, settle=1)
    summaries = {
        name: bench_step.summary(taken, chosen.steps_per_turn, config.train.batch_size) for name, taken in times.items()
    }
    return {"device": bench_step.device(), "flags": list(flags), "forms": summaries}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(UPDATES), choices=UPDATES)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / harness.device_name() / "step_updates.json")
    chosen, flags = parser.parse_known_args(arguments)
    result = measure(chosen.ways, flags)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, form in result["forms"].items():
        times = "".join(f"{1e3 * form[key]:>9.2f}" for key in ("median_seconds", "p10_seconds", "p90_seconds"))
        print(f"{name:<10}{form['pairs_per_second']:>10.0f} pairs/s{times} ms, p10, p90")


if __name__ == "__main__":
    main()
