"""Lists encoded images from each kind of source that `--dataset` accepts.

The kinds (forms) are a folder, a list of paths, a pattern, TFRecord files, Parquet files, and TensorFlow Datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.data import parquet, path_forms, shards, tfds, tfrecord
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.encoded import Encoded, Files
from lowlevel_simclr.data.folder_layout import GIVE_FLAG, TwoReadings
from lowlevel_simclr.data.image_folder import Listing, arrange_files, list_images
from lowlevel_simclr.data.image_walk import find_image_files
from lowlevel_simclr.data.records import Records, arrange_records, number_labels
from lowlevel_simclr.data.table_layout import NO_TABLES, Tables, find_table_classes


class Request(NamedTuple):
    """The data set to list, and how to find its splits and labels.

    Attributes:
        dataset: the name of the data set, such as folder:PATH or tfds:NAME. Its form is the part up to the colon.
        data_dir: the folder in which a relative path starts. For tfds:, the folder of TensorFlow Datasets.
        seed: chooses the images to hold out if the data set has no split to hold out.
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
        """The text after the colon, such as PATH in folder:PATH."""
        return self.dataset.partition(":")[2]

    @property
    def path(self) -> Path:
        """The text after the colon, as a path."""
        return self.base / Path(self.text).expanduser()

    @property
    def tables(self) -> Tables:
        """The files of labels and splits."""
        labels, split = (
            None if file is None else self.base / Path(file).expanduser() for file in (self.labels, self.split)
        )
        return Tables(labels, split)


class Pictures(NamedTuple):
    """All encoded images of a data set, in the order of their source.

    Attributes:
        source: the images.
        left_out: a dict from the name of each file that was left out to the reason.
        labels: the name of the class of each image, or an empty text.
        no_labels: the reason, if no image has a label because the layout of the folders has two readings. Otherwise an
            empty text.
    """

    source: Encoded
    left_out: Mapping[str, str]
    labels: Sequence[str]
    no_labels: str = ""


def list_pictures(request: Request) -> Listing:
    """Return the images of a data set, with the split and the class of each. No image is decoded.

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
                f"--labels and --split are for image files, but {request.dataset} has its own labels and splits. Leave "
                "these flags out."
            )
        root, files, records = _READ_RECORDS[form](request)
        return arrange_records(Path(request.text), root, files, records, request.seed)
    return list_images(request.path, request.seed, request.splits, request.own, request.tables)


def find_pictures(request: Request) -> Pictures:
    """Return all images of a data set, from all splits, for `embed`.

    Raises:
        DataError: see `list_pictures`. But a layout of folders with two readings does not raise an error here.
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
    """Return the class of each image file, and the reason if no image has a class, see `Pictures`."""
    try:
        return find_table_classes(root, str(request.path), paths, request.splits, request.tables), ""
    except TwoReadings as error:
        return [""] * len(paths), str(error).removesuffix(GIVE_FLAG)


def _find_form(request: Request) -> str:
    return request.dataset.partition(":")[0] + ":"


def _find_listed(request: Request) -> path_forms.FoundPaths:
    return path_forms.find_listed(request.path)


def _find_matching(request: Request) -> path_forms.FoundPaths:
    return path_forms.find_matching(str(Path(request.text).expanduser()), request.base, request.own)


_FIND_FILES: dict[str, Callable[[Request], path_forms.FoundPaths]] = {"list:": _find_listed, "glob:": _find_matching}


class _RecordFiles(NamedTuple):
    """Images in larger files, which hold many images each, and the paths of these files."""

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
