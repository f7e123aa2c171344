"""Times whole training steps: python -m bench.step.bench_step [--encoder resnet50 --batch-size 256] [--json FILE].

This benchmark (bench) times the training job of job.py and compares it with four other programs. In the code, each of
these five programs is called a form:

    whole            the training job: input, views, encoder, projection head, loss, gradient, update and metrics
    encoder          the encoder alone: both passes on synthetic views, as one tf.function in the precision of the job
    plain            the same training in stock Keras and TensorFlow, as a competent user writes it, in float32
    plain bfloat16   `plain` under Keras's precision policy mixed_bfloat16
    torch            the same training in PyTorch, if PyTorch is installed and the encoder is ResNet-50

The last three are the baselines (plain_step.py and torch_step.py). The forms are timed in turns: in each turn every
form is timed once, for a few steps. So other programs on the machine slow all forms alike. Each turn has a new random
order. Before a form is timed, it runs one untimed step. This removes the effects of the form before it, for example on
caches and threads.

Speeds are given in pairs a second (pairs/s). Here a pair is the two views (randomly changed versions) of one image. In
the code, the word pair has a second meaning: the two forms `whole` and `encoder`. Their speeds differ little, so these
two forms are timed three times as often as the baselines. The ratio of their speeds changes from one process to the
next. Therefore the bench times these two forms in several processes, which run one after another. Each of these
processes runs an equal number of turns. Afterwards the main process times the job and the three baselines in turns.

Checkpoints and evaluation are not part of a step. To split the step into stages, the bench times six partial steps
(stages.py): the first ends after the views, the others after the encoder, the projection head, the loss, the gradient
and the update. A separate process trains for a few steps and measures the peak memory (training_memory.py). The bench
counts the floating-point operations of the layers: 2 for a multiply-add, and twice as many for the backward pass as for
the forward pass. The number of operations in a step, divided by the time of the step, is the rate of the step. The
bench divides this rate by that of a matrix product, which it times in the same process. bench_micro_batch.py times a
large batch that is split into micro-batches. With `--compare OLD` the exit code is 1 if the new result is slower than
the older result OLD (report/compare.py).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import importlib.util
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import ceiling, hardware, harness, utilisation, versions
from bench.baselines import plain_step
from bench.report import compare, step_page
from bench.step import processes
from bench.step.job import Job, JobChoices, add_job_flags, configure_job, make_encoder_call, read_job_choices
from bench.step.stages import Stages, measure_stages
from bench.step.training_memory import measure_training_memory
from bench.step.turns import Steps, Times, add_turn_flags, join_turns, repeat_call, summarize_turns, take_turns
from lowlevel_simclr.runtime import precision
from lowlevel_simclr.verification.every_op import silence_retracing_warnings

MODULE = "bench.step.bench_step"  # not __name__, which is "__main__" when this module runs as a program
PAIR_TURNS = 3  # the whole job and the encoder alone have this many times as many turns as the baselines


# The whole job and the encoder alone


def measure_pair(chosen: argparse.Namespace) -> list[Times]:
    """Time the whole job and the encoder alone in several processes, one after another.

    Returns:
        The times of each process.

    Raises:
        SystemExit: if one of the processes failed.
    """
    flags = [*chosen.arguments, "--pair-only"]
    return [json.loads(processes.read_last_line(MODULE, *flags)) for _ in range(chosen.processes)]


def time_pair_here(chosen: argparse.Namespace) -> Times:
    """Time the whole job and the encoder alone in this process, for its part of the turns."""
    job = Job(configure_job(read_job_choices(chosen)))
    pair: dict[str, Steps] = {"whole": job.run, "encoder": repeat_call(make_encoder_call(job))}
    turns = math.ceil(PAIR_TURNS * chosen.turns / chosen.processes)
    return take_turns(pair, turns, chosen.steps_per_turn, settle=1)


# Baselines


def make_baselines(job: Job, choices: JobChoices) -> tuple[dict[str, Steps], dict[str, str]]:
    """Build the baselines.

    Returns:
        Two dicts. The first has, for each baseline that can run, the function that runs its steps. The second has, for
        each other baseline, the reason why it cannot run.
    """
    made: dict[str, Steps] = {}
    missing: dict[str, str] = {}
    size, batch_size, widths = choices.image_size, choices.batch_size, job.config.model.projection_widths
    for name, policy in (("plain", "float32"), ("plain bfloat16", "mixed_bfloat16")):
        if policy == "mixed_bfloat16" and not precision.has_bfloat16():
            missing[name] = "this device has no fast bfloat16"
        else:
            call = plain_step.prepare_step(choices.encoder, choices.stem, size, batch_size, widths, job.pixels, policy)
            made[name] = repeat_call(call)
    precision.set_precision(job.plan.precision)
    why = find_torch_obstacle(choices)
    if why:
        missing["torch"] = why
    else:
        from bench.baselines import torch_step  # imported here, because PyTorch is optional

        autocast = job.plan.precision == "bfloat16"
        made["torch"] = repeat_call(torch_step.prepare_step(size, batch_size, widths, job.pixels, autocast))
    return made, missing


def find_torch_obstacle(choices: JobChoices) -> str | None:
    """Return the reason why PyTorch's step cannot be timed, or None if it can be timed."""
    if (choices.encoder, choices.stem) != ("resnet50", "imagenet"):
        return "torch_step.py has only ResNet-50 with the ImageNet stem (first layers for large images)"
    if tf.config.list_physical_devices("GPU"):
        return "torch_step.py trains only on the CPU, not on a GPU"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed. Install it with pip install torch==2.13.0"
    return None


# Ratios and operations


def compute_ratios(times: Times) -> dict[str, dict[str, float]]:
    """Return, for each form, the speed (pairs/s) of the whole job divided by the speed of the form.

    The entry by_medians is computed from the median wall times, by_minima from the smallest wall times, and
    by_processor from the smallest processor times. In addition, each turn gives one ratio. The entries turn_p10,
    turn_median and turn_p90 are quantiles of these ratios over the turns.
    """
    whole = np.array(times["whole"]["wall"])
    found = {}
    for name, each in times.items():
        other = np.array(each["wall"])
        low, middle, high = (float(value) for value in np.percentile(other / whole, (10, 50, 90)))
        found[name] = {
            "by_medians": float(np.median(other) / np.median(whole)),
            "by_minima": float(other.min() / whole.min()),
            "by_processor": min(each["processor"]) / min(times["whole"]["processor"]),
            "turn_p10": low,
            "turn_median": middle,
            "turn_p90": high,
        }
    del found["whole"]
    return found


def count_step_operations(job: Job) -> float:
    """Return how many floating-point operations a step takes in convolutions and dense layers, forward and backward."""
    learner = job.learner
    return job.config.train.batch_size * utilisation.count_pair_operations([learner.encoder, learner.projection])


def measure_gemm_rate(kind: str) -> float:
    """Time several matrix products ten times each. Return the rate of the fastest one, in operations per second."""
    products = ceiling.make_products(kind)
    times = take_turns({name: repeat_call(product.call) for name, product in products.items()}, 10)
    return ceiling.find_rate(products, {name: each["wall"] for name, each in times.items()})


# The program


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that the flags ask for, and return the result to store."""
    by_process = measure_pair(chosen)
    times = join_turns(by_process)
    against = compute_ratios(times)
    choices = read_job_choices(chosen)
    job = Job(configure_job(choices))
    made, missing = ({}, {"torch": "--no-baselines was given"}) if chosen.no_baselines else make_baselines(job, choices)
    if made:
        others = take_turns({"whole": job.run, **made}, chosen.turns, chosen.steps_per_turn, settle=1)
        against |= compute_ratios(others)
        times |= {name: each for name, each in others.items() if name != "whole"}
    found = {name: summarize_turns(each, chosen.steps_per_turn, chosen.batch_size) for name, each in times.items()}
    split = Stages({}, {}) if chosen.no_stages else measure_stages(job, chosen.turns)
    del made
    rate = {kind: measure_gemm_rate(kind) for kind in ("float32", "bfloat16")}
    operations = count_step_operations(job)
    achieved = operations / found["whole"]["median_seconds"]

    def find_rate(name: str) -> float | None:
        return found[name]["pairs_per_second"] if name in found else None

    return {
        "benchmark": "step",
        "device": hardware.name_training_device(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "config": {
            **list_recorded_flags(chosen),
            "precision": job.plan.precision,
            "implementation": job.plan.implementation.name,
        },
        "versions": versions.read_package_versions(("tensorflow", "keras", "torch")),
        "whole_pairs_per_second": find_rate("whole"),
        "encoder_pairs_per_second": find_rate("encoder"),
        "plain_pairs_per_second": find_rate("plain"),
        "plain_bfloat16_pairs_per_second": find_rate("plain bfloat16"),
        "torch_pairs_per_second": find_rate("torch"),
        "peak_memory_bytes": None if chosen.no_memory else measure_training_memory(choices, chosen.deterministic),
        "whole_against": against,
        "encoder_by_process": [compute_ratios(each)["encoder"]["by_medians"] for each in by_process],
        "forms": found,
        "missing": missing,
        "stages_seconds": split.seconds,
        "stages_noise_seconds": split.noise,
        "operations_per_step": operations,
        "gemm_operations_per_second": rate,
        "of_gemm_peak": {kind: achieved / value for kind, value in rate.items()},
        "mfu": utilisation.compute_share(achieved, 1.0, hardware.find_gpu_name(), job.plan.precision),
    }


def list_recorded_flags(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that the result records in its "config"."""
    names = "encoder stem image_size batch_size micro_batch ops xla deterministic turns steps_per_turn"
    return {name: getattr(chosen, name) for name in names.split()}


def format_result(result: dict[str, Any]) -> str:
    """Return the result as text to print."""
    lines = [
        f"{result['device']}, {result['config']['encoder']}, batch {result['config']['batch_size']}, "
        f"{result['config']['precision']}, load average {result['load']:.1f}",
        "pairs/s by the median and by the best turn; wall and processor time of a step; whole / it: the speed of the",
        "whole job divided by the speed of the program in that line",
    ]
    lines.append(
        f"{'program':<18}{'pairs/s':>9}{'best':>9}{'median ms':>11}{'p10 ms':>9}{'p90 ms':>9}{'cpu ms':>9}"
        f"{'whole / it':>12}"
    )
    for name, form in result["forms"].items():
        times = "".join(f"{1e3 * form[key]:>9.0f}" for key in ("p10_seconds", "p90_seconds", "processor_seconds"))
        ratio = result["whole_against"].get(name, {}).get("by_medians")
        lines.append(
            f"{name:<18}{form['pairs_per_second']:>9.1f}{form['best_pairs_per_second']:>9.1f}"
            f"{1e3 * form['median_seconds']:>11.0f}{times}" + (f"{ratio:>11.3f}x" if ratio else "")
        )
    of_each = ", ".join(f"{each:.3f}" for each in result["encoder_by_process"])
    lines += [f"speed of the whole job / speed of the encoder, in each process: {of_each}"]
    lines += [f"{name} was not timed: {why}" for name, why in result["missing"].items()]
    lines += format_stages(result)
    share = ", ".join(
        f"{step_page.format_share(value)} of the rate of a {kind} matrix product"
        for kind, value in result["of_gemm_peak"].items()
    )
    lines += ["", f"A step computes {result['operations_per_step'] / 1e9:.0f} GFLOP. It reaches {share}."]
    if result["mfu"]:
        lines.append(
            f"It reaches {result['mfu']:.1%} of the {result['config']['precision']} peak in the GPU's data sheet (MFU)."
        )
    if result["peak_memory_bytes"]:
        lines.append(f"Peak memory: {result['peak_memory_bytes'] / 2**20:.0f} MiB")
    return "\n".join(lines)


def format_stages(result: dict[str, Any]) -> list[str]:
    """Return a heading, and one line for each stage. A stage whose time is below the noise gets no numbers."""
    stages = step_page.hide_noise(result)
    whole = sum(seconds for seconds in stages.values() if seconds is not None)
    lines = ["", f"{'stage':<26}{'ms':>9}{'of step':>9}"] if stages else []
    for name, seconds in stages.items():
        lines.append(
            f"{name:<26}   {step_page.BELOW_NOISE}"
            if seconds is None
            else f"{name:<26}{1e3 * seconds:>9.1f}{seconds / whole:>9.1%}"
        )
    return lines


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command-line flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_job_flags(made)
    made.add_argument(
        "--deterministic", default="on", choices=("on", "off"), help="whether TensorFlow's op determinism is on"
    )
    add_turn_flags(
        made, "how often each baseline is timed; the whole job and the encoder alone are timed three times as often"
    )
    made.add_argument(
        "--processes", type=int, default=3, help="number of processes that time the whole job and the encoder alone"
    )
    made.add_argument("--no-baselines", action="store_true", help="time only the whole job and the encoder alone")
    made.add_argument(
        "--no-stages",
        action="store_true",
        help="do not split the step into stages (splitting it compiles six more functions)",
    )
    made.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    made.add_argument("--json", type=Path, help="the file to store the result in")
    made.add_argument(
        "--compare", type=Path, metavar="OLD", help="an older result; the exit code is 1 if the new result is slower"
    )
    made.add_argument("--pair-only", action="store_true", help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result; return the exit code."""
    chosen = make_parser().parse_args(arguments)
    if chosen.processes < 1:
        raise SystemExit(f"bench_step: --processes is {chosen.processes}, so nothing would be measured. Use 1 or more.")
    chosen.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if chosen.deterministic == "on":  # training enables it by default
        tf.config.experimental.enable_op_determinism()
    # The stages are many small functions (stages.py).
    with silence_retracing_warnings():
        if chosen.pair_only:
            print(json.dumps(time_pair_here(chosen)))
            return 0
        result = measure(chosen)
    if chosen.json:
        harness.write_result(chosen.json, result)
    print(format_result(result))
    return compare.print_changes(compare.read_result(chosen.compare), result) if chosen.compare else 0


if __name__ == "__main__":
    sys.exit(main())
