"""Checkpoints: one file each, step-00000123.npz, whole or not there, without pickles.

A file is a NumPy archive: the arrays under their own names and `__meta__`, a JSON text that holds the step,
the name, dtype and shape of every array, and what the caller wants remembered (seed, configuration hash, loss
scale). The archive's checksums guard the bytes of each array, the list guards that every array is there. The
same content gives the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lowlevel_simclr.run.atomic import choose_free_name, write_atomically

META = "__meta__"
NAME = re.compile(r"step-(\d{8,})\.npz")
KINDS = "biufcSU"  # dtype kinds that come back as saved; bfloat16 (kind V) does not, objects need pickles


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the text says why and what to do."""


class DamageError(ValueError):
    """A checkpoint whose bytes are not those that were saved, or are of no use: proven, not merely unreadable."""


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
    as they were. Checkpoints of later steps, which were not used, are renamed and stay.

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
    """Leave the newest `keep` up to `step`, and rename the later ones."""
    files = _list_files(folder)
    earlier = [number for number in sorted(files) if number <= step]
    for number in earlier[:-keep]:
        files[number].unlink()
    for number in files.keys() - set(earlier):
        set_aside(files[number])


def set_aside(path: Path) -> Path:
    """Rename a file that was not used, so that nothing overwrites or prunes it; return its new path.

    Raises:
        OSError: it cannot be renamed.
    """
    place = choose_free_name(path, "unused")
    os.replace(path, place)
    return place


def _list_files(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a folder by their step, damaged or not; none where there is no folder.

    `Path.glob` would take a folder that cannot be listed for an empty one.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [(NAME.fullmatch(entry.name), folder / entry.name) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {int(match[1]): path for match, path in names if match}


# Reading


def load(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises:
        DamageError: the bytes are damaged, or are no checkpoint; the text says how.
        OSError: the file cannot be read.
        MemoryError: there is no room for it.
    """
    data = path.read_bytes()  # apart from the rest: what fails here says nothing about the bytes
    try:
        arrays = _read(data)
        record = json.loads(str(arrays.pop(META)))
        listed = {name: (dtype, tuple(shape)) for name, (dtype, shape) in record["arrays"].items()}
        checkpoint = Checkpoint(record["step"], {name: arrays[name] for name in listed}, record["meta"])
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise whatever they lead to, from EOFError to RuntimeError
        raise DamageError(f"{type(error).__name__}: {error}") from error
    found = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    if found != listed:
        raise DamageError("its arrays are not those that were saved")
    return checkpoint


def _read(data: bytes) -> dict[str, np.ndarray]:
    """Every array of an archive; members are read to their end, where the checksum is compared."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.removesuffix(".npy"): _read_array(archive.read(name)) for name in archive.namelist()}


def _read_array(data: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def find_non_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the first array with a number that is NaN or infinite, or None."""
    for name, array in arrays.items():
        if array.dtype.kind not in "fc":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            total = array.sum()
        # One pass without memory of its own. The sum of finite numbers may overflow, and then every number is asked.
        if not np.isfinite(total) and not np.isfinite(array).all():
            return name
    return None


def load_latest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a folder that is sound, and name each newer one that is not on stderr.

    Only proven damage leads to an older checkpoint: a wrong checksum, a cut file, numbers that are NaN or infinite.

    Returns:
        The checkpoint; None where there is no checkpoint file.

    Raises:
        CheckpointError: a file or the folder cannot be read, which says nothing about its contents; or there are
            checkpoints, and none is sound.
    """
    try:
        files = _list_files(folder)
        for step in sorted(files, reverse=True):
            try:
                return _load_sound(files[step], step)
            except DamageError as error:
                print(f"{files[step]} cannot be used ({error}): trying the one before it", file=sys.stderr)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CheckpointError(
            f"cannot read the checkpoints in {folder}: {reason}; nothing was changed: see that they can be read, and "
            "run the same command again"
        ) from error
    if files:
        raise CheckpointError(
            f"none of the {len(files)} checkpoints in {folder} can be used; nothing was changed: bring back a sound "
            "one, or give --fresh to start over in another folder"
        )
    return None


def _load_sound(path: Path, step: int) -> Checkpoint:
    """Return the checkpoint in a file, of that step and with finite numbers.

    Raises:
        DamageError, OSError, MemoryError: see `load`.
    """
    checkpoint = load(path)
    if checkpoint.step != step:
        raise DamageError(f"it holds step {checkpoint.step}")
    name = find_non_finite(checkpoint.arrays)
    if name is not None:
        raise DamageError(f"'{name}' in it has a number that is NaN or infinite")
    return checkpoint


def set_later_aside(folder: Path, step: int) -> list[Path]:
    """Rename the checkpoints of later steps, which were not used; return their new paths.

    Raises:
        CheckpointError: one cannot be renamed.
    """
    try:
        files = _list_files(folder)
        return [set_aside(files[number]) for number in sorted(files) if number > step]
    except OSError as error:
        raise CheckpointError(
            f"cannot rename a checkpoint that is not used in {folder}: {error.strerror or error}; see that the folder "
            "can be written, and run the same command again"
        ) from error
