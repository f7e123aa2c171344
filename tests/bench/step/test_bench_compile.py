"""Tests the benchmark bench_compile, which times the compilation of a training step.

One test fills its table with made-up times. A slow test compiles a real step. It shows that TensorFlow's persistent
cache can store programs that contain this package's ops.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.step import bench_compile


def test_each_way_is_timed_without_and_with_what_the_cache_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, bool]] = []

    def time(way: str, flags: list[str], cache: Path | None) -> tuple[float, float, int]:
        assert flags == ["--batch-size", "8"]
        asked.append((way, cache is not None))
        return float(len(asked)), 10.0 - len(asked), 8 if way == "several" else 1

    monkeypatch.setattr(bench_compile, "time_compilation", time)
    bench_compile.main(["--turns", "1", "--json", str(tmp_path / "compile.json"), "--batch-size", "8"])
    assert asked == [(way, cached) for way in bench_compile.WAYS for cached in (False, True, True)]
    rows = json.loads((tmp_path / "compile.json").read_text())["rows"]
    assert [row["wall_seconds"] for row in rows] == [1, 3, 4, 6, 7, 9]
    assert "8 steps, with the loop inside XLA" in capsys.readouterr().out


@pytest.mark.slow
def test_the_persistent_cache_keeps_a_program_with_our_ops_in_it(tmp_path: Path) -> None:
    small = ["--batch-size", "8", "--image-size", "16", "--steps-per-call", "2"]
    first = bench_compile.time_compilation("several", small, tmp_path)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept and first[2] == 2
    bench_compile.time_compilation("several", small, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept  # the second compilation added nothing to the cache
