"""Tests several processes that train one network together (workers), of which one fails.

The failing worker is stopped, killed, or cannot write because its disk is full. Worker 0 (the chief) writes the files
of the run.
"""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.run import checkpoint
from tests.support.training_workers import read_losses, start_worker, start_workers, wait_for_steps
from tests.support.worker_processes import collect_output

ENDS_WITHIN = 60.0  # seconds within which the other workers must end; TensorFlow needs 10 s to notice a lost worker
LONG = ["--steps", "3000", "--checkpoint-every", "10", "--worker-timeout", str(ENDS_WITHIN)]


KILLED_IN_SAVE = """
import os, signal
replace = os.replace

def rename_and_die(source, target, **options):
    last = str(target).endswith("step-00000008.npz")
    if last and "{moment}" == "before the rename":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **options)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = rename_and_die
"""


def end_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_stopped_for_a_minute_is_named(tmp_path: Path, rank: int) -> None:
    """Stop a worker with SIGSTOP. The other one must end. After a minute the worker continues, and must end too."""
    processes = start_workers(tmp_path / "run", *LONG)
    try:
        wait_for_steps(tmp_path / "run", processes, 20)
        processes[rank].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        other = processes[1 - rank]
        said = other.communicate(timeout=ENDS_WITHIN)[0]
        assert other.returncode == 1 and re.search(rf"The run lost worker {rank} \(127.0.0.1:\d+\)\. Start", said), said
        time.sleep(max(0.0, 60 - (time.monotonic() - stopped)))
        processes[rank].send_signal(signal.SIGCONT)
        said = processes[rank].communicate(timeout=ENDS_WITHIN)[0]
        assert processes[rank].returncode != 0 and f"The run lost worker {1 - rank} (" in said, said
    finally:
        end_all(processes)


@pytest.mark.slow
def test_a_chief_whose_disk_is_full_says_so_and_the_other_worker_names_it(tmp_path: Path) -> None:
    """Imitate a full disk of the chief by a limit on the size of its files (RLIMIT_FSIZE), so that saving fails."""
    out = tmp_path / "run"
    processes = start_workers(out, *LONG)
    try:
        wait_for_steps(out, processes, 20)
        resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        said = [process.communicate(timeout=ENDS_WITHIN)[0] for process in processes]
    finally:
        end_all(processes)
    assert [process.returncode for process in processes] == [1, 1], said
    assert "Cannot save the checkpoint of step" in said[0] and "File too large" in said[0], said
    assert "The run lost worker 0 (127.0.0.1:" in said[1], said
    saved = checkpoint.load_latest(out / "checkpoints")
    assert saved is not None and saved.step >= 10


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the rename", "after the rename"])
def test_a_chief_killed_in_a_checkpoint_loses_at_most_the_last_interval(tmp_path: Path, moment: str) -> None:
    """Kill the chief while it saves step 8, in a run that saves after every 4 steps.

    The same commands must then finish the run.
    """
    out, flags = tmp_path / "run", ["--steps", "12", "--checkpoint-every", "4"]
    processes = start_workers(out, *flags, program=KILLED_IN_SAVE.format(moment=moment))
    said = collect_output(processes, 300)
    assert processes[0].returncode == -signal.SIGKILL and processes[1].returncode == 1, said
    assert "The run lost worker 0 (127.0.0.1:" in said[1], said
    kept = checkpoint.load_latest(out / "checkpoints")
    assert kept is not None and kept.step == (4 if moment == "before the rename" else 8)
    again = start_workers(out, *flags)
    said = collect_output(again, 300)
    assert [process.returncode for process in again] == [0, 0], said
    assert len(read_losses(out)) == 12


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_workers(tmp_path: Path) -> None:
    """Test a run that two workers begin, four workers resume, and one worker finishes.

    Its losses must be nearly those of a run with one worker only. They are not equal to the last bit, because sums over
    several workers have other rounding errors, and these grow from step to step. (At a learning rate of 0.01, they grow
    tenfold in a step.) The difference must be less than a hundredth of the one that twice the learning rate makes. A
    wrong factor in the gradients of several workers would make about that difference.
    """
    common = ["--checkpoint-every", "4", "--optimizer", "sgd", "--steps", "24"]
    flags = [*common, "--learning-rate", "1e-4"]
    for out, rate in (("whole", "1e-4"), ("double", "2e-4")):
        alone = [start_worker(tmp_path / out, {"TF_CONFIG": ""}, [*common, "--learning-rate", rate])]
        said = collect_output(alone, 300)
        assert alone[0].returncode == 0, said
    out = tmp_path / "run"
    for count, steps in ((2, 7), (4, 15)):
        processes = start_workers(out, *flags, count=count)
        wait_for_steps(out, processes, steps)
        end_all(processes)
    last = [start_worker(out, {"TF_CONFIG": ""}, flags)]
    said = collect_output(last, 300)
    assert last[0].returncode == 0 and "resumes at step" in said[0], said
    one, several, other = (read_losses(tmp_path / name) for name in ("whole", "run", "double"))
    assert len(several) == 24
    assert np.abs(several - one).max() < 1e-2 * np.abs(other - one).max(), (several - one, other - one)
