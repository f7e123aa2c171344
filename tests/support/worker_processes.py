"""Runs several programs at the same time, which communicate over loopback (the network inside one machine)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_to_the_end(commands: Sequence[Sequence[str]], environments: Sequence[dict[str, str]]) -> None:
    """Run programs at the same time until they end, and assert that each exits with code 0."""
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for command, more in zip(commands, environments)
    ]
    said = [process.communicate(timeout=900)[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * len(running), "\n".join(said)[-4000:]


def find_free_ports(count: int) -> list[int]:
    """Return ports of this machine that are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def make_cluster(count: int) -> list[dict[str, str]]:
    """Return the environment variables of each of `count` processes (workers) that train together over loopback.

    A single worker gets an empty TF_CONFIG.
    """
    if count == 1:
        return [{"TF_CONFIG": ""}]
    addresses = [f"127.0.0.1:{port}" for port in find_free_ports(count)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})}
        for rank in range(count)
    ]


def collect_output(processes: Sequence[subprocess.Popen[str]], seconds: float) -> list[str]:
    """Wait until all processes have ended, and return the output of each.

    If one runs longer than `seconds`, kill all processes and raise an error.
    """
    try:
        return [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
