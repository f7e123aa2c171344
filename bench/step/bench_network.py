"""Compares predictions of scaling.py with training on a slow network: python -m bench.step.bench_network.

Two processes (workers) on this machine train together. Each runs in its own network namespace, and a virtual cable
(veth) connects the two. Linux's traffic control (a token bucket, tc tbf) limits the rate of the cable. The bench
measures one rate after another. The model of `scaling.py` predicts the bytes that the workers send. It also predicts
how much longer the exchanges take than on a cable without a limit: the bytes divided by the rate. The bench needs root,
and the programs ip and tc of iproute2. `--json FILE` stores the result, and `--page PAGE` writes the table into a
documentation page.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import hardware, harness
from bench.report import markers
from bench.step import scaling

RATES = (10e9, 1e9)  # bits a second
SMALLEST_BURST = 2**17  # bytes that the token bucket lets pass at once (two packets of the largest size in Linux)
QUEUE = "50ms"  # how long a packet may wait in the token bucket before it is lost
LIMIT = 1800  # seconds that the two workers may take
ADDRESSES = ("10.78.0.1", "10.78.0.2")
PORT = 29500


@contextlib.contextmanager
def connect_namespaces(rate: float | None) -> Iterator[list[str]]:
    """Yield the names of two namespaces with a cable between them. After the `with` block, both are removed.

    Args:
        rate: the bits a second that the cable carries in each direction. None means no limit.
    """
    names = [f"bench-{os.getpid()}-{place}" for place in range(2)]
    with contextlib.ExitStack() as stack:
        for name in names:
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
        peer = ["peer", "name", "cable", "netns", names[1]]
        _run("ip", "link", "add", "cable", "netns", names[0], "type", "veth", *peer)
        for name, address in zip(names, ADDRESSES):
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _run("ip", "-n", name, "link", "set", device, "up")
            if rate is not None:
                limits = ["rate", f"{rate:.0f}bit", "burst", str(choose_burst(rate)), "latency", QUEUE]
                _run("tc", "-n", name, "qdisc", "add", "dev", "cable", "root", "tbf", *limits)
        yield names


def choose_burst(rate: float) -> int:
    """Return how many bytes the token bucket lets pass at once: the bytes of 1 ms, but at least two packets."""
    return max(SMALLEST_BURST, int(rate / 8 / 1000))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def measure_rate(rate: float | None, flags: Sequence[str]) -> dict[str, Any]:
    """Train with two workers over a cable. Return what `bench_distribute.measure_form` measured in worker 0.

    Raises:
        SystemExit: if a worker failed.
    """
    cluster = {"worker": [f"{address}:{PORT}" for address in ADDRESSES]}
    command = [sys.executable, "-m", "bench.step.bench_distribute", *flags, "--form", "all", "--interface", "cable"]
    with connect_namespaces(rate) as names:
        running = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                env={
                    **os.environ,
                    "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}}),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, name in enumerate(names)
        ]
        try:
            said = [process.communicate(timeout=LIMIT) for process in running]
        finally:
            for process in running:
                process.kill()
    for process, (_, errors) in zip(running, said):
        if process.returncode:
            raise SystemExit(f"bench_network: A worker failed: {errors[-2000:]}")
    found: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
    return found


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure each rate, and return the result to store.

    Raises:
        SystemExit: if a worker failed.
        scaling.WrongModel: if the model predicts a number of bytes that differs from what the workers counted.
    """
    flags = ["--encoder", chosen.encoder, "--image-size", str(chosen.image_size)]
    flags += ["--batch-size", str(chosen.batch_size), "--turns", str(chosen.turns), "--steps-per-turn", "1"]
    rows = []
    for rate in (None, *chosen.rates):
        found = measure_rate(rate, flags)
        sizes = scaling.Sizes(**{**found["sizes"], "channels": tuple(found["sizes"]["channels"])})
        predicted = scaling.predict_bytes(sizes, chosen.batch_size, found["replicas"])
        scaling.refuse_difference(f"{rate} bit/s", predicted, found["moved"], found["exchanges"])
        rows.append(
            {
                "rate": rate,
                "best_seconds": min(found["seconds"]),
                "predicted_bytes": sum(predicted.values()),
                "wire_bytes": found["loopback"],
                "predicted_seconds": 0.0 if rate is None else 8 * sum(predicted.values()) / rate,
            }
        )
    return {
        "benchmark": "network",
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "config": {key: getattr(chosen, key) for key in ("encoder", "image_size", "batch_size")},
        "rows": rows,
    }


def format_table(result: dict[str, Any]) -> str:
    """Return a Markdown table with one line for each rate."""
    lines = [
        "| limit of the link | MB sent by each worker: predicted | MB on the wire | exchange, ms: predicted | "
        "longer than without a limit, ms: measured | shortest ms a step |",
        "|---|---|---|---|---|---|",
    ]
    free = result["rows"][0]["best_seconds"]
    for row in result["rows"]:
        limit = "none" if row["rate"] is None else f"{row['rate'] / 1e9:g} Gbit/s"
        lines.append(
            f"| {limit} | {row['predicted_bytes'] / 1e6:.2f} | {row['wire_bytes'] / 1e6:.2f} | "
            f"{1e3 * row['predicted_seconds']:.0f} | {1e3 * (row['best_seconds'] - free):.0f} | "
            f"{1e3 * row['best_seconds']:.0f} |"
        )
    config = result["config"]
    lines += [
        "",
        f"{config['encoder']}, {config['image_size']} pixels, global batch {config['batch_size']}, two workers in "
        f"network namespaces of one {result['device']}.",
    ]
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command-line flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--encoder", default="resnet50")
    made.add_argument("--image-size", type=int, default=16)
    made.add_argument("--batch-size", type=int, default=8, help="pairs in the global batch of both workers")
    made.add_argument("--turns", type=int, default=10, help="how many steps are timed")
    made.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="limits in bits a second")
    made.add_argument("--json", type=Path, help="the file to store the result in")
    made.add_argument("--page", type=Path, help="the page to write the table into, between its markers")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result, write the table into the page, and return the exit code."""
    chosen = make_parser().parse_args(arguments)
    result = measure(chosen)
    if chosen.json:
        harness.write_result(chosen.json, result)
    table = format_table(result)
    print(table)
    if chosen.page:
        markers.write_between(chosen.page, "bench:network", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
