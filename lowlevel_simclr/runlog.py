"""One run is one folder.

    config.json  environment.json  data.json  variables.json  metrics.jsonl  evaluation.json  tensorboard/
    checkpoints/  plots/

`open_run` gives the folder to one process at a time, new or to be resumed, and refuses what it must not
touch. `Run` is what training writes through; the functions at the end read a run and add evaluations to it,
from any process.

TensorFlow is imported only where devices are listed and TensorBoard events are written, so that a folder that
is refused is refused at once. Events are TensorFlow's own records; the tensorboard package only shows them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

Row = dict[str, Any]  # one step: "step" (int) and numbers; a number that is not finite is null
Difference = Callable[[dict[str, Any]], list[str]]  # a run's config.json -> what keeps it from being resumed

TRAINING_LOCK = ".training.lock"
EVALUATION_LOCK = ".evaluation.lock"
CPU_FLAGS = frozenset("avx avx2 fma f16c avx512f avx512_bf16 amx_tile amx_bf16 asimd sve bf16".split())
ENVIRONMENT_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "XLA_FLAGS")  # and every TF_...
PROBED = 2**16  # bytes written to see whether a folder can be written and its disk is not full
START = 1  # SessionLog.START: TensorBoard drops what an earlier session logged at this step and later


class RunError(RuntimeError):
    """A run folder that cannot be used; the text says why and what to do."""


# Files that are whole or not there


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that `path` holds the old bytes or all of the new ones, also after a kill.

    Args:
        path: the file; its folder must exist. `path` + ".tmp" is written first, synced, and renamed.
        write: writes the content into the open file.

    Raises:
        OSError: the disk is full, the folder unwritable and so on; the old file is untouched and nothing else
            is left.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        RunError: for a file that holds none.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is no JSON ({error}): mend it, or choose another folder") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} holds no JSON object and so is not of a run: choose another folder")
    return value


# One process at a time


def _lock(path: Path, wait: bool) -> BinaryIO:
    """An exclusive lock on a file, held until the returned file is closed or the process ends or is killed.

    Raises:
        BlockingIOError: another process holds it and `wait` is false.
    """
    file = open(path, "a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


def _lock_for_training(folder: Path) -> BinaryIO:
    """The folder's training lock, with this process's id in it for whoever comes second."""
    path = folder / TRAINING_LOCK
    try:
        file = _lock(path, wait=False)
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
        self._events: _Events | None = None

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
            last = _read_json(path)
            earlier = [*last.pop("earlier", []), last]
        with _explained("write the environment of", self.folder):
            _write_json(path, {**environment(), **chosen, "earlier": earlier})

    def write_peak_memory(self) -> None:
        """Adds to environment.json what this session has used at most so far, see `peak_memory`.

        Raises:
            RunError: the file is no JSON, or it cannot be written.
        """
        path = self.folder / "environment.json"
        with _explained("write the environment of", self.folder):
            _write_json(path, {**_read_json(path), "peak_memory_bytes": peak_memory()})

    def write_data(self, record: Mapping[str, Any]) -> None:
        """data.json: counts, classes, and the images that were left out.

        Raises:
            RunError: it cannot be written.
        """
        with _explained("write the data.json of", self.folder):
            _write_json(self.folder / "data.json", record)

    def write_variables(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """variables.json: what is trained, and which of it decays.

        Args:
            rows: one for each variable, as `optimizer.describe` gives them.

        Raises:
            RunError: it cannot be written.
        """
        with _explained("write the variables.json of", self.folder):
            _write_json(self.folder / "variables.json", {"trained": list(rows)})

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows to metrics.jsonl and to TensorBoard; both are with the system when it returns.

        Args:
            rows: one mapping a step: "step" and numbers (Python's, NumPy's or 0-d tensors).

        Raises:
            RunError: the disk is full or the folder gone.
        """
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
        if not plain:
            return
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in plain)
        with _explained("write the metrics of", self.folder):
            with open(self.folder / "metrics.jsonl", "ab") as file:
                file.write(text.encode())
            if self._events is None:
                self._events = _Events(self.tensorboard, plain[0]["step"])
            self._events.write(plain)

    def cut_metrics(self, last_step: int) -> None:
        """Drops the rows after `last_step` and any line that a kill left unfinished; for every resume.

        Raises:
            RunError: the disk is full or the folder gone.
        """
        path = self.folder / "metrics.jsonl"
        old = path.read_bytes() if path.exists() else b""
        rows = ((line, _row(line)) for line in old.split(b"\n"))
        new = b"".join(line + b"\n" for line, row in rows if row is not None and row["step"] <= last_step)
        if new != old:
            with _explained("cut the metrics of", self.folder):
                write_atomically(path, lambda file: file.write(new))


def _plain(value: Any) -> Any:
    """A number as JSON has it: Python's own, and None where it is not finite."""
    value = value.numpy() if hasattr(value, "numpy") else value
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(line: bytes) -> Row | None:
    """The row that a line of metrics.jsonl holds, None for a line that a kill left unfinished."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


@contextlib.contextmanager
def _explained(what: str, folder: Path) -> Iterator[None]:
    """Turns an error of the file system into a `RunError` that says what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space and run the same command again"
        else:
            remedy = "see that it can be written, or choose another folder with --out"
        raise RunError(f"cannot {what} {folder}: {error.strerror or error}; {remedy}") from error


class _Events:
    """TensorBoard scalars of one session, as TensorFlow's record files hold them."""

    def __init__(self, folder: Path, first_step: int) -> None:
        import tensorflow as tf  # here, so that looking into a folder needs no TensorFlow

        folder.mkdir(exist_ok=True)
        self._tf = tf
        micro = time.time_ns() // 1000
        # TensorBoard reads the files of a folder in the order of their names: the time leads, in fixed width.
        name = f"events.out.tfevents.{micro // 10**6:010d}.{micro % 10**6:06d}.{os.getpid()}"
        with self._os_errors():
            self._file = tf.io.TFRecordWriter(str(folder / name))
            self._put(file_version="brain.Event:2")
            # Without it a chart would show the rows that a resume cut twice.
            self._put(step=first_step, session_log=tf.compat.v1.SessionLog(status=START))

    @contextlib.contextmanager
    def _os_errors(self) -> Iterator[None]:
        """TensorFlow has errors of its own for a full disk and the like."""
        try:
            yield
        except self._tf.errors.OpError as error:
            raise OSError(error.message) from error

    def _put(self, **event: Any) -> None:
        record = self._tf.compat.v1.Event(wall_time=time.time(), **event)
        self._file.write(record.SerializeToString())

    def write(self, rows: Iterable[Row]) -> None:
        """One event a row: every finite number but the step under its own name."""
        summary = self._tf.compat.v1.Summary
        with self._os_errors():
            for row in rows:
                numbers = {name: value for name, value in row.items() if name != "step" and value is not None}
                values = [summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
                self._put(step=row["step"], summary=summary(value=values))
            self._file.flush()

    def close(self) -> None:
        self._file.close()


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
    folder = fresh_folder(out) if fresh else out
    with _explained("make a run in", folder):
        return _open(folder, config, difference)


def refuse_early(out: Path, difference: Difference, *, fresh: bool = False) -> None:
    """What `open_run` would refuse, before long work and without leaving anything behind.

    Raises:
        RunError: as `open_run`.
    """
    folder = fresh_folder(out) if fresh else out
    with _explained("make a run in", folder):
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
        _write_json(folder / "config.json", config)
    except BaseException:
        lock.close()
        raise
    return Run(folder, lock, resumed)


def fresh_folder(out: Path) -> Path:
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
        lines = difference(_read_json(folder / "config.json"))
    except ValueError as error:
        raise RunError(
            f"{folder} holds no run that this version can resume ({error}): start over with --fresh, or "
            "choose another folder with --out"
        ) from None
    if lines:
        changes = "".join(f"\n  {line}" for line in lines)
        raise RunError(
            f"{folder} holds a run of another configuration:{changes}\n"
            f"Give its values to resume it, --fresh to start in {fresh_folder(folder)}, or another folder "
            "with --out."
        )


# What a run ran on


def environment() -> dict[str, Any]:
    """Versions, machine and command line of this process, for environment.json; what is unknown is null."""
    import tensorflow as tf  # here, so that looking into a folder needs no TensorFlow

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.orig_argv),
        "lowlevel_simclr": _version("lowlevel_simclr"),
        "git": _git_commit(Path(__file__)),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": _version("keras"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": _cpu(Path("/proc/cpuinfo")),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "variables": {name: os.environ[name] for name in sorted(os.environ) if _matters(name)},
    }


def peak_memory() -> dict[str, int | None]:
    """Bytes that this process has held at most until now.

    Returns:
        "host": resident. "gpu": by TensorFlow's allocator, of the GPU with the most; None where there is none.
    """
    import tensorflow as tf  # here, so that looking into a folder needs no TensorFlow

    gpus = [f"GPU:{place}" for place in range(len(tf.config.list_logical_devices("GPU")))]
    return {
        "host": peak_resident(),
        "gpu": max((int(tf.config.experimental.get_memory_info(gpu)["peak"]) for gpu in gpus), default=None),
    }


def peak_resident(status: Path = Path("/proc/self/status")) -> int:
    """Resident bytes of this process at their most.

    By what Linux says of it in `status`. Where that is not told by ru_maxrss, which starts at the size of the process
    that started this one.
    """
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _matters(variable: str) -> bool:
    return variable in ENVIRONMENT_VARIABLES or variable.startswith("TF_")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers in a folder; None where there is no git, no repository, or no such thing in it."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _git_commit(file: Path) -> str | None:
    """The commit of the repository that tracks `file`; "+changes" behind it where tracked files differ."""
    # An installed copy may lie inside somebody else's repository, which does not track it.
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if commit and changed else commit


def _cpu(cpuinfo: Path) -> dict[str, Any]:
    """Model, usable cores and the instruction sets that matter here, as Linux lists them."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    present = facts.get("flags", facts.get("Features", "")).split()
    return {
        "model": facts.get("model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": sorted(CPU_FLAGS.intersection(present)),
    }


# A run, from any process


def read_data(folder: Path) -> dict[str, Any] | None:
    """What data.json of a run holds; None where there is none.

    Raises:
        RunError: the file is no JSON.
    """
    path = folder / "data.json"
    return _read_json(path) if path.is_file() else None


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run.

    Raises:
        RunError: the folder holds no run.
    """
    if not (folder / "config.json").is_file():
        raise RunError(f"{folder} holds no run (no config.json): give the folder that training wrote")
    return _read_json(folder / "config.json")


def read_metrics(folder: Path) -> list[Row]:
    """The rows of metrics.jsonl, one a step, without an unfinished last line; none where there is no file.

    Raises:
        RunError: a line that is not the last is no row.
    """
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif any(lines[number:]):
            raise RunError(f"line {number} of {path} is no row of a step: mend or remove that line")
    return rows


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The evaluation.json of a run, empty where there is none.

    Raises:
        RunError: it is not JSON.
    """
    return read_results(folder / "evaluation.json")


def merge_evaluation(folder: Path, step: int, results: Mapping[str, Any]) -> dict[str, Any]:
    """Adds results about the encoder of a step to evaluation.json, see `merge_results`.

    Those of an earlier step, or of one that the file does not name, make room for them first.

    Args:
        folder: the run folder.
        step: how many steps the encoder was trained.
        results: keys of evaluation.json, such as {"schema": 1, "knn": {"20": 0.93}}; accuracies in [0, 1].

    Returns:
        The whole of evaluation.json, all of it about one encoder.

    Raises:
        RunError: evaluation.json is not JSON, cannot be written, or is about a later step.
        ValueError: a result is not finite.
    """
    path = folder / "evaluation.json"

    def of_this_step(old: Mapping[str, Any]) -> Mapping[str, Any]:
        if old.get("step", step) > step:
            raise RunError(
                f"{path} is about step {old['step']} by now and these results are about step {step}, so it stays as it "
                "is: evaluate again, or remove it first"
            )
        return old if old.get("step") == step else {}

    return merge_results(path, {**results, "step": step}, kept=of_this_step)


def read_results(path: Path) -> dict[str, Any]:
    """A file of a run that several processes add to, empty where there is none.

    Raises:
        RunError: it is not JSON.
    """
    return _read_json(path) if path.exists() else {}


def merge_results(
    path: Path,
    results: Mapping[str, Any],
    kept: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda old: old,
) -> dict[str, Any]:
    """Adds results to a file: objects are merged key by key, anything else is replaced.

    Several processes may add to it at a time.

    Args:
        path: a file in the run folder.
        results: numbers, texts and objects of them.
        kept: what the file holds -> what of it is kept.

    Returns:
        All that the file holds now.

    Raises:
        RunError: it is not JSON, or cannot be written; and what `kept` raises.
        ValueError: a number is not finite.
    """
    with _explained("write the results of", path.parent), _lock(path.parent / EVALUATION_LOCK, wait=True):
        merged = _merged(kept(read_results(path)), results)
        _write_json(path, merged)
    return merged


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `old`, objects key by key."""
    both = dict(old)
    for name, value in new.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(name), Mapping)
        both[name] = _merged(both[name], value) if nested else value
    return both
