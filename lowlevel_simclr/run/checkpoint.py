"""Checkpoints: one file each, step-00000123.npz, whole or not there, without pickles.

A file is a NumPy archive: the arrays under their own names and `__meta__`, a JSON text that holds the step,
the name, dtype and shape of every array, and what the caller wants remembered (seed, configuration hash, loss
scale). The archive's checksums guard the bytes of each array, the list guards that every array is there. The
same content gives the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lowlevel_simclr.run.atomic import write_atomically

META = "__meta__"
NAME = re.compile(r"step-(\d{8,})\.npz")
KINDS = "biufcSU"  # dtype kinds that come back as saved; bfloat16 (kind V) does not, objects need pickles


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written; the text says why and what to do."""


class Checkpoint(NamedTuple):
    """What `save` was given.

    step: steps trained. arrays: by name, in the order they were saved. meta: the caller's own.
    """

    step: int
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


# Writing


def save(folder: Path, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], keep: int) -> Path:
    """Writes the checkpoint of a step and keeps the newest few.

    When it returns, the file is on the disk, whole; when it raises or is killed, the earlier checkpoints are
    as they were. Checkpoints of later steps are removed: they were damaged, or training would not be behind
    them.

    Args:
        folder: the run's checkpoints/, made if it is not there.
        step: steps trained, at least 0.
        arrays: what training needs to go on, by name; any shapes, dtypes of numbers or text.
        meta: JSON values, such as the seed and the configuration hash.
        keep: how many checkpoints stay, at least 1.

    Returns:
        The file.

    Raises:
        CheckpointError: the disk is full, the folder unwritable and so on.
        ValueError: a negative step, keep below 1, a dtype that would not come back, a reserved name.
    """
    _refuse_unsavable(step, arrays, keep)
    path = folder / f"step-{step:08d}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("step-*.npz.tmp"):
            leftover.unlink()
        write_atomically(path, lambda file: _write(file, step, arrays, meta))
        _prune(folder, step, keep)
    except OSError as error:
        raise CheckpointError(
            f"cannot save the checkpoint of step {step} in {folder}: {error.strerror or error}; earlier "
            "checkpoints are as they were: free some space or mend the folder, and run the same command again"
        ) from error
    return path


def _refuse_unsavable(step: int, arrays: Mapping[str, np.ndarray], keep: int) -> None:
    """What no checkpoint can hold.

    Raises:
        ValueError: see `save`.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step is {step} and keep is {keep}: give at least 0 and at least 1")
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise ValueError(f"array '{name}' has dtype {array.dtype}, which does not come back: cast it")
        if name == META:
            raise ValueError(f"an array is named '{META}', as the list of arrays is: give it another name")


def _write(file: BinaryIO, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """The archive, uncompressed: weights do not shrink, and a checkpoint should not cost a step."""
    listed = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    text = np.array(json.dumps({"step": step, "arrays": listed, "meta": dict(meta)}))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {META: text, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Leaves the newest `keep` up to `step`."""
    files = _list_files(folder)
    stay = [number for number in sorted(files) if number <= step][-keep:]
    for number in files.keys() - set(stay):
        files[number].unlink()


def _list_files(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by their step, damaged or not; none where there is no folder."""
    names = [(NAME.fullmatch(path.name), path) for path in folder.glob("step-*.npz")]
    return {int(match[1]): path for match, path in names if match}


# Reading


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        ValueError: the file is damaged, or is no checkpoint; the text says how.
    """
    try:
        arrays = _read(path)
        record = json.loads(str(arrays.pop(META)))
        listed = {name: (dtype, tuple(shape)) for name, (dtype, shape) in record["arrays"].items()}
        checkpoint = Checkpoint(record["step"], {name: arrays[name] for name in listed}, record["meta"])
    except Exception as error:  # damaged bytes raise whatever they lead to, from EOFError to RuntimeError
        raise ValueError(f"{type(error).__name__}: {error}") from error
    found = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    if found != listed:
        raise ValueError("its arrays are not those that were saved")
    return checkpoint


def _read(path: Path) -> dict[str, np.ndarray]:
    """Every array of an archive; members are read to their end, where the checksum is compared."""
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): _read_array(archive.read(name)) for name in archive.namelist()}


def _read_array(data: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a folder that can be read; each newer one that cannot is named on stderr.

    Returns:
        The checkpoint; None where there is none, or none that can be read.
    """
    files = _list_files(folder)
    for step in sorted(files, reverse=True):
        try:
            checkpoint = load(files[step])
            if checkpoint.step != step:
                raise ValueError(f"it holds step {checkpoint.step}")
            return checkpoint
        except ValueError as error:
            print(f"{files[step]} cannot be used ({error}): trying the one before it", file=sys.stderr)
    return None
