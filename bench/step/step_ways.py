"""Compares several ways to build the same training step, and times the encoder alone next to them.

Each bench that uses this module, for example bench_step_loop.py, defines its own ways. In a turn, each way and the
encoder alone are timed once, in random order. A process keeps its speed as long as it lives, but the speed of the same
job can differ by one per cent from one process to another. So the measurement is repeated in several processes, and the
result is the median over the processes. Every second process builds the ways in reverse order. The random order in a
turn depends on a fixed seed and on the order in which the ways were built. So the order in a turn is also different in
these processes.
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

Ways = Mapping[str, Callable[[Config], Job]]  # for each way, the function that builds its job
Forms = dict[str, Summary]  # for each way and for the encoder alone (each is called a form), the summarized times


def time_ways(ways: Ways, flags: Sequence[str]) -> Forms:
    """Time the ways and the encoder alone in this process.

    Args:
        ways: for each way, the function that builds its training job.
        flags: the command-line flags of the job and of the turns.

    Returns:
        The summarized times of each way and of the encoder alone.
    """
    tf.config.experimental.enable_op_determinism()  # training enables it by default
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
    """Return the parser of the command line: the flags of the job and of the turns."""
    parser = argparse.ArgumentParser()
    add_job_flags(parser)
    add_turn_flags(parser)
    return parser


def time_in_own_process(module: str, ways: Sequence[str], flags: Sequence[str]) -> Forms:
    """Time the ways and the encoder alone in a new process.

    Args:
        module: the module name of the bench. The new process runs this module.
        ways: the names of the ways to time, in the order in which the process builds them.
        flags: the command-line flags of the job and of the turns.

    Returns:
        The summarized times of each way and of the encoder alone.

    Raises:
        SystemExit: if the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "forms.json"
        processes.read_last_line(module, *flags, "--processes", "1", "--out", str(out), "--ways", *ways)
        found: list[Forms] = json.loads(out.read_text())["processes"]
    return found[0]


def take_medians(by_process: Sequence[Forms]) -> Forms:
    """Return, for each way and for the encoder alone, the median of each quantity over the processes."""
    return {
        name: {key: float(np.median([forms[name][key] for forms in by_process])) for key in numbers}
        for name, numbers in by_process[0].items()
    }


def run_bench(module: str, doc: str, ways: Ways, file_name: str, arguments: Sequence[str] | None = None) -> None:
    """Measure the ways, store the result and print it. Every bench that compares ways uses this as its main function.

    Args:
        module: the module name of the bench. Further processes run this module.
        doc: the docstring of the bench. Its first line is the description in the help text.
        ways: for each way, the function that builds its training job.
        file_name: the file name of the stored result.
        arguments: the command-line arguments. None means those of this process.

    Raises:
        SystemExit: if --processes is less than 1, or if a process failed.
    """
    parser = argparse.ArgumentParser(prog=module.rpartition(".")[2], description=doc.splitlines()[0])
    parser.add_argument("--ways", nargs="+", default=list(ways), choices=ways, help="the ways to time (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="number of processes; each runs all turns")
    parser.add_argument("--out", type=Path, default=harness.choose_result_path(file_name))
    chosen, flags = parser.parse_known_args(arguments)
    make_parser().parse_args(flags)  # refuses an unknown flag before the first process starts
    if chosen.processes < 1:
        raise SystemExit(
            f"{parser.prog}: --processes is {chosen.processes}, so nothing would be measured. Use 1 or more."
        )
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
    """Return one line of text for each way and for the encoder alone."""
    lines = []
    for name, form in forms.items():
        keys = ("median_seconds", "p10_seconds", "p90_seconds", "processor_seconds")
        median, p10, p90, processor = (1e3 * form[key] for key in keys)
        lines.append(
            f"{name:<10}{form['pairs_per_second']:>10.0f} pairs/s, median {median:.2f} ms "
            f"(p10 {p10:.2f}, p90 {p90:.2f}), processor time {processor:.2f} ms"
        )
    return "\n".join(lines)
