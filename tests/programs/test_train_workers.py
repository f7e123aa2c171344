"""Tests training with two processes (workers): different settings or images, a missing worker, a killed worker."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_workers import read_final_state, start_workers, wait_for_steps
from tests.support.worker_processes import collect_output


@pytest.mark.slow
def test_workers_with_other_settings_refuse_to_start_and_say_which(tmp_path: Path) -> None:
    processes = start_workers(tmp_path / "run", "--steps", "4", of_second=["--temperature", "0.5"])
    said = collect_output(processes, 300)
    assert all(process.returncode not in (0, None) for process in processes)
    assert any(
        "Worker 1 differs from worker 0 (temperature: 0.1 on worker 0, 0.5 on worker 1)" in text for text in said
    ), said


@pytest.mark.slow
def test_a_refusal_of_one_worker_reaches_the_others(tmp_path: Path) -> None:
    processes = start_workers(
        tmp_path / "run", "--steps", "4", of_second=["--weights", str(tmp_path / "none.weights.h5")]
    )
    said = collect_output(processes, 300)
    assert [process.returncode for process in processes] == [1, 1], said
    assert "Worker 1 refused to start" in said[0] and "none.weights.h5" in said[0], said
    assert "none.weights.h5" in said[1] and not (tmp_path / "run").exists(), said


@pytest.mark.slow
def test_a_worker_alone_says_whom_it_waits_for_and_gives_up(tmp_path: Path) -> None:
    chief, other = start_workers(tmp_path / "run", "--steps", "4", "--worker-timeout", "35")
    other.kill()
    said = collect_output([chief, other], 300)[0]
    assert chief.returncode == 1 and "Waiting for 30 seconds: worker 1 (127.0.0.1:" in said, said
    assert "After 35 seconds, worker 1" in said and "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "what"), [(60, "SHA-256 of the data: "), (80, "training images: 60 on worker 0, 80 on worker 1")]
)
def test_workers_with_other_images_refuse_to_start_and_say_so(tmp_path: Path, count: int, what: str) -> None:
    """Test two data sets with one name but different images, as if one worker's machine had an older copy."""
    for name, images in ("mine", 60), ("theirs", count):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (images + 4, 8, 8, 3), np.uint8)
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "x.npz", x_train=pixels[:-4], x_test=pixels[-4:])
    flags = ["--dataset", "npz:x.npz", "--steps", "4", "--data-dir", str(tmp_path / "mine")]
    processes = start_workers(tmp_path / "run", *flags, of_second=["--data-dir", str(tmp_path / "theirs")])
    said = collect_output(processes, 300)
    assert all(process.returncode not in (0, None) for process in processes)
    assert any("Worker 1 differs from worker 0 (" in text and what in text for text in said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_killed_ends_the_other_and_the_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    flags = ["--steps", "60", "--checkpoint-every", "10"]
    whole = start_workers(tmp_path / "whole", *flags)
    said = collect_output(whole, 600)
    assert [process.returncode for process in whole] == [0, 0], said
    processes = start_workers(tmp_path / "run", *flags)
    wait_for_steps(tmp_path / "run", processes, 24)
    processes[1].kill()
    started = time.monotonic()
    chief = collect_output(processes[:1], 120)[0]
    processes[1].communicate()  # waits until the killed process has ended, and closes its pipe
    print(f"the chief ended {time.monotonic() - started:.1f} s after worker 1 was killed")
    assert processes[0].returncode not in (0, None) and "The run lost worker 1 (127.0.0.1:" in chief, chief
    again = start_workers(tmp_path / "run", *flags)
    said = collect_output(again, 600)
    assert [process.returncode for process in again] == [0, 0], said
    one, other = read_final_state(tmp_path / "whole"), read_final_state(tmp_path / "run")
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []
