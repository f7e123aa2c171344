"""Reads the files of a run folder for a report. It needs no TensorFlow."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.report.kept import read_kept
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkup import Checkup, read_checkup
from lowlevel_simclr.run.results import Row, read_config, read_data, read_evaluation, read_metrics, read_results

PICTURES = ("views", "embedding", "neighbours")  # pictures of plots/ that a report embeds
LARGEST_PICTURE = 2**22  # bytes; a larger file is not a picture that a run drew
Read = TypeVar("Read")


class Facts(NamedTuple):
    """The files of a run.

    Attributes:
        name: the name of the folder, as one printable line.
        folder: the run folder.
        config: config.json.
        settings: every setting of config.json by its name.
        environment: environment.json, or {}.
        data: data.json, or {}.
        metrics: the rows of metrics.jsonl.
        evaluation: evaluation.json, or {}.
        checkup: the measures of h and z during training and the conclusions from them, or None if they cannot be read.
        kept: plots/report.json, or {}. See `kept.py`.
        pictures: a dict from names to the contents of PNG files in plots/.
        problems: a sentence for each file that could not be read.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    metrics: list[Row]
    evaluation: dict[str, Any]
    checkup: Checkup | None
    kept: dict[str, Any]
    pictures: dict[str, bytes]
    problems: list[str]


def read_facts(folder: Path) -> Facts:
    """Read the files of a run. A file that is missing or damaged is left out.

    Raises:
        RunError: if the folder holds no run, or its config.json is damaged.
    """
    problems: list[str] = []

    def read(function: Callable[[Path], Read | None], default: Read, path: Path = folder) -> Read:
        try:
            return function(path) or default
        except (RunError, OSError) as error:
            problems.append(str(error))
            return default

    config = read_config(folder)
    sections = [section for section in config.values() if isinstance(section, dict)]
    found = {name: read(_read_picture, b"", folder / "plots" / f"{name}.png") for name in PICTURES}
    return Facts(
        name=show_name(folder.resolve().name),
        folder=folder,
        config=config,
        settings={name: value for section in sections for name, value in section.items()},
        environment=read(read_results, {}, folder / "environment.json"),
        data=read(read_data, {}),
        metrics=read(read_metrics, []),
        evaluation=read(read_evaluation, {}),
        checkup=read(read_checkup, None),
        kept=read(read_kept, {}),
        pictures={name: picture for name, picture in found.items() if picture},
        problems=problems,
    )


def _read_picture(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST_PICTURE else None


def measure_rate(facts: Facts) -> float | None:
    """Return the median speed of a run in pairs per second, without the first call, which compiles the step."""
    rates = [row["pairs_per_second"] for row in facts.metrics if row.get("pairs_per_second")]
    later = [rate for rate in rates if rate != rates[0]]
    return statistics.median(later or rates) if rates else None


def measure_seconds(facts: Facts) -> float | None:
    """Return the time of all steps in seconds, or None if it is not known."""
    batch = facts.settings.get("batch_size")
    rates = [row["pairs_per_second"] for row in facts.metrics if row.get("pairs_per_second")]
    return sum(batch / rate for rate in rates) if rates and isinstance(batch, int) else None


def find_steps(facts: Facts) -> tuple[int, int | None]:
    """Return the number of steps that were trained, and the number of steps of the whole run, if it is known."""
    trained = facts.metrics[-1]["step"] if facts.metrics else 0
    planned = facts.environment.get("steps")
    return trained, planned if isinstance(planned, int) else None
