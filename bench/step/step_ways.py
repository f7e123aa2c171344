"""Times a step that is made in several ways, and the encoder alone, in turns as bench_step.py takes them.

A job keeps its speed for as long as its process lives. The speed can differ by a per cent from that of an equal job in
another process. So several processes measure, every other one with the ways in reverse order, and the result is the
median over the processes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bench import hardware, harness
from bench.step import processes
from bench.step.job import Job, add_job_flags, configure_job, make_encoder_call, read_job_choices
from bench.step.turns import Steps, Summary, add_turn_flags, repeat_call, summarize_turns, take_turns
from lowlevel_simclr.config.settings import Config

Ways = Mapping[str, Callable[[Config], Job]]
Forms = dict[str, Summary]  # for each way, and for the encoder


def time_ways(ways: Ways, flags: Sequence[str]) -> Forms:
    """Time the ways in this process.

    Args:
        ways: the function that builds the job of each way.
        flags: the flags of the job and of the turns.
    """
    tf.config.experimental.enable_op_determinism()  # the job's default
    chosen = make_parser().parse_args(flags)
    config = configure_job(read_job_choices(chosen))
    jobs = {name: make(config) for name, make in ways.items()}
    steps: dict[str, Steps] = {name: job.run for name, job in jobs.items()}
    steps["encoder"] = repeat_call(make_encoder_call(next(reversed(jobs.values()))))
    times = take_turns(steps, chosen.turns, chosen.steps_per_turn, settle=1)
    return {
        name: summarize_turns(taken, chosen.steps_per_turn, config.train.batch_size) for name, taken in times.items()
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the flags of the job and of the turns."""
    parser = argparse.ArgumentParser()
    add_job_flags(parser)
    add_turn_flags(parser)
    return parser


def time_in_own_process(module: str, ways: Sequence[str], flags: Sequence[str]) -> Forms:
    """Time the ways in another process, which runs the bench of that module.

    Raises:
        SystemExit: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "forms.json"
        processes.read_last_line(module, *flags, "--processes", "1", "--out", str(out), "--ways", *ways)
        found: list[Forms] = json.loads(out.read_text())["processes"]
    return found[0]


def take_medians(by_process: Sequence[Forms]) -> Forms:
    """Return the median over the processes of each number."""
    return {
        name: {key: float(np.median([forms[name][key] for forms in by_process])) for key in numbers}
        for name, numbers in by_process[0].items()
    }


def run_bench(module: str, doc: str, ways: Ways, file_name: str, arguments: Sequence[str] | None = None) -> None:
    """Measure, store and print: the main function of a bench of ways.

    Args:
        module: the bench's name, for separate processes.
        doc: the bench's docstring.
        ways: the ways that it times.
        file_name: the file name of its result.
        arguments: the arguments of its command line.

    Raises:
        SystemExit: --processes is less than 1, or a process failed.
    """
    parser = argparse.ArgumentParser(prog=module.rpartition(".")[2], description=doc.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(ways), choices=ways)
    parser.add_argument("--processes", type=int, default=2, help="number of processes; each takes all of the --turns")
    parser.add_argument("--out", type=Path, default=harness.choose_result_path(file_name))
    chosen, flags = parser.parse_known_args(arguments)
    make_parser().parse_args(flags)  # refuses an unknown flag before the first process starts
    if chosen.processes < 1:
        raise SystemExit(f"{parser.prog}: --processes {chosen.processes} times nothing. Use 1 or more.")
    if chosen.processes == 1:
        by_process = [time_ways({name: ways[name] for name in chosen.ways}, flags)]
    else:
        by_process = [
            time_in_own_process(module, chosen.ways[:: -1 if place % 2 else 1], flags)
            for place in range(chosen.processes)
        ]
    forms = take_medians(by_process)
    result = {"device": hardware.name_training_device(), "flags": list(flags), "forms": forms, "processes": by_process}
    harness.write_result(chosen.out, result)
    print(format_forms(forms))


def format_forms(forms: Forms) -> str:
    """Return a line for each form."""
    lines = []
    for name, form in forms.items():
        times = "".join(f"{1e3 * form[key]:>9.2f}" for key in ("median_seconds", "p10_seconds", "p90_seconds"))
        processor = 1e3 * form["processor_seconds"]
        lines.append(
            f"{name:<10}{form['pairs_per_second']:>10.0f} pairs/s{times} ms, p10, p90; processor {processor:.2f} ms"
        )
    return "\n".join(lines)
