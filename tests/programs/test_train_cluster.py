"""Tests starting several processes that train one network together: with Slurm's srun, and with --hosts and --rank."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_workers import read_losses, start_worker, start_workers
from tests.support.worker_processes import collect_output, find_free_ports

FLAGS = ["--steps", "4"]


@pytest.fixture(scope="module")
def losses_of_tf_config(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Train with two processes (workers) that find each other through TF_CONFIG. Return the losses."""
    out = tmp_path_factory.mktemp("config") / "run"
    processes = start_workers(out, *FLAGS)
    said = collect_output(processes, 300)
    assert [process.returncode for process in processes] == [0, 0], said
    return read_losses(out)


@pytest.mark.slow
def test_two_tasks_of_slurm_train_one_run(tmp_path: Path, losses_of_tf_config: np.ndarray) -> None:
    """Start two processes with the environment variables that srun sets. They must find each other."""
    step = {
        "TF_CONFIG": "",
        "SLURM_JOB_ID": str(find_free_ports(1)[0]),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
    }
    tasks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    processes = [start_worker(tmp_path / "run", {**step, **task}, FLAGS) for task in tasks]
    said = collect_output(processes, 300)
    assert [process.returncode for process in processes] == [0, 0], said
    assert "2 replicas on 2 workers" in said[0], said
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["workers"] == 2
    np.testing.assert_array_equal(read_losses(tmp_path / "run"), losses_of_tf_config)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_workers_are_listed_by_hand(tmp_path: Path, host: str, losses_of_tf_config: np.ndarray) -> None:
    hosts = ",".join(f"{host}:{port}" for port in find_free_ports(2))
    processes = [
        start_worker(tmp_path / "run", {"TF_CONFIG": ""}, [*FLAGS, "--hosts", hosts, "--rank", str(rank)])
        for rank in range(2)
    ]
    said = collect_output(processes, 300)
    assert [process.returncode for process in processes] == [0, 0], said
    np.testing.assert_array_equal(read_losses(tmp_path / "run"), losses_of_tf_config)


@pytest.mark.slow
def test_workers_train_in_a_strategy(tmp_path: Path, losses_of_tf_config: np.ndarray) -> None:
    """Test the engine "strategy". Its sums round differently, so the losses are only nearly equal."""
    processes = start_workers(tmp_path / "run", *FLAGS, "--engine", "strategy")
    said = collect_output(processes, 300)
    assert [process.returncode for process in processes] == [0, 0], said
    np.testing.assert_allclose(read_losses(tmp_path / "run"), losses_of_tf_config, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_workers_with_other_numbers_of_devices_are_refused(tmp_path: Path) -> None:
    processes = start_workers(tmp_path / "run", *FLAGS, "--devices", "cpu:1", of_second=["--devices", "cpu:2"])
    said = collect_output(processes, 300)
    assert [process.returncode for process in processes] == [1, 1], said
    assert all("Every worker needs the same number. Give --devices 1 to all of them." in text for text in said), said
    assert not (tmp_path / "run").exists()
