"""Writes rows and the names of their images as npz, CSV or Parquet.

Only a few thousand rows are in memory at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.evaluation.embedding.given import EmbedError
from lowlevel_simclr.runtime.files import write_atomically
from lowlevel_simclr.runtime.progress_bar import open_bar

GROUPED = 8192  # smallest number of rows in a row group of a Parquet file


class Block(NamedTuple):
    """Some rows of a table."""

    rows: NDArray[np.float32]  # (m, d)
    paths: list[str]
    labels: list[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows (h or z) of images, and the names of the images.

    Attributes:
        output: the name of the rows, "h" or "z".
        count: the number of rows (n).
        width: the number of values in a row (d).
        has_labels: whether any image has a label.
        read_blocks: returns an iterator over the blocks, from the first row to the last. It is called several times.
    """

    output: str
    count: int
    width: int
    has_labels: bool
    read_blocks: Callable[[], Iterator[Block]]


def refuse_unwritable(out: Path) -> None:
    """Check that a file can be written.

    Raises:
        EmbedError: if its ending is not one of WRITERS, if it is a folder, or if a package is missing.
    """
    if out.is_dir():
        raise EmbedError(f"{out} is a folder. Use another --out.")
    if out.suffix.lower() not in WRITERS:
        raise EmbedError(f"The ending of {out} names no format. Use a name that ends in {', '.join(WRITERS)}.")
    if out.suffix.lower() != ".parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise EmbedError(
            f"Writing {out} needs the package pyarrow, which is not installed. Install it with: pip install pyarrow"
        ) from None


def _read_with_progress(table: Table) -> Iterator[Block]:
    """Yield all blocks, and show the progress."""
    with open_bar("writing the file", table.count, "rows") as bar:
        for block in table.read_blocks():
            yield block
            bar.update(len(block.rows))


def write_table(out: Path, table: Table) -> None:
    """Write a table in the format that the file's ending stands for. The file is written completely or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    write_atomically(out, lambda file: WRITERS[out.suffix.lower()](file, table))


# npz


def _write_npz(file: BinaryIO, table: Table) -> None:
    """Write the arrays "h" or "z" (n, d), "paths" (n,), and "labels" (n,) if there are labels."""
    longest_path = longest_label = 0
    for block in _read_with_progress(table):
        longest_path = max([longest_path, *map(len, block.paths)])
        longest_label = max([longest_label, *map(len, block.labels)])
    with zipfile.ZipFile(file, "w") as archive:
        rows = (block.rows for block in _read_with_progress(table))
        _write_array(archive, table.output, np.dtype("<f4"), (table.count, table.width), rows)
        paths = (block.paths for block in table.read_blocks())
        _write_array(archive, "paths", np.dtype(f"<U{longest_path}"), (table.count,), paths)
        if table.has_labels:
            labels = (block.labels for block in table.read_blocks())
            _write_array(archive, "labels", np.dtype(f"<U{longest_label}"), (table.count,), labels)


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    kind: np.dtype,
    shape: tuple[int, ...],
    blocks: Iterable[NDArray[np.float32] | list[str]],
) -> None:
    """Write one array of an npz file block by block, in the format of `numpy.savez`."""
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(np.ascontiguousarray(block, kind).tobytes())


# CSV


def _write_csv(file: BinaryIO, table: Table) -> None:
    """Write the columns path, label (if there are labels), and h0, h1 and so on.

    Nine digits keep float32 values exactly.
    """
    numbers = [f"{table.output}{place}" for place in range(table.width)]
    file.write(",".join(["path", *["label"] * table.has_labels, *numbers]).encode() + b"\n")
    pattern = ",".join(["%.9g"] * table.width)
    for block in _read_with_progress(table):
        columns = [block.paths, block.labels] if table.has_labels else [block.paths]
        texts = ([_quote(make_text(name)) for name in column] for column in columns)
        rows = (pattern % tuple(row) for row in block.rows.tolist())
        file.write("".join(",".join(cells) + "\n" for cells in zip(*texts, rows)).encode())


def _quote(text: str) -> str:
    """Return a text as a cell of a CSV file."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def make_text(name: str) -> str:
    r"""Return the name of a file as valid Unicode. Bytes that are not UTF-8 become escapes, such as `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# Parquet


def _write_parquet(file: BinaryIO, table: Table) -> None:
    """Write the columns path, label (if there are labels), and h or z. Each h or z is a list of d float32 values."""
    import pyarrow
    import pyarrow.parquet

    fields = [pyarrow.field("path", pyarrow.string())]
    fields += [pyarrow.field("label", pyarrow.string())] * table.has_labels
    fields.append(pyarrow.field(table.output, pyarrow.list_(pyarrow.float32(), table.width)))
    schema = pyarrow.schema(fields)
    compression = {"path": "zstd", "label": "zstd", f"{table.output}.list.element": "none"}
    with pyarrow.parquet.ParquetWriter(file, schema, use_dictionary=["label"], compression=compression) as writer:
        for block in _join_blocks(_read_with_progress(table), GROUPED):
            columns = [pyarrow.array(map(make_text, block.paths), pyarrow.string())]
            if table.has_labels:
                columns.append(pyarrow.array(map(make_text, block.labels), pyarrow.string()))
            numbers = pyarrow.array(block.rows.reshape(-1), pyarrow.float32())
            columns.append(pyarrow.FixedSizeListArray.from_arrays(numbers, table.width))
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema), row_group_size=len(block.rows))


def _join_blocks(blocks: Iterable[Block], least: int) -> Iterator[Block]:
    """Join blocks into larger ones with at least `least` rows each. Only the last block may be smaller."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if sum(len(each.rows) for each in waiting) >= least:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(blocks: Sequence[Block]) -> Block:
    rows, paths, labels = zip(*blocks)
    return Block(np.concatenate(rows), list(itertools.chain(*paths)), list(itertools.chain(*labels)))


WRITERS: dict[str, Callable[[BinaryIO, Table], None]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
