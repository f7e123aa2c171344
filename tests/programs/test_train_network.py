"""Tests several processes that train together (workers) on a network with latency, lost packets, or a cut cable."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_workers import read_losses, start_worker, start_workers, wait_for_steps
from tests.support.virtual_switch import find_problem, open_network
from tests.support.worker_processes import collect_output

PROBLEM = find_problem()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(PROBLEM), reason=PROBLEM)]

ENDS_WITHIN = 60.0  # seconds within which the other workers must end; TensorFlow needs 10 s to notice a lost worker
STEPS = ["--steps", "4"]


@pytest.mark.parametrize("count", [2, 4])
def test_latency_and_lost_packets_change_no_number(tmp_path: Path, count: int) -> None:
    """Test a network on which a packet takes 2 ms and one packet in a hundred is lost.

    The training losses must have the same bits as over the loopback device, where no packet is delayed or lost.
    """
    local = start_workers(tmp_path / "local", *STEPS, count=count)
    said = collect_output(local, 300)
    assert [process.returncode for process in local] == [0] * count, said
    with open_network(count, delay=0.002, loss=0.01) as network:
        processes = [
            start_worker(
                tmp_path / "run",
                {"TF_CONFIG": ""},
                [*STEPS, "--hosts", network.list_addresses(), "--rank", str(rank)],
                network.enter(rank),
            )
            for rank in range(count)
        ]
        said = collect_output(processes, 600)
    assert [process.returncode for process in processes] == [0] * count, said
    np.testing.assert_array_equal(read_losses(tmp_path / "run"), read_losses(tmp_path / "local"))


@pytest.mark.parametrize(("count", "cut"), [(2, 0), (2, 1), (4, 2)])
def test_a_cut_cable_ends_every_worker_and_is_named(tmp_path: Path, count: int, cut: int) -> None:
    flags = ["--steps", "3000", "--checkpoint-every", "10", "--worker-timeout", str(ENDS_WITHIN)]
    with open_network(count, delay=0.0002) as network:
        processes = [
            start_worker(
                tmp_path / "run",
                {"TF_CONFIG": ""},
                [*flags, "--hosts", network.list_addresses(), "--rank", str(rank)],
                network.enter(rank),
            )
            for rank in range(count)
        ]
        wait_for_steps(tmp_path / "run", processes, 12)
        network.cut(cut)
        said = collect_output(processes, ENDS_WITHIN)
    assert [process.returncode for process in processes] == [1] * count, said
    lost = f"worker {cut} (10.77.0.{cut + 1}:29500)"
    for rank, text in enumerate(said):
        if rank != cut:
            assert re.search(rf"The run lost .*{re.escape(lost)}", text), text
    assert "The run lost " in said[cut] and lost not in said[cut], said[cut]
