"""Encoded images in every form that `--dataset` names: a folder, a list, a pattern, TFRecord, Parquet, or TFDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.data import parquet, path_forms, shards, tfds, tfrecord
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.encoded import Encoded, Files
from lowlevel_simclr.data.folder_layout import TwoReadings
from lowlevel_simclr.data.image_folder import Listing, arrange_files, list_images
from lowlevel_simclr.data.image_walk import find_image_files
from lowlevel_simclr.data.records import Records, arrange_records, number_labels
from lowlevel_simclr.data.table_layout import NO_TABLES, Tables, find_table_classes


class Request(NamedTuple):
    """The data set to list, and how to find its splits and labels.

    Attributes:
        dataset: the form and what follows it, such as folder:PATH.
        data_dir: the folder in which a relative path starts. For tfds:, the folder of the data sets.
        seed: chooses the images to hold out if no split is held out.
        splits: "auto", "named" or "none", see `folder_layout.find_layout` and `shards.find_shards`.
        own: the run folder, whose pictures are not data.
        labels: a CSV file of paths and labels, or None.
        split: a CSV file of paths and splits, or None.
    """

    dataset: str
    data_dir: str | None = None
    seed: int = 0
    splits: str = "auto"
    own: Path | None = None
    labels: str | None = None
    split: str | None = None

    @property
    def base(self) -> Path:
        """The folder in which relative paths start."""
        return Path(self.data_dir or "").expanduser()

    @property
    def text(self) -> str:
        """The text that follows the form, such as PATH in folder:PATH."""
        return self.dataset.partition(":")[2]

    @property
    def path(self) -> Path:
        """The path that follows the form."""
        return self.base / Path(self.text).expanduser()

    @property
    def tables(self) -> Tables:
        """The files of labels and splits."""
        labels, split = (
            None if file is None else self.base / Path(file).expanduser() for file in (self.labels, self.split)
        )
        return Tables(labels, split)


class Pictures(NamedTuple):
    """Encoded images in their natural order.

    Attributes:
        source: the images.
        left_out: the files that were left out: from name to reason.
        labels: the name of the class of each image, or an empty text.
        no_labels: why no image has a label, although the folders could be classes; otherwise an empty text.
    """

    source: Encoded
    left_out: Mapping[str, str]
    labels: Sequence[str]
    no_labels: str = ""


def list_pictures(request: Request) -> Listing:
    """Return the images of a data set in splits and classes. No image is decoded.

    Raises:
        DataError: if there are no images, or if the files with their paths, labels or splits cannot be read.
    """
    form = _find_form(request)
    if form in _FIND_FILES:
        root, found = _FIND_FILES[form](request)
        return arrange_files(request.path, root, found, request.seed, request.splits, request.tables)
    if form in _READ_RECORDS:
        if request.tables != NO_TABLES:
            raise DataError(
                f"--labels and --split are for image files, but {request.dataset} has its own. Leave them out."
            )
        root, files, records = _READ_RECORDS[form](request)
        return arrange_records(Path(request.text), root, files, records, request.seed)
    return list_images(request.path, request.seed, request.splits, request.own, request.tables)


def find_pictures(request: Request) -> Pictures:
    """Return all images of a data set, whatever their split and class, for `embed`.

    Raises:
        DataError: see `list_pictures`. A layout of folders with two readings is no error here.
    """
    form = _find_form(request)
    if form in _READ_RECORDS:
        root, _, records = _READ_RECORDS[form](request)
        numbers, classes = number_labels(Path(request.text), records.labels, records.classes)
        labels = ["" if number < 0 else classes[number] for number in numbers.tolist()]
        left_out = {str(root / name): reason for name, reason in records.left_out.items()}
        return Pictures(records.source, left_out, labels)
    if form in _FIND_FILES:
        root, found = _FIND_FILES[form](request)
    else:
        root, found = request.path, find_image_files(request.path, request.own)
    left_out = {str(root / name): reason for name, reason in found.left_out.items()}
    return Pictures(Files(root, found.images), left_out, *_name_classes(request, root, found.images))


def _name_classes(request: Request, root: Path, paths: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return the class of each image file, and why no image has one, see `Pictures`."""
    try:
        return find_table_classes(root, str(request.path), paths, request.splits, request.tables), ""
    except TwoReadings as error:
        return [""] * len(paths), str(error)


def _find_form(request: Request) -> str:
    return request.dataset.partition(":")[0] + ":"


def _find_listed(request: Request) -> path_forms.FoundPaths:
    return path_forms.find_listed(request.path)


def _find_matching(request: Request) -> path_forms.FoundPaths:
    return path_forms.find_matching(str(Path(request.text).expanduser()), request.base, request.own)


_FIND_FILES: dict[str, Callable[[Request], path_forms.FoundPaths]] = {"list:": _find_listed, "glob:": _find_matching}


class _RecordFiles(NamedTuple):
    """Images in records, and the files that hold them."""

    root: Path
    files: tuple[str, ...]
    records: Records


def _read_tfrecord(request: Request) -> _RecordFiles:
    found = _find_shards(request, tfrecord.NAMED)
    return _RecordFiles(found.root, found.files, tfrecord.read_shards(found))


def _read_parquet(request: Request) -> _RecordFiles:
    parquet.refuse_no_package()
    found = _find_shards(request, parquet.NAMED)
    return _RecordFiles(found.root, found.files, parquet.read_shards(found))


def _find_shards(request: Request, named: shards.Named) -> shards.Shards:
    pattern = str(Path(request.text).expanduser())
    return shards.find_shards(_find_form(request), pattern, request.base, named, request.splits, request.own)


def _read_tfds(request: Request) -> _RecordFiles:
    prepared = tfds.read_prepared(request.text, request.data_dir)
    return _RecordFiles(prepared.folder, prepared.files, prepared.records)


_READ_RECORDS: dict[str, Callable[[Request], _RecordFiles]] = {
    "tfrecord:": _read_tfrecord,
    "parquet:": _read_parquet,
    "tfds:": _read_tfds,
}
