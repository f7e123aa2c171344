"""Times a step made in several ways, and the encoder alone, in turns of one process as bench_step has them.

A job keeps a pace of its own for as long as its process lives, a per cent off another job that does the same. So there
are several processes, every other one with the ways in reverse order, and what is told is the median over them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bench import harness
from bench.step import bench_step
from lowlevel_simclr.config.settings import Config

Ways = Mapping[str, Callable[[Config], bench_step.Job]]
Forms = dict[str, dict[str, float]]  # of each way and the encoder: as `bench_step.summary`


def measure(ways: Ways, flags: Sequence[str]) -> Forms:
    """The ways in this process."""
    tf.config.experimental.enable_op_determinism()  # as the job has it by default
    chosen = bench_step.parser().parse_args(list(flags))
    config = bench_step.configuration(chosen)
    jobs = {name: make(config) for name, make in ways.items()}
    steps: dict[str, bench_step.Steps] = {name: job.run for name, job in jobs.items()}
    steps["encoder"] = bench_step.repeated(bench_step.encoder_alone(next(reversed(jobs.values()))))
    times = bench_step.take_turns(steps, chosen.turns, chosen.steps_per_turn, settle=1)
    return {
        name: bench_step.summary(taken, chosen.steps_per_turn, config.train.batch_size) for name, taken in times.items()
    }


def in_own_process(module: str, ways: Sequence[str], flags: Sequence[str]) -> Forms:
    """The ways in a process of their own, which runs the bench of that name.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "forms.json"
        bench_step.of_own_process(module, *flags, "--processes", "1", "--out", str(out), "--ways", *ways)
        found: list[Forms] = json.loads(out.read_text())["processes"]
    return found[0]


def medians(processes: Sequence[Forms]) -> Forms:
    """Each number's median over the processes."""
    return {
        name: {key: float(np.median([forms[name][key] for forms in processes])) for key in numbers}
        for name, numbers in processes[0].items()
    }


def main(module: str, doc: str, ways: Ways, file_name: str, arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print.

    Raises:
        SystemExit: --processes is less than 1, or one of them failed.
    """
    parser = argparse.ArgumentParser(prog=module.rpartition(".")[2], description=doc.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(ways), choices=ways)
    parser.add_argument("--processes", type=int, default=2, help="each takes all of bench_step's --turns")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / harness.device_name() / file_name)
    chosen, flags = parser.parse_known_args(arguments)
    if chosen.processes < 1:
        raise SystemExit(f"{parser.prog}: --processes {chosen.processes} times nothing: give 1 or more")
    if chosen.processes == 1:
        processes = [measure({name: ways[name] for name in chosen.ways}, flags)]
    else:
        processes = [
            in_own_process(module, chosen.ways[:: -1 if place % 2 else 1], flags) for place in range(chosen.processes)
        ]
    forms = medians(processes)
    result = {"device": bench_step.device(), "flags": list(flags), "forms": forms, "processes": processes}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(forms)


def _print(forms: Forms) -> None:
    for name, form in forms.items():
        times = "".join(f"{1e3 * form[key]:>9.2f}" for key in ("median_seconds", "p10_seconds", "p90_seconds"))
        processor = 1e3 * form["processor_seconds"]
        print(f"{name:<10}{form['pairs_per_second']:>10.0f} pairs/s{times} ms, p10, p90; processor {processor:.2f} ms")
