"""Reads a data set that TensorFlow Datasets has prepared in a folder. Nothing is downloaded.

The package tensorflow-datasets lists the files of each split and the names of the labels. The files are TFRecord files,
which `tfrecord.py` reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.folder_layout import KINDS
from lowlevel_simclr.data.records import Records
from lowlevel_simclr.data.tfrecord import Keys, Part, read_parts

DEFAULT_FOLDER = Path("~/tensorflow_datasets")  # the default of tensorflow-datasets, if TFDS_DATA_DIR is not set
INFO = "dataset_info.json"  # a file in the folder of each prepared version
_NAME = re.compile(r"(?P<name>[^:]+)(:(?P<version>\d+\.\d+\.\d+))?(:(?P<split>.+))?")


class Prepared(NamedTuple):
    """A prepared data set: the folder of its version, its images and the files that hold them."""

    folder: Path
    files: tuple[str, ...]
    records: Records


def read_prepared(text: str, data_dir: str | None) -> Prepared:
    """Return the images of a prepared data set.

    Args:
        text: NAME or NAME/CONFIG. :VERSION, :SPLIT or :VERSION:SPLIT may follow. A split is written as in
            tensorflow-datasets, such as train[:80%]. Without a split, training uses the split train, and the split test
            or validation is held out.
        data_dir: the folder of the data sets. None: TFDS_DATA_DIR, or DEFAULT_FOLDER.

    Raises:
        DataError: if the package is not installed, if no such data set is prepared, or if its images cannot be read.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise DataError(f"tfds:{text} is not NAME, NAME:SPLIT or NAME:VERSION:SPLIT. Change the name.")
    base = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or DEFAULT_FOLDER).expanduser()
    folder = find_version(base, found["name"], found["version"])
    builder = _open_builder(folder)
    keys, classes = _find_keys(folder, builder.info)
    parts = _list_parts(folder, builder.info, found["split"])
    shown = {part.kind: f"the split {found['split'] or part.kind or 'without a name'}" for part in parts}
    records = read_parts(folder, parts, keys, shown, classes)
    return Prepared(folder, tuple(sorted({part.file for part in parts})), records)


def find_version(base: Path, name: str, version: str | None) -> Path:
    """Return the folder of a version of a prepared data set. If no version is given, take the newest one.

    Args:
        base: the folder of the data sets.
        name: the name of the data set, or name/config, or the path of the folder of a version.
        version: such as "1.0.0", or None.

    Raises:
        DataError: if there is no such folder, or if the data set has several configs and `name` does not choose one.
    """
    start = base / name
    if (start / INFO).is_file():
        return start
    versions = [path for path in _list_folders(start) if (path / INFO).is_file()]
    if not versions:
        configs = [
            path for path in _list_folders(start) if any((each / INFO).is_file() for each in _list_folders(path))
        ]
        if len(configs) > 1:
            names = ", ".join(f"{name}/{path.name}" for path in configs)
            raise DataError(f"tfds:{name} has several configs in {base}. Use one of {names}.")
        versions = [path for config in configs for path in _list_folders(config) if (path / INFO).is_file()]
    chosen = [path for path in versions if version in (None, path.name)]
    if not chosen:
        wanted = f"{name}:{version}" if version else name
        known = f" (it has {', '.join(path.name for path in versions)})" if versions else ""
        raise DataError(
            f"There is no prepared data set {wanted} in {base}{known}. Prepare it with: tfds build {name} --data_dir "
            f"{base}"
        )
    return max(chosen, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])


def _list_folders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted. The list is empty if the folder does not exist."""
    try:
        return sorted(each for each in path.iterdir() if each.is_dir())
    except OSError:
        return []


def _open_builder(folder: Path) -> Any:
    """Return the object with which tensorflow-datasets reads a prepared version.

    Raises:
        DataError: if the package is not installed, or cannot read the folder.
    """
    try:
        import tensorflow_datasets
    except ImportError:
        raise DataError(
            "tfds: needs the package tensorflow-datasets, which is not installed. Install it with: "
            "pip install tensorflow-datasets"
        ) from None
    try:
        builder = tensorflow_datasets.builder_from_directory(str(folder))
    except Exception as error:  # the package raises many types for a damaged folder
        raise DataError(f"tensorflow-datasets cannot read {folder}: {error}. Prepare the data set again.") from error
    form = builder.info.file_format
    if form is not None and form.value != "tfrecord":
        raise DataError(
            f"{folder} holds {form.value} files, and only TFRecord files are read. Convert them with: "
            "tfds convert_format --out_file_format=tfrecord"
        )
    return builder


def _find_keys(folder: Path, info: Any) -> tuple[Keys, Sequence[str] | None]:
    """Return the keys (names) of the features with the images and the labels, and the names of the labels.

    Raises:
        DataError: if the data set has no encoded images.
    """
    kinds = {name: type(feature).__name__ for name, feature in info.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    supervised = [key for key in info.supervised_keys or () if isinstance(key, str)]
    images.sort(key=lambda name: name not in supervised)
    labels.sort(key=lambda name: name not in supervised)
    if not images:
        raise DataError(f"{folder} has the features {', '.join(kinds)}, but none is an image. Use another data set.")
    classes = info.features[labels[0]].names if labels else None
    return Keys(tuple(images[:1]), tuple(labels[:1]), ()), classes


def _list_parts(folder: Path, info: Any, split: str | None) -> list[Part]:
    """Return the records of the given split. If no split is given, return those of all splits.

    Raises:
        DataError: if the split does not exist, or has no files.
    """
    parts = []
    for name in [split] if split else sorted(info.splits):
        kind = "" if split else KINDS.get(name, name)
        try:
            instructions = info.splits[name].file_instructions
        except Exception as error:  # the package raises KeyError, ValueError and its own types
            raise DataError(
                f"{folder} has no split '{name}'. Use one of {', '.join(sorted(info.splits))}, or leave it out."
            ) from error
        for each in instructions:
            count = each.examples_in_shard - each.skip if each.take < 0 else each.take
            parts.append(Part(os.path.basename(each.filename), kind, each.skip, count))
    if not parts:
        raise DataError(f"{folder} has no images in the splits {split or ', '.join(info.splits)}. Use another split.")
    return parts
