"""Times a step made in several ways, and the encoder alone, in turns of one process as bench_step has them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from bench import bench_step, harness
from lowlevel_simclr.config import Config

Ways = Mapping[str, Callable[[Config], bench_step.Job]]


def measure(ways: Ways, flags: Sequence[str]) -> dict[str, Any]:
    """The whole result: seconds a step of each way and of the encoder alone, and the ratio of each to the encoder."""
    tf.config.experimental.enable_op_determinism()  # as the job has it by default
    chosen = bench_step.parser().parse_args(list(flags))
    config = bench_step.configuration(chosen)
    jobs = {name: make(config) for name, make in ways.items()}
    forms: dict[str, bench_step.Steps] = {name: job.run for name, job in jobs.items()}
    forms["encoder"] = bench_step.repeated(bench_step.encoder_alone(next(reversed(jobs.values()))))
    times = bench_step.take_turns(forms, chosen.turns, chosen.steps_per_turn, settle=1)
    summaries = {
        name: bench_step.summary(taken, chosen.steps_per_turn, config.train.batch_size) for name, taken in times.items()
    }
    return {"device": bench_step.device(), "flags": list(flags), "forms": summaries}


def main(doc: str, ways: Ways, file_name: str, arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(ways), choices=ways)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / harness.device_name() / file_name)
    chosen, flags = parser.parse_known_args(arguments)
    result = measure({name: ways[name] for name in chosen.ways}, flags)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, form in result["forms"].items():
        times = "".join(f"{1e3 * form[key]:>9.2f}" for key in ("median_seconds", "p10_seconds", "p90_seconds"))
        processor = 1e3 * form["processor_seconds"]
        print(f"{name:<10}{form['pairs_per_second']:>10.0f} pairs/s{times} ms, p10, p90; processor {processor:.2f} ms")
