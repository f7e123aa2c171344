"""One run is one folder.

    config.json  environment.json  data.json  variables.json  metrics.jsonl  evaluation.json  tensorboard/
    checkpoints/  plots/

`open_run` gives the folder to one process at a time, new or to be resumed, and refuses what it must not touch. Training
writes through `Run`. Other processes read a run, and add evaluations to it, through `run/results.py`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lowlevel_simclr.run.atomic import (
    RunError,
    choose_free_name,
    explain_os_errors,
    lock_file,
    read_json,
    write_atomically,
    write_json,
)
from lowlevel_simclr.run.environment import describe_environment, measure_peak_memory
from lowlevel_simclr.run.results import METRICS, parse_row
from lowlevel_simclr.run.tensorboard import EventFile

Difference = Callable[[dict[str, Any]], list[str]]  # a run's config.json -> what keeps it from being resumed

TRAINING_LOCK = ".training.lock"
PROBED = 2**16  # bytes written to see whether a folder can be written and its disk is not full


def _lock_for_training(folder: Path) -> BinaryIO:
    """The folder's training lock, with this process's id in it for whoever comes second."""
    path = folder / TRAINING_LOCK
    try:
        file = lock_file(path, wait=False)
    except BlockingIOError:
        holder = path.read_text().strip() or "another process"
        raise RunError(
            f"{holder} is training in {folder}: wait until it ends, or choose another folder with --out"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()}\n".encode())
    file.flush()
    return file


# A run, open for training


class Run:
    """A run folder that this process trains in, made by `open_run`. Closing it or the process frees it.

    Attributes:
        folder: the run folder. resumed: whether it held this run before.
        checkpoints, plots, tensorboard: folders in it, made by whoever first writes there.
    """

    def __init__(self, folder: Path, lock: BinaryIO, resumed: bool) -> None:
        """For `open_run`."""
        self.folder, self.resumed = folder, resumed
        self.checkpoints, self.plots, self.tensorboard = (
            folder / name for name in ("checkpoints", "plots", "tensorboard")
        )
        self._lock = lock
        self._events: EventFile | None = None

    def __enter__(self) -> Run:
        """The run itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the run."""
        self.close()

    def close(self) -> None:
        """Ends the events and frees the folder; the folder stays as it is."""
        if self._events:
            self._events.close()
        self._lock.close()

    def write_environment(self, chosen: Mapping[str, Any]) -> None:
        """environment.json: what this session runs on and chose; sessions before it under "earlier".

        Args:
            chosen: what was chosen for this device, such as the precision and whose ops; any JSON values.

        Raises:
            RunError: the file of the session before is no JSON, or it cannot be written.
        """
        path = self.folder / "environment.json"
        earlier: list[Any] = []
        if path.exists():
            last = read_json(path)
            earlier = [*last.pop("earlier", []), last]
        with explain_os_errors("write the environment of", self.folder):
            write_json(path, {**describe_environment(), **chosen, "earlier": earlier})

    def write_peak_memory(self) -> None:
        """Adds to environment.json what this session has used at most so far, see `peak_memory`.

        Raises:
            RunError: the file is no JSON, or it cannot be written.
        """
        path = self.folder / "environment.json"
        with explain_os_errors("write the environment of", self.folder):
            write_json(path, {**read_json(path), "peak_memory_bytes": measure_peak_memory()})

    def write_data(self, record: Mapping[str, Any]) -> None:
        """data.json: counts, classes, and the images that were left out.

        Raises:
            RunError: it cannot be written.
        """
        with explain_os_errors("write the data.json of", self.folder):
            write_json(self.folder / "data.json", record)

    def write_variables(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """variables.json: what is trained, and which of it decays.

        Args:
            rows: one for each variable, as `optimizers.describe_variables` gives them.

        Raises:
            RunError: it cannot be written.
        """
        with explain_os_errors("write the variables.json of", self.folder):
            write_json(self.folder / "variables.json", {"trained": list(rows)})

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows to metrics.jsonl and to TensorBoard; both are with the system when it returns.

        Args:
            rows: one mapping a step: "step" and numbers (Python's, NumPy's or 0-d tensors).

        Raises:
            RunError: the disk is full or the folder gone.
        """
        plain = [{name: _to_json_number(value) for name, value in row.items()} for row in rows]
        if not plain:
            return
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in plain)
        with explain_os_errors("write the metrics of", self.folder):
            with open(self.folder / METRICS, "ab") as file:
                file.write(text.encode())
            if self._events is None:
                self._events = EventFile(self.tensorboard, plain[0]["step"])
            self._events.write(plain)

    def cut_metrics(self, last_step: int) -> None:
        """Drop the rows after `last_step` and a last line that a kill left unfinished; for every resume.

        Where another line is damaged, the file is kept as it is under another name, and stderr says how many rows are
        lost.

        Raises:
            RunError: the disk is full or the folder gone.
        """
        path = self.folder / METRICS
        old = path.read_bytes() if path.exists() else b""
        lines = old.split(b"\n")
        rows = [parse_row(line) for line in lines]
        kept = [line for line, row in zip(lines, rows) if row is not None and row["step"] <= last_step]
        new = b"".join(line + b"\n" for line in kept)
        damaged = sum(row is None and line.strip() != b"" for line, row in zip(lines[:-1], rows))
        if new == old:
            return
        with explain_os_errors("cut the metrics of", self.folder):
            if damaged:
                beside = choose_free_name(path, "damaged")
                write_atomically(beside, lambda file: file.write(old))
                print(
                    f"{damaged} damaged lines of {path} are left out; the file as it was is {beside.name}",
                    file=sys.stderr,
                )
            write_atomically(path, lambda file: file.write(new))

    def set_metrics_aside(self) -> None:
        """Rename the metrics of steps that are about to be made again, where there is no checkpoint to go on from.

        Raises:
            RunError: the folder cannot be written.
        """
        path = self.folder / METRICS
        if not path.exists() or not path.stat().st_size:
            return
        with explain_os_errors("rename the metrics of", self.folder):
            beside = choose_free_name(path, "unused")
            os.replace(path, beside)
        print(f"{self.folder} has no checkpoint: training starts at step 0, and the old metrics are {beside.name}")


def _to_json_number(value: Any) -> Any:
    """A number as JSON has it: Python's own, and None where it is not finite."""
    value = value.numpy() if hasattr(value, "numpy") else value
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Opening


def open_run(out: Path, config: Mapping[str, Any], difference: Difference, *, fresh: bool = False) -> Run:
    """Opens the run folder `out` for training and writes config.json.

    A folder that is not there or empty begins a run. One that holds a run of the same identity resumes it.
    With `fresh`, where `out` holds anything, the first of out-2, out-3 ... that is not there begins a run.

    Args:
        out: the run folder, as asked for.
        config: the resolved configuration, as JSON holds it.
        difference: given the config.json of the folder, one line for each setting that keeps it from being
            resumed; raises ValueError where it is no configuration of this version.
        fresh: never resume.

    Raises:
        RunError: the folder holds another run or things that are no run, another process trains in it, or it
            cannot be written.
    """
    folder = choose_fresh_folder(out) if fresh else out
    with explain_os_errors("make a run in", folder):
        return _open(folder, config, difference)


def refuse_unusable(out: Path, difference: Difference, *, fresh: bool = False) -> None:
    """What `open_run` would refuse, before long work and without leaving anything behind.

    Raises:
        RunError: as `open_run`.
    """
    folder = choose_fresh_folder(out) if fresh else out
    with explain_os_errors("make a run in", folder):
        _refuse_foreign(folder)
        if (folder / "config.json").exists():
            _refuse_other(folder, difference)
        if (folder / TRAINING_LOCK).exists():
            _lock_for_training(folder).close()
        _refuse_unwritable(folder)


def _refuse_unwritable(folder: Path) -> None:
    """Writes a file where the run will lie, or where its folder will be made, and removes it.

    Raises:
        OSError: it cannot be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with tempfile.NamedTemporaryFile(dir=there, prefix=".lowlevel_simclr") as file:
        file.write(bytes(PROBED))
        file.flush()
        os.fsync(file.fileno())


def _open(folder: Path, config: Mapping[str, Any], difference: Difference) -> Run:
    """`open_run` for the folder itself, with the errors of the file system as they come."""
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock_for_training(folder)
    try:
        resumed = (folder / "config.json").exists()
        if resumed:
            _refuse_other(folder, difference)
        write_json(folder / "config.json", config)
    except BaseException:
        lock.close()
        raise
    return Run(folder, lock, resumed)


def choose_fresh_folder(out: Path) -> Path:
    """The first of out, out-2, out-3 ... that is not there; an empty `out` will do."""
    if out.is_dir() and not any(out.iterdir()):
        return out
    name = out.resolve() if out.name in ("", "..") else out
    folder, number = out, 1
    while folder.exists():
        number += 1
        folder = Path(f"{name}-{number}")
    return folder


def _refuse_foreign(folder: Path) -> None:
    """Leaves alone whatever is not a run of ours.

    Raises:
        RunError: the folder is a file, or holds things and no config.json.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder with --out")
    # What a preview leaves, and a run that was killed before its config.json was there.
    ours = {"plots", TRAINING_LOCK, "config.json.tmp"}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others and not (folder / "config.json").exists():
        raise RunError(
            f"{folder} is not empty and holds no run (it holds {others[0]}): choose another folder with --out"
        )


def _refuse_other(folder: Path, difference: Difference) -> None:
    """Lets only a run of the same identity be resumed.

    Raises:
        RunError: with the settings that differ.
    """
    try:
        lines = difference(read_json(folder / "config.json"))
    except ValueError as error:
        raise RunError(
            f"{folder} holds no run that this version can resume ({error}): start over with --fresh, or "
            "choose another folder with --out"
        ) from None
    if lines:
        changes = "".join(f"\n  {line}" for line in lines)
        raise RunError(
            f"{folder} holds a run of another configuration:{changes}\n"
            f"Give its values to resume it, --fresh to start in {choose_fresh_folder(folder)}, or another folder "
            "with --out."
        )
