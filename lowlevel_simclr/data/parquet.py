"""Reads encoded images from Parquet files, such as those of Hugging Face's data sets, with the package pyarrow.

In the column of images, a value is bytes, or a struct with bytes and a path. A label is a whole number (a class number
or another id) or a text. The metadata of the file may have the names of the classes. Parquet compresses rows in groups,
and pyarrow reads only whole groups. `unpacked.py` keeps the images of a group that was read.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.image_file import Shape, UnreadableError, parse_shape
from lowlevel_simclr.data.records import Label, Records
from lowlevel_simclr.data.shards import Shards, make_names
from lowlevel_simclr.data.unpacked import Unpacked
from lowlevel_simclr.runtime.progress_bar import track

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

NAMED = re.compile(r"\.(parquet|parq)$")  # names of Parquet files in a folder
IMAGE_COLUMNS = ("image", "img", "image_bytes", "jpg", "jpeg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls", "category")
LARGEST_GROUP = 2**30  # the largest size of an uncompressed group, in bytes; Hugging Face writes 100 images to a group


class Columns(NamedTuple):
    """The names of the columns of images and of labels, and the names of the classes 0, 1, ... if the file has them."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None


def read_shards(shards: Shards) -> Records:
    """Return the images in Parquet files.

    Raises:
        DataError: if a file has no column of images, or if the files differ in their names of classes.
    """
    names: list[str] = []
    kinds: list[str] = []
    labels: list[Label] = []
    groups: list[_Group] = []
    classes: set[tuple[str, ...] | None] = set()
    left_out: dict[str, str] = {}
    files = list(zip(shards.files, shards.kinds, shards.paths))
    for file, kind, path in track(files, "finding images in records", len(files), "files"):
        opened = _open_file(path, file, left_out)
        if opened is None:
            continue
        columns = find_columns(path, opened.schema_arrow)
        count = opened.metadata.num_rows
        groups += _list_groups(path, opened.metadata, columns.image)
        names += make_names(file, count)
        kinds += [kind] * count
        labels += _read_labels(opened, columns.label)
        classes.add(columns.classes)
    if len(classes) > 1:
        raise DataError(
            f"The files in {shards.root} have different names of labels. Write all files again with the same names."
        )
    return Records(
        _Rows(groups, names),
        names,
        kinds,
        labels,
        classes.pop() if classes else None,
        left_out,
        shards.describe_kinds(),
    )


def refuse_no_package() -> None:
    """Check that pyarrow is installed.

    Raises:
        DataError: if pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise DataError(
            "parquet: needs the package pyarrow, which is not installed. Install it with: pip install pyarrow"
        ) from None


def _open_file(path: Path, file: str, left_out: dict[str, str]) -> pyarrow.parquet.ParquetFile | None:
    """Open a Parquet file. If this fails, store the reason in `left_out` and return None."""
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():  # opening a named pipe (FIFO) would wait for a writer, perhaps for ever
        left_out[file] = "is not a regular file"
        return None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except OSError as error:
        left_out[file] = f"cannot be read: {error.strerror or error}"
    except pyarrow.ArrowException as error:
        left_out[file] = f"is not a Parquet file, or is damaged: {error}"
    return None


def find_columns(path: Path, schema: pyarrow.Schema) -> Columns:
    """Return the columns of the images and of the labels.

    The metadata that Hugging Face writes say which columns these are. Without metadata, the function looks for the
    usual names.

    Args:
        path: the file, for messages.
        schema: the columns of the file.

    Raises:
        DataError: if there is no column of images.
    """
    features = _read_features(schema)
    typed = {
        kind: [name for name in schema.names if features.get(name, {}).get("_type") == kind]
        for kind in ("Image", "ClassLabel")
    }
    usual = [name for name in IMAGE_COLUMNS if name in schema.names and _holds_bytes(schema.field(name).type)]
    image = next(iter(typed["Image"] + usual), None)
    if image is None:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}, and none of them holds encoded images. The images must "
            f"be bytes, or structs with bytes, in a column named {IMAGE_COLUMNS[0]}."
        )
    label = next(iter([*typed["ClassLabel"], *(name for name in LABEL_COLUMNS if name in schema.names)]), None)
    classes = features.get(label or "", {}).get("names")
    return Columns(image, label, tuple(map(str, classes)) if isinstance(classes, list) else None)


def _read_features(schema: pyarrow.Schema) -> Mapping[str, Mapping[str, Any]]:
    """Return a dict from the name of a column to its description (feature) in Hugging Face's metadata.

    Without metadata, the dict is empty.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    """Return whether a column of this type holds bytes, or structs with bytes."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _read_labels(opened: pyarrow.parquet.ParquetFile, label: str | None) -> list[Label]:
    """Return the label of every row."""
    if label is None:
        return [None] * opened.metadata.num_rows
    return [_take_label(value) for value in opened.read(columns=[label]).column(0).to_pylist()]


def _take_label(value: object) -> Label:
    """Return a value as a label: a whole number or a text. Return None (no label) for a value of any other type."""
    if isinstance(value, float) and value.is_integer():  # pandas turns integers into floats if a value is missing
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


class _Group(NamedTuple):
    """A group of rows that are read together."""

    path: Path
    number: int  # the place of the group in its file
    column: str
    rows: int


def _list_groups(path: Path, metadata: pyarrow.parquet.FileMetaData, column: str) -> list[_Group]:
    """Return the groups of a file.

    Raises:
        DataError: if a group has more than LARGEST_GROUP bytes. To read one image, a whole group must be in memory.
    """
    groups = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size > LARGEST_GROUP:
            raise DataError(
                f"{path} has a row group of {group.total_byte_size} bytes, more than LARGEST_GROUP ({LARGEST_GROUP} "
                "bytes). Write the file again with row_group_size=100."
            )
        groups.append(_Group(path, number, column, group.num_rows))
    return groups


class _Rows:
    """Encoded images in the rows of Parquet files, see `encoded.Encoded`.

    A group is read once, as soon as one of its images is needed. All images of the group are then kept in a temporary
    file, because training reads the images in another order in every epoch.
    """

    def __init__(self, groups: Sequence[_Group], names: Sequence[str]) -> None:
        self._groups, self._names = groups, names
        self._ends = np.cumsum([group.rows for group in groups], dtype=np.int64)
        self._unpacked = Unpacked(len(names))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, row: int) -> str:
        """Return the path of the file, `#` and the number of the row."""
        number = self._names[row].rpartition("#")[2]
        return f"{self._groups[self._find_group(row)].path}#{number}"

    def read(self, row: int) -> bytes:
        """Return the bytes of an image, see `encoded.Encoded`."""
        if not self._unpacked.has(row):
            self._unpack_group(row)
        content = self._unpacked.read(row)
        if content is None:
            raise UnreadableError("has no bytes in the Parquet file")
        return content

    def read_shape(self, row: int) -> Shape:
        """Return the shape of an image, see `encoded.Encoded`."""
        return parse_shape(self.read(row))

    def _find_group(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))

    def _unpack_group(self, row: int) -> None:
        """Unpack the group of a row. Only one thread reads groups at a time, so no group is read twice."""
        import pyarrow.parquet

        number = self._find_group(row)
        path, place, column, count = self._groups[number]
        with self._lock:
            if self._unpacked.has(row):
                return
            try:
                with pyarrow.parquet.ParquetFile(path) as opened:
                    values = opened.read_row_group(place, columns=[column]).column(0)
            except OSError as error:
                raise UnreadableError(f"cannot be read: {error.strerror or error}") from error
            except pyarrow.ArrowException as error:
                raise UnreadableError(f"damaged: {error}") from error
            for at, value in enumerate(values, int(self._ends[number]) - count):
                self._unpacked.add(at, _take_content(value.as_py()))


def _take_content(value: object) -> bytes | None:
    """Return the bytes of an image, or None if the row has none."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else None
