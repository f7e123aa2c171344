"""Times a large batch by micro-batches against what it must cost: python -m bench.step.bench_micro_batch [--json FILE].

A step by micro-batches makes each forward pass twice, so it cannot be faster than t_step / (t_step + t_forward) of the
speed of a batch as small as one micro-batch. Three forms take turns in one process:

    whole      a step of the large batch, by micro-batches
    step       as many images as one micro-batch, alone
    forward    the first pass of one micro-batch: views, f and g in training mode, no tape

Peak memory is that of processes of their own which train a few steps: the large batch, and the small one alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench.step import bench_step
from lowlevel_simclr.training.loop import make_views


def forward_alone(job: bench_step.Job) -> bench_step.Call:
    """z of one batch, of which nothing is kept for a gradient."""
    views, learner = make_views(job.plan), job.learner
    given = next(job.batches)
    batch = job.fetch(*given) if job.fetch else given

    @tf.function(jit_compile=job.plan.jit_compile)
    def forward() -> tf.Tensor:
        return learner.projection(learner.encoder(views(*batch), training=True), training=True)

    return lambda: forward().numpy()


def flags_of(chosen: argparse.Namespace, batch_size: int, micro_batch: int | None) -> list[str]:
    """Those of bench_step for one of the two batches."""
    flags = ["--encoder", chosen.encoder, "--stem", chosen.stem, "--image-size", str(chosen.image_size)]
    flags += ["--precision", chosen.precision, "--batch-size", str(batch_size)]
    return flags + (["--micro-batch", str(micro_batch)] if micro_batch else [])


def memory_of(flags: Sequence[str]) -> int:
    """Peak bytes of a process that trains a few steps."""
    return bench_step.peak_memory(argparse.Namespace(arguments=list(flags)))


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """The whole result."""
    tf.config.experimental.enable_op_determinism()  # as the job has it by default
    large = flags_of(chosen, chosen.batch_size, chosen.micro_batch)
    small = flags_of(chosen, chosen.micro_batch, None)
    jobs = {
        name: bench_step.Job(bench_step.configuration(bench_step.parser().parse_args(flags)))
        for name, flags in (("whole", large), ("step", small))
    }
    forward = bench_step.repeated(forward_alone(jobs["step"]))
    calls: dict[str, bench_step.Steps] = {
        "whole": jobs["whole"].run,
        "step": lambda count: jobs["step"].run(count * chosen.small_steps),
        "forward": lambda count: forward(count * chosen.small_steps),
    }
    times = bench_step.take_turns(calls, chosen.turns)
    counts = {"whole": 1, "step": chosen.small_steps, "forward": chosen.small_steps}
    seconds = {name: np.array(times[name]["wall"]) / counts[name] for name in calls}
    return {
        "benchmark": "micro_batch",
        "device": bench_step.device(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "config": {
            **{name: getattr(chosen, name) for name in ("encoder", "stem", "image_size", "batch_size", "micro_batch")},
            "precision": jobs["whole"].plan.precision,
        },
        "versions": {"tensorflow": tf.__version__},
        "seconds": {
            name: {"median": float(np.median(each)), "minimum": float(each.min())} for name, each in seconds.items()
        },
        "of_possible_speed": {
            "by_medians": of_possible(chosen, *(float(np.median(seconds[name])) for name in calls)),
            "by_minima": of_possible(chosen, *(float(seconds[name].min()) for name in calls)),
        },
        "peak_memory_bytes": {"whole": memory_of(large), "step": memory_of(small)} if not chosen.no_memory else None,
    }


def of_possible(chosen: argparse.Namespace, whole: float, step: float, forward: float) -> float:
    """The speed of the large batch, of the speed at which each micro-batch takes t_step + t_forward."""
    return chosen.batch_size / chosen.micro_batch * (step + forward) / whole


def text(result: dict[str, Any]) -> str:
    """What a person reads."""
    config, seconds, share = result["config"], result["seconds"], result["of_possible_speed"]
    lines = [
        f"{result['device']}, {config['encoder']}, {config['stem']} stem, {config['image_size']} pixels, "
        f"{config['batch_size']} images by {config['micro_batch']}, {config['precision']}"
    ]
    lines += [f"{name:<9}{each['median']:>9.3f} s, best {each['minimum']:.3f}" for name, each in seconds.items()]
    lines.append(f"{share['by_medians']:.3f} of the possible speed by medians, {share['by_minima']:.3f} by minima")
    if result["peak_memory_bytes"]:
        whole, step = (result["peak_memory_bytes"][name] for name in ("whole", "step"))
        lines.append(
            f"peak memory {whole / 2**20:.0f} MiB, {whole / step:.2f} x that of {config['micro_batch']} images"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--encoder", default="resnet50")
    made.add_argument("--stem", default="imagenet")
    made.add_argument("--image-size", type=int, default=32, metavar="S")
    made.add_argument("--batch-size", type=int, default=4096, metavar="N")
    made.add_argument("--micro-batch", type=int, default=256, metavar="N")
    made.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    made.add_argument("--turns", type=int, default=3, help="how often each form is timed")
    made.add_argument("--small-steps", type=int, default=4, help="steps, and forward passes, of the small batch a turn")
    made.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    made.add_argument("--json", type=Path, help="where the result is stored")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store, print; returns the exit code."""
    chosen = parser().parse_args(arguments)
    tf.get_logger().setLevel("ERROR")
    result = measure(chosen)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
