"""Times training on replicas and counts the bytes they send: python -m bench.step.bench_distribute [--json FILE].

A replica is a copy of the networks that trains on its share of the batch. The bench runs the same training step, with
the same global batch, in four setups. In the code, each setup is called a form:

    1 replica     one replica, which exchanges no data
    2 replicas    two virtual replicas in one process
    4 replicas    four virtual replicas in one process
    2 processes   two processes with one replica each, which exchange data over the loopback device

Each setup runs in new processes. All replicas share one processor. So the bench shows what replication costs, but it
cannot show a speed-up. `Replica.moved` counts the bytes that a replica sends. For the setup with two processes, the
result also has the bytes that the loopback device counted, which include the traffic of other programs.

`scaling.py` has a model that predicts how many bytes a device sends in a step, and how long the step takes, on 8 to
1024 devices. The bench stores no result if the bytes that the replicas counted differ from those that the model
predicts. `--page PAGE` writes the tables into a documentation page.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import contextlib
import dataclasses
import json
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from bench import hardware, harness
from bench.report import markers
from bench.step import scaling
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.training import replicas
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.loop import make_steps
from lowlevel_simclr.training.plan import load_images, resolve
from lowlevel_simclr.training.workers import ask_any, check_ranks, gather_team, run_everywhere

FORMS = {"1 replica": ("cpu:1", 1), "2 replicas": ("cpu:2", 1), "4 replicas": ("cpu:4", 1), "2 processes": ("all", 2)}
LIMIT = 1800  # the time limit of one setup (form), in seconds


# Measuring one setup. The functions of this section run in a separate process.


def configure_replicas(chosen: argparse.Namespace, devices: str) -> Config:
    """Return the configuration: the data set "shapes", the optimizer LARS, float32, and the settings from the flags."""
    return replace(
        Config(),
        image_size=chosen.image_size,
        encoder=chosen.encoder,
        stem="cifar",
        batch_size=chosen.batch_size,
        optimizer="lars",
        learning_rate=0.3,
        precision="float32",
        devices=devices,
        steps=1_000_000,
    )


def measure_form(chosen: argparse.Namespace) -> dict[str, Any]:
    """Time one setup (form) in this process and count its bytes.

    Returns: A dict with the measurements. It has the seconds per step of each turn, the bytes that a replica sends for
        each kind of data, and the sizes of the network, which the scaling model needs. In a turn, `--steps-per-turn`
        steps are timed together.
    """
    config = configure_replicas(chosen, chosen.form)
    team = gather_team(config.train.devices, config.train.batch_norm, config.train.ghost_batch)
    images = load_images(config)
    config, plan = resolve(config, team, images)
    check_ranks(team.workers, team.local)
    learners, functions, batches = [], [], []
    for replica in team.local:
        with tf.device(replica.device or None):
            learners.append(build_learner(plan, 3))
        replica.moved.clear()  # forgets the bytes that were exchanged when the networks were built
        functions.append(make_steps(plan, learners[-1], replica))
        own = replicas.choose_own_rows(replica.rank, replica.count, chosen.batch_size) if replica.count > 1 else None
        pixels = select_training_images(images)
        batches.append(iter(make_batches(pixels, chosen.batch_size, config.train.seed, 0, plan.steps, own)))
    steps = run_everywhere(team, functions)
    steps(batches, tf.constant(1)).loss.numpy()
    seconds, before = [], _read_bytes(chosen.interface)
    for _ in range(chosen.turns):
        started = time.perf_counter()
        steps(batches, tf.constant(chosen.steps_per_turn)).loss.numpy()
        seconds.append((time.perf_counter() - started) / chosen.steps_per_turn)
    loopback = (_read_bytes(chosen.interface) - before) / chosen.turns / chosen.steps_per_turn
    moved: Counter[str] = Counter()
    for what, size in team.local[0].moved:
        moved[what] += size
    sizes = scaling.read_sizes(learners[0].encoder, learners[0].projection)
    ask_any(team.workers, False)  # waits until all workers have counted their bytes
    return {
        "rank": team.workers.rank,
        "replicas": team.count,
        "seconds": seconds,
        "moved": dict(moved),
        "exchanges": len(team.local[0].moved),
        "loopback": loopback,
        "sizes": dataclasses.asdict(sizes),
    }


def _read_bytes(interface: str) -> int:
    """Return the number of bytes that a network device has received so far, or 0 if the device has no counter."""
    counter = Path(f"/sys/class/net/{interface}/statistics/rx_bytes")
    return int(counter.read_text(encoding="utf-8")) if counter.exists() else 0


# Measuring all setups. The functions of this section run in the main process.


def run_form(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run the processes of one setup (form), and return the measurements of the first process (worker 0).

    Raises:
        SystemExit: if one of the processes failed.
    """
    devices, workers = FORMS[name]
    command = [sys.executable, "-m", "bench.step.bench_distribute", *arguments, "--form", devices]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    tasks = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})
        for rank in range(workers)
    ]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, "TF_CONFIG": task if workers > 1 else ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in tasks
    ]
    try:
        said = [process.communicate(timeout=LIMIT) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, said):
        if process.returncode:
            raise SystemExit(f"bench_distribute: A process of the setup '{name}' failed: {errors[-2000:]}")
    found = [json.loads(out.splitlines()[-1]) for out, _ in said]
    return next(each for each in found if each["rank"] == 0)


def measure(chosen: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """Run every setup, compare the counted bytes with the scaling model, and return the result to store.

    Raises:
        SystemExit: if a process of a setup failed.
        scaling.WrongModel: if the model predicts a number of bytes that differs from what the replicas counted.
    """
    rounds = [{name: run_form(name, arguments) for name in FORMS} for _ in range(chosen.rounds)]
    forms = {}
    for name in FORMS:
        first, seconds = rounds[0][name], [value for each in rounds for value in each[name]["seconds"]]
        sizes = scaling.Sizes(**{**first["sizes"], "channels": tuple(first["sizes"]["channels"])})
        predicted = scaling.predict_bytes(sizes, chosen.batch_size, first["replicas"])
        scaling.refuse_difference(name, predicted, first["moved"], first["exchanges"])
        forms[name] = {
            "replicas": first["replicas"],
            "seconds": statistics.median(seconds),
            "best_seconds": min(seconds),
            "moved": first["moved"],
            "predicted": predicted,
        }
        if FORMS[name][1] > 1:  # the loopback device counts what both processes send
            forms[name]["loopback_bytes"] = statistics.median(each[name]["loopback"] for each in rounds)
    return {
        "benchmark": "distribute",
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "versions": {"tensorflow": tf.__version__},
        "config": {key: getattr(chosen, key) for key in ("encoder", "image_size", "batch_size")},
        "forms": forms,
        "scaling": predict_from_flags(chosen),
    }


def predict_from_flags(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the prediction of the scaling model for the network, the devices and the batches that the flags choose."""
    f = encoder.build_encoder(chosen.model_encoder, chosen.model_stem, chosen.model_size, 3)
    g = projection.build_projection_head(f.output_shape[-1], tuple(chosen.model_widths))
    machine = scaling.Machine(chosen.rate, chosen.bandwidth, chosen.latency)
    return scaling.predict_scaling(scaling.read_sizes(f, g), machine, chosen.global_batch, chosen.per_device)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command-line flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--encoder", default="resnet20")
    made.add_argument("--image-size", type=int, default=32)
    made.add_argument("--batch-size", type=int, default=64, help="pairs in the global batch, which the replicas share")
    made.add_argument("--rounds", type=int, default=2, help="how often each setup is started")
    made.add_argument("--turns", type=int, default=5, help="how often a setup is timed after each start")
    made.add_argument("--steps-per-turn", type=int, default=2, help="how many steps are timed together in a turn")
    made.add_argument("--json", type=Path, help="the file to store the result in")
    made.add_argument("--page", type=Path, help="the page to write the tables into, between its markers")
    made.add_argument("--form", help=argparse.SUPPRESS)
    made.add_argument("--interface", default="lo", help=argparse.SUPPRESS)
    model = made.add_argument_group("scaling model")
    model.add_argument("--model-encoder", default="resnet50")
    model.add_argument("--model-stem", default="imagenet")
    model.add_argument("--model-size", type=int, default=224)
    model.add_argument("--model-widths", type=int, nargs="+", default=[2048, 128])
    model.add_argument("--global-batch", type=int, default=4096, help="pairs in the batch that all devices share")
    model.add_argument(
        "--per-device", type=int, default=32, help="pairs for each device, if the batch grows with the devices"
    )
    model.add_argument(
        "--rate",
        type=float,
        default=scaling.ASSUMED.rate,
        help="floating-point operations that a device computes in a second",
    )
    model.add_argument(
        "--bandwidth", type=float, default=scaling.ASSUMED.bandwidth, help="bytes that a device sends in a second"
    )
    model.add_argument(
        "--latency", type=float, default=scaling.ASSUMED.latency, help="seconds of one hop from a device to the next"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result, write the tables into the page, and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    chosen = make_parser().parse_args(arguments)
    if chosen.form:
        print(json.dumps(measure_form(chosen)), flush=True)
        return 0
    result = measure(chosen, arguments)
    if chosen.json:
        harness.write_result(chosen.json, result)
    tables = {"distribute": scaling.format_measured(result), "scaling": scaling.format_predicted(result)}
    for name, table in tables.items():
        print(table, end="\n\n")
        if chosen.page:
            markers.write_between(chosen.page, f"bench:{name}", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
