"""Tests the npz, CSV and Parquet files in which the program `embed` stores the encoder's outputs for images.

All formats must have the same rows and names. After an error, no half-written file may remain.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.evaluation.embedding import tables
from lowlevel_simclr.evaluation.embedding.given import EmbedError
from lowlevel_simclr.evaluation.embedding.tables import Block, Table, refuse_unwritable, write_table

ODD = ["a b/1.png", 'quote",comma.png', "two\nlines.png", "ünï.png", "bytes\udcff.png", "=1+1.png"]
TEXTS = [*ODD[:4], "bytes\\xff.png", ODD[5]]  # the names ODD, as CSV and Parquet store them
LABELS = ["cat", "", "a,b", "dog", "cat", "cat"]
ROWS = np.random.default_rng(0).normal(0, 1, (6, 3)).astype(np.float32) ** 9


def make_table(labelled: bool = True, output: str = "h") -> Table:
    def read() -> Iterator[Block]:
        for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
            yield Block(ROWS[part], ODD[part], LABELS[part] if labelled else [])

    return Table(output, 6, 3, labelled, read)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("output", ["h", "z"])
def test_npz_is_what_numpy_would_write(tmp_path: Path, labelled: bool, output: str) -> None:
    write_table(tmp_path / "a.npz", make_table(labelled, output))
    arrays = {output: ROWS, "paths": np.array(ODD), **({"labels": np.array(LABELS)} if labelled else {})}
    np.savez(tmp_path / "b.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert set(found) == set(arrays) and found["paths"].tolist() == ODD


@pytest.mark.parametrize("labelled", [True, False])
def test_csv_has_every_digit_and_name(tmp_path: Path, labelled: bool) -> None:
    write_table(tmp_path / "a.csv", make_table(labelled))
    text = (tmp_path / "a.csv").read_bytes().decode()
    header, *lines = csv.reader(io.StringIO(text, newline=""))
    assert header == ["path", *["label"] * labelled, "h0", "h1", "h2"]
    assert [line[0] for line in lines] == TEXTS
    assert not labelled or [line[1] for line in lines] == LABELS
    np.testing.assert_array_equal(np.array([line[-3:] for line in lines], np.float32), ROWS)


@pytest.mark.parametrize("labelled", [True, False])
def test_parquet_has_the_same_rows(tmp_path: Path, labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "GROUPED", 4)
    write_table(tmp_path / "a.parquet", make_table(labelled))
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 2
    found = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert list(found) == ["path", *["label"] * labelled, "h"] and found["path"] == TEXTS
    assert not labelled or found["label"] == LABELS
    np.testing.assert_array_equal(np.array(found["h"], np.float32), ROWS)


def test_other_endings_and_a_missing_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("h.txt", "h", "npz"):
        with pytest.raises(EmbedError, match=f"The ending of {name} names no format. Use .* .npz, .csv, .parquet"):
            refuse_unwritable(Path(name))
    refuse_unwritable(Path("H.NPZ"))
    (tmp_path / "h.npz").mkdir()
    with pytest.raises(EmbedError, match="h.npz is a folder. Use another --out"):
        refuse_unwritable(tmp_path / "h.npz")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(EmbedError, match="needs the package pyarrow, .* Install it with: pip install pyarrow"):
        refuse_unwritable(Path("h.parquet"))


@pytest.mark.parametrize("name", ["a.npz", "a.csv", "a.parquet"])
def test_an_error_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text("old")

    def read() -> Iterator[Block]:
        yield from make_table().read_blocks()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_table(tmp_path / name, dataclasses.replace(make_table(), read_blocks=read))
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_members_of_npz_are_not_compressed(tmp_path: Path) -> None:
    """Test that npz files are not compressed. So NumPy can map the rows into memory, and writing is faster."""
    write_table(tmp_path / "a.npz", make_table())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
