"""Measures how much the memory of a training process grows during many steps."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.faults.trials import SMALL, Ended, run_trial

LONGEST = 3600.0  # seconds after which the training is stopped


def watch_growth(steps: int, folder: Path) -> tuple[Ended, int]:
    """Train for many steps, and measure the memory 50 times a second.

    Args:
        steps: the number of steps.
        folder: the working folder.

    Returns:
        How the training ended, and the growth of its memory in bytes (see `compute_growth`).
    """
    flags = [*SMALL, "--out", "run"]
    flags[flags.index("--steps") + 1] = str(steps)
    flags[flags.index("--checkpoint-every") + 1] = str(steps // 20)
    metrics = folder / "run" / "metrics.jsonl"
    samples: list[tuple[int, int]] = []  # pairs: size of metrics.jsonl, to which each step adds; memory

    def sample(child: int) -> None:
        if metrics.exists():
            samples.append((metrics.stat().st_size, read_resident(child)))

    ended = run_trial("train", flags, folder, sample=sample, limit=LONGEST)
    return ended, compute_growth(samples)


def compute_growth(samples: Sequence[tuple[int, int]]) -> int:
    """Return how much the memory of a training grew in its second half, in bytes.

    Args:
        samples: pairs of the progress, in any unit, and the resident memory in bytes.

    Returns:
        The median memory in the last tenth of the training, minus the median memory in the tenth after the middle.
        Medians are used, because a single sample depends on what the training saves at that moment.
    """
    end = max(progress for progress, _ in samples)

    def find_median(first: float, last: float) -> float:
        return statistics.median(size for progress, size in samples if first * end <= progress <= last * end)

    return round(find_median(0.9, 0.999) - find_median(0.5, 0.6))


def read_resident(process: int) -> int:
    """Return the resident memory of a child process in bytes, or 0 if it has ended and is a zombie."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
