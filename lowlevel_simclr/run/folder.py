"""The folder of a run.

    config.json  environment.json  data.json  variables.json  metrics.jsonl  checkup.json  evaluation.json
    tensorboard/  checkpoints/  plots/

`open_run` gives the folder of a new or resumed run to one process at a time. It refuses a folder that it must not
touch. Training writes through `Run`. Other processes read a run, and add evaluations to it, through `run/results.py`.
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

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.run.atomic import (
    RunError,
    choose_free_name,
    explain_os_errors,
    read_json,
    set_aside,
    write_json,
)
from lowlevel_simclr.run.environment import describe_environment, measure_peak_memory
from lowlevel_simclr.run.results import METRICS, parse_row, read_or_set_aside
from lowlevel_simclr.run.tensorboard import EventFile
from lowlevel_simclr.runtime.files import LARGEST_TEXT, lock_file, read_regular_file, write_atomically

Difference = Callable[[dict[str, Any]], list[str]]  # a run's config.json -> the differences that prevent resuming it

TRAINING_LOCK = ".training.lock"
PROBED = 2**16  # bytes that are written to test that the folder can be written and its disk is not full


def _lock_for_training(folder: Path) -> BinaryIO:
    """Lock the folder for training. The lock file names this process, so that a second process can report it."""
    path = folder / TRAINING_LOCK
    try:
        file = lock_file(path, wait=False)
    except BlockingIOError:
        holder = path.read_text().strip() or "another process"
        raise RunError(
            f"{holder.capitalize()} is already training in {folder}. Wait until it ends, or choose another folder "
            "with --out."
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()}\n".encode())
    file.flush()
    return file


# A run, open for training


class Run:
    """A run folder in which this process trains.

    `open_run` creates this object. The folder is unlocked when the run is closed or the process ends.

    Attributes:
        folder: the run folder.
        resumed: whether the folder already held this run.
        checkpoints: a subfolder. The first write to it creates it.
        plots: a subfolder. The first write to it creates it.
        tensorboard: a subfolder. The first write to it creates it.
    """

    def __init__(self, folder: Path, lock: BinaryIO, resumed: bool, config: Mapping[str, Any]) -> None:
        """Take over a locked folder. Only `open_run` calls this."""
        self.folder, self.resumed = folder, resumed
        self.checkpoints, self.plots, self.tensorboard = (
            folder / name for name in ("checkpoints", "plots", "tensorboard")
        )
        self._lock, self._config = lock, config
        self._events: EventFile | None = None

    def __enter__(self) -> Run:
        """Return the run."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the run."""
        self.close()

    def close(self) -> None:
        """Close the TensorBoard file and unlock the folder. No file is removed."""
        if self._events:
            self._events.close()
        self._lock.close()

    def write_environment(self, chosen: Mapping[str, Any]) -> None:
        """Write environment.json: the environment of this session, and the values that were chosen for it.

        Earlier sessions are kept under "earlier".

        Args:
            chosen: the values that were chosen for this device, such as the precision and the ops. They can be any JSON
                values.

        Raises:
            RunError: if the file cannot be written. If the file of an earlier session is damaged, it is renamed.
        """
        path = self.folder / "environment.json"
        with explain_os_errors("write the environment of", self.folder):
            last = read_or_set_aside(path)
            before = last.pop("earlier", [])
            earlier = [*(before if isinstance(before, list) else []), *([last] if last else [])]
            write_json(path, {**describe_environment(), **chosen, "earlier": earlier})

    def write_peak_memory(self) -> None:
        """Add the peak memory of this session so far to environment.json, see `measure_peak_memory`.

        Raises:
            RunError: if the file cannot be written.
        """
        path = self.folder / "environment.json"
        with explain_os_errors("write the environment of", self.folder):
            write_json(path, {**read_or_set_aside(path), "peak_memory_bytes": measure_peak_memory()})

    def write_steps(self, steps: int) -> None:
        """Write the number of steps of the run into environment.json.

        With --budget, this number changes during training.

        Raises:
            RunError: if the file cannot be written.
        """
        path = self.folder / "environment.json"
        with explain_os_errors("write the environment of", self.folder):
            write_json(path, {**read_or_set_aside(path), "steps": steps})

    def write_data(self, record: Mapping[str, Any]) -> None:
        """Write data.json: counts, classes, and the images that were left out.

        Raises:
            RunError: if the file cannot be written.
        """
        with explain_os_errors("write the data.json of", self.folder):
            write_json(self.folder / "data.json", record)

    def write_variables(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write variables.json: the trained variables, and which of them have weight decay.

        Args:
            rows: one mapping per variable, from `optimizers.describe_variables`.

        Raises:
            RunError: if the file cannot be written.
        """
        with explain_os_errors("write the variables.json of", self.folder):
            write_json(self.folder / "variables.json", {"trained": list(rows)})

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to metrics.jsonl and to TensorBoard.

        When the method returns, the operating system has received the rows of both files.

        Args:
            rows: one mapping per step, with "step" and numbers (Python's, NumPy's or 0-d tensors). NaN and infinite
                numbers become null.

        Raises:
            RunError: if the disk is full or the folder is gone.
        """
        plain = [{name: _to_json_number(value) for name, value in row.items()} for row in rows]
        if not plain:
            return
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in plain)
        with explain_os_errors("write the metrics of", self.folder):
            with open(self.folder / METRICS, "ab") as file:
                file.write(text.encode())
            self._open_events(plain[0]["step"]).write(plain)

    def _open_events(self, first_step: int) -> EventFile:
        """Return TensorBoard's file of this session. The first call creates it, and writes the settings into it."""
        if self._events is None:
            self._events = EventFile(self.tensorboard, first_step)
            self._events.write_settings(first_step, self._config)
        return self._events

    def log_picture(self, path: Path, step: int) -> None:
        """Show a picture in TensorBoard, under the name of its file. If the file does not exist, nothing is done.

        Args:
            path: a PNG file.
            step: the step to which the picture belongs.

        Raises:
            RunError: if the picture cannot be read, or TensorBoard's file cannot be written.
        """
        if not path.is_file():
            return
        with explain_os_errors("write the pictures of", self.folder):
            # If this call creates TensorBoard's file, TensorBoard drops the rows of earlier sessions from the given
            # step on. With `step + 1` it keeps the row of this step.
            self._open_events(step + 1).write_picture(path.stem, step, path.read_bytes())

    def cut_metrics(self, last_step: int) -> None:
        """Remove the rows after `last_step`, and an unfinished last line, which remains if the process was killed.

        Every resumed run calls this method. If a line before the last one is damaged, the old file is kept under
        another name, and a message on stderr says how many lines are lost.

        Raises:
            RunError: if the disk is full or the folder is gone.
        """
        path = self.folder / METRICS
        with explain_os_errors("read the metrics of", self.folder):
            old = read_regular_file(path, LARGEST_TEXT, "LARGEST_TEXT") if path.exists() else b""
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
                    f"Removed {damaged} damaged lines from {show_name(path)}. The old file is kept as "
                    f"{show_name(beside.name)}.",
                    file=sys.stderr,
                )
            write_atomically(path, lambda file: file.write(new))

    def set_metrics_aside(self) -> None:
        """Rename the metrics of a run without a checkpoint, because all of its steps will be trained again.

        Raises:
            RunError: if the folder cannot be written.
        """
        path = self.folder / METRICS
        if not path.exists() or not path.stat().st_size:
            return
        with explain_os_errors("rename the metrics of", self.folder):
            beside = set_aside(path, "unused")
        print(
            f"{show_name(self.folder)} has no checkpoint. Training starts at step 0. The old metrics are kept as "
            f"{beside.name}."
        )


def _to_json_number(value: Any) -> Any:
    """Return a number as Python's own type, or None if it is NaN or infinite."""
    value = value.numpy() if hasattr(value, "numpy") else value
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Opening


def open_run(out: Path, config: Mapping[str, Any], difference: Difference, *, fresh: bool = False) -> Run:
    """Open the run folder `out` for training, and write config.json.

    If the folder is missing or empty, a new run begins. If it holds a run that these settings can continue (see
    `difference`), that run is resumed. With `fresh`, a folder that is not empty is left unchanged. Then the run begins
    in the first of out-2, out-3, ... that does not exist.

    Args:
        out: the run folder that was asked for.
        config: the resolved configuration as JSON values.
        difference: function that takes the folder's config.json and returns a line for each setting that prevents
            resuming. It raises ValueError if that file is not a configuration of this version.
        fresh: whether to begin a new run and never resume.

    Raises:
        RunError: if the folder holds another run or other files, another process trains in it, or it cannot be written.
    """
    folder = choose_fresh_folder(out) if fresh else out
    with explain_os_errors("make a run in", folder):
        return _open(folder, config, difference)


def refuse_unusable(out: Path, difference: Difference, *, fresh: bool = False) -> None:
    """Check that `open_run` would accept the folder. Call this function before long work. It leaves no file behind.

    Raises:
        RunError: see `open_run`.
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
    """Write and remove a file in the run folder, or in the nearest parent that exists.

    Raises:
        OSError: if the file cannot be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with tempfile.NamedTemporaryFile(dir=there, prefix=".lowlevel_simclr") as file:
        file.write(bytes(PROBED))
        file.flush()
        os.fsync(file.fileno())


def _open(folder: Path, config: Mapping[str, Any], difference: Difference) -> Run:
    """Open the run in exactly this folder. File system errors are raised as OSError."""
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
    return Run(folder, lock, resumed, config)


def choose_fresh_folder(out: Path) -> Path:
    """Return the first of out, out-2, out-3, ... that does not exist. An empty `out` is accepted too."""
    if out.is_dir() and not any(out.iterdir()):
        return out
    name = out.resolve() if out.name in ("", "..") else out
    folder, number = out, 1
    while folder.exists():
        number += 1
        folder = Path(f"{name}-{number}")
    return folder


def _refuse_foreign(folder: Path) -> None:
    """Check that the folder holds a run or is empty, so that training touches no other files.

    Raises:
        RunError: if the folder is a file, or if it holds other things and no config.json.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file. Choose a folder with --out.")
    # A preview leaves plots. A run that was killed early leaves its lock and an unfinished config.json.
    ours = {"plots", TRAINING_LOCK, "config.json.tmp"}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others and not (folder / "config.json").exists():
        raise RunError(
            f"{folder} is not empty and is not a run folder (it contains {others[0]}). Choose another folder with "
            "--out."
        )


def _refuse_other(folder: Path, difference: Difference) -> None:
    """Check that the run in the folder can be resumed with the settings of this run.

    Raises:
        RunError: if settings differ (the message lists them), or if this version cannot resume the run.
    """
    try:
        lines = difference(read_json(folder / "config.json"))
    except ValueError as error:
        raise RunError(
            f"This version cannot resume the run in {folder} ({error}). Start a new run with --fresh, or choose "
            "another folder with --out."
        ) from None
    if lines:
        raise RunError(
            f"{folder} contains a run with other settings:",
            *(f"  {line}" for line in lines),
            f"Use its values to resume it, --fresh to start a new run in {choose_fresh_folder(folder)}, or --out to "
            "choose another folder.",
        )
