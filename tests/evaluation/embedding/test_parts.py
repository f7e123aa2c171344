"""Tests how the program `embed` continues after an interruption: which finished parts of its work it uses again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.evaluation.embedding import parts as parts_module
from lowlevel_simclr.evaluation.embedding.given import EmbedError
from lowlevel_simclr.evaluation.embedding.parts import open_parts
from lowlevel_simclr.evaluation.embedding.reading import Part


def make_part(first: int) -> Part:
    return Part(np.full((2, 3), first, np.float32), np.array([first, first + 1]), [(first + 2, "damaged: ä\udcff")])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART", 3)


def test_parts_of_the_same_job_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "new" / "h.npz"
    with open_parts(out, {"seed": 1}, 7) as parts:
        assert parts.list_ranges() == [range(3), range(3, 6), range(6, 7)] and parts.find_missing() == [0, 1, 2]
        parts.save(1, make_part(3))
    with open_parts(out, {"seed": 1}, 7) as parts:
        assert parts.find_missing() == [0, 2]
        found = parts.load(1)
        np.testing.assert_array_equal(found.rows, make_part(3).rows)
        assert found.places.tolist() == [3, 4] and found.bad == make_part(3).bad


def test_parts_of_another_job_are_replaced_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_parts(tmp_path / "h.npz", {"seed": 1}, 3) as parts:
        parts.save(0, make_part(0))
    assert capsys.readouterr().out == ""
    with open_parts(tmp_path / "h.npz", {"seed": 2}, 3) as parts:
        assert parts.find_missing() == [0]
    assert capsys.readouterr().out.endswith("h.npz.parts are of other images or settings, and are replaced.\n")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    with open_parts(tmp_path / "h.npz", {}, 3) as parts:
        parts.save(0, make_part(0))
        (tmp_path / "h.npz.parts/part-000000.npz").write_bytes(b"PK")
        with pytest.raises(EmbedError, match="part-000000.npz is damaged. Remove it, and run the same command again"):
            parts.load(0)


def test_only_one_process_writes_a_file(tmp_path: Path) -> None:
    with open_parts(tmp_path / "h.npz", {}, 3):
        with pytest.raises(EmbedError, match="Another process is writing .*h.npz. Wait until it ends"):
            with open_parts(tmp_path / "h.npz", {}, 3):
                pass
        with open_parts(tmp_path / "z.npz", {}, 3) as other:
            assert other.find_missing() == [0]


def test_the_folder_is_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError), open_parts(tmp_path / "h.npz", {}, 3) as parts:
        parts.remove()
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_at_the_end_the_folder_is_gone_unless_the_user_has_files_in_it(tmp_path: Path) -> None:
    for name, kept in (("a.npz", False), ("b.npz", True)):
        with open_parts(tmp_path / name, {}, 3) as parts:
            parts.save(0, make_part(0))
            parts.choose_scratch().write_bytes(b"0")
            (parts.place / "part-000001.npz.tmp").write_bytes(b"a kill left this")
            if kept:
                (parts.place / "notes.txt").write_text("mine")
            parts.remove()
        left = sorted(path.name for path in (tmp_path / f"{name}.parts").glob("*"))
        assert left == ["notes.txt"] * kept and parts.place.exists() == kept
