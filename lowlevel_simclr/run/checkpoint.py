"""Writes and reads checkpoints. Each is one file, step-00000123.npz, written atomically and without pickles.

A file is a NumPy archive. It holds the arrays under their own names, and a JSON text named `__meta__`. The text holds
the step, a list with the name, dtype and shape of every array, and values of the caller (seed, configuration hash).
The checksums of the archive reveal damaged bytes, and the list reveals a missing array. The same content always gives
the same bytes.
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

from lowlevel_simclr.config.names import OneLineError, show_name
from lowlevel_simclr.run.atomic import set_aside
from lowlevel_simclr.runtime.arrays import read_arrays
from lowlevel_simclr.runtime.files import read_regular_file, write_atomically
from lowlevel_simclr.runtime.memory import find_available_memory

META = "__meta__"
NAME = re.compile(r"step-(\d{8,})\.npz")
KINDS = "biufcSU"  # dtype kinds that load as they were saved; bfloat16 (kind V) does not; objects need pickles


class CheckpointError(OneLineError, RuntimeError):
    """A checkpoint cannot be written or read. The message says why and what to do."""


class DamageError(OneLineError, ValueError):
    """The bytes of a checkpoint were read and are damaged or useless. A file that cannot be read raises OSError."""


class Checkpoint(NamedTuple):
    """The content of a checkpoint, as it was given to `save`.

    Attributes:
        step: number of steps trained.
        arrays: the arrays by name, in the order in which they were saved.
        meta: values of the caller.
    """

    step: int
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


# Writing


def save(folder: Path, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step, and delete all checkpoints but the newest few.

    When the function returns, the whole file is on the disk. If it raises, or if the process is killed, the earlier
    checkpoints are unchanged. If there are checkpoints of later steps, the training did not continue from them. They
    are renamed and not deleted.

    Args:
        folder: the run's checkpoints/. It is created if it does not exist.
        step: number of steps trained, at least 0.
        arrays: the state that training needs to continue, by name. They may have any shape, and hold numbers or text.
        meta: JSON values, such as the seed and the configuration hash.
        keep: number of checkpoints to keep, at least 1.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: if the file cannot be written, for example because the disk is full.
        ValueError: if `step` is negative, `keep` is below 1, a dtype would not load as it was saved, or an array has
            the reserved name `__meta__`.
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
            f"Cannot save the checkpoint of step {step} in {folder}: {error.strerror or error}. Earlier checkpoints "
            "are unchanged. Free some disk space or fix the folder, then run the same command again."
        ) from error
    return path


def _refuse_unsavable(step: int, arrays: Mapping[str, np.ndarray], keep: int) -> None:
    """Check that a checkpoint can hold the arguments of `save`.

    Raises:
        ValueError: see `save`.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step is {step} and keep is {keep}. They must be at least 0 and at least 1.")
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise ValueError(f"Array '{name}' has dtype {array.dtype}, which cannot be saved. Cast it first.")
        if name == META:
            raise ValueError(f"The name '{META}' is reserved. Give the array another name.")


def _write(file: BinaryIO, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write the archive without compression. Weights hardly compress, and saving must not take as long as a step."""
    listed = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    text = np.array(json.dumps({"step": step, "arrays": listed, "meta": dict(meta)}))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {META: text, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Keep the newest `keep` checkpoints up to `step`, and rename the later ones."""
    files = _list_files(folder)
    earlier = [number for number in sorted(files) if number <= step]
    for number in earlier[:-keep]:
        files[number].unlink()
    for number in files.keys() - set(earlier):
        set_aside(files[number], "unused")


def _list_files(folder: Path) -> dict[int, Path]:
    """Return a dict from steps to the checkpoint files in a folder, damaged or not.

    It is empty if the folder is missing.

    `Path.glob` is not used, because it returns nothing for a folder that cannot be listed.

    Raises:
        OSError: if the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [(NAME.fullmatch(entry.name), folder / entry.name) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {int(match[1]): path for match, path in names if match}


# Reading


def has_any(folder: Path) -> bool:
    """Return whether a folder holds a checkpoint, damaged or not.

    Raises:
        CheckpointError: if the folder cannot be listed.
    """
    try:
        return bool(_list_files(folder))
    except OSError as error:
        raise _explain_unreadable(folder, error) from error


def _explain_unreadable(folder: Path, error: OSError | MemoryError) -> CheckpointError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return CheckpointError(
        f"Cannot read the checkpoints in {folder}: {reason}. Nothing was changed. Check their permissions, then "
        "run the same command again."
    )


def load(path: Path) -> Checkpoint:
    """Load the checkpoint in a file.

    Raises:
        DamageError: if the bytes are damaged, or are not a checkpoint. The message says how.
        OSError: if the file cannot be read.
        MemoryError: if there is not enough memory.
    """
    # This is outside of `try`, because a failure to read the file does not mean that its bytes are damaged.
    data = read_regular_file(path, find_available_memory(), "the available memory")
    try:
        arrays = read_arrays(io.BytesIO(data), len(data), "the file")  # arrays are not compressed, see `_write`
        record = json.loads(str(arrays.pop(META)))
        listed = {name: (dtype, tuple(shape)) for name, (dtype, shape) in record["arrays"].items()}
        checkpoint = Checkpoint(record["step"], {name: arrays[name] for name in listed}, record["meta"])
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise many types of error, from EOFError to RuntimeError
        raise DamageError(f"{type(error).__name__}: {error}") from error
    found = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    if found != listed:
        raise DamageError("its arrays differ from its list of saved arrays")
    return checkpoint


def find_non_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the first array with a number that is NaN or infinite, or None."""
    for name, array in arrays.items():
        if array.dtype.kind not in "fc":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            total = array.sum()
        # The sum takes one pass and no extra memory. It can overflow although all numbers are finite. Then every number
        # is checked by itself.
        if not np.isfinite(total) and not np.isfinite(array).all():
            return name
    return None


def load_latest(folder: Path) -> Checkpoint | None:
    """Load the newest sound checkpoint of a folder. For each newer one that is damaged, print a line on stderr.

    Only proven damage leads to an older checkpoint: a wrong checksum, a truncated file, or a number that is NaN or
    infinite. If another process deletes checkpoints while this function runs, it lists the folder again.

    Returns:
        The checkpoint, or None if there is no checkpoint file.

    Raises:
        CheckpointError: if a file or the folder cannot be read (its content may still be sound), or if there are
            checkpoints but none is sound.
    """
    try:
        files, found = _list_files(folder), None
        while True:
            try:
                found = _load_newest(files)
                break
            except FileNotFoundError:
                before, files = files, _list_files(folder)
                if files == before:  # a file that is listed but cannot be opened, such as a broken link
                    raise
    except (OSError, MemoryError) as error:
        raise _explain_unreadable(folder, error) from error
    if files and found is None:
        raise CheckpointError(
            f"None of the {len(files)} checkpoints in {folder} can be used. Nothing was changed. Restore a good one, "
            "or use --fresh to start a new run in another folder."
        )
    return found


def _load_newest(files: Mapping[int, Path]) -> Checkpoint | None:
    """Load the newest sound checkpoint from a dict of steps to files. Return None if no file is sound.

    Raises:
        OSError: see `load`. It is a FileNotFoundError if a file has disappeared since it was listed.
        MemoryError: see `load`.
    """
    for step in sorted(files, reverse=True):
        try:
            return _load_sound(files[step], step)
        except DamageError as error:
            print(
                f"{show_name(files[step])} cannot be used ({error}). Trying the previous checkpoint.", file=sys.stderr
            )
    return None


def _load_sound(path: Path, step: int) -> Checkpoint:
    """Load the checkpoint in a file, and check its step and that its numbers are finite.

    Raises:
        DamageError: if the file holds another step, or a number that is NaN or infinite. See also `load`.
        OSError: see `load`.
        MemoryError: see `load`.
    """
    checkpoint = load(path)
    if checkpoint.step != step:
        raise DamageError(f"it contains step {checkpoint.step}")
    name = find_non_finite(checkpoint.arrays)
    if name is not None:
        raise DamageError(f"its array '{name}' contains NaN or infinite values")
    return checkpoint


def set_later_aside(folder: Path, step: int) -> list[Path]:
    """Rename the checkpoints after `step`, because they were not used.

    Returns:
        The new paths.

    Raises:
        CheckpointError: if a checkpoint cannot be renamed.
    """
    try:
        files = _list_files(folder)
        return [set_aside(files[number], "unused") for number in sorted(files) if number > step]
    except OSError as error:
        raise CheckpointError(
            f"Cannot rename an unused checkpoint in {folder}: {error.strerror or error}. Check the folder's "
            "permissions, then run the same command again."
        ) from error
