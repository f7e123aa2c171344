"""Tests that all benchmarks exist that are named on pages, in programs or in the Makefile."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = re.compile(r"\bbench(?:\.[a-z_]+)+")
NAMING = [ROOT / "Makefile", *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")]
NAMING += [path for folder in ("bench", "lowlevel_simclr") for path in ROOT.glob(f"{folder}/**/*.py")]
RECORDS = {"CHANGELOG.md"}  # pages about older versions, with the names that modules had then


def find_missing(text: str) -> list[str]:
    """Find the names of benchmark modules in a text, and return those whose module does not exist."""
    return sorted(name for name in set(MODULE.findall(text)) if not exists(name))


def exists(name: str) -> bool:
    """Return whether a module of this name exists. The search imports the parent packages, but not the module."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("folder", ["", "docs", "bench", "lowlevel_simclr"])
def test_every_bench_that_is_named_exists(folder: str) -> None:
    paths = [path for path in NAMING if path.relative_to(ROOT).parts[:-1][:1] == ((folder,) if folder else ())]
    named = {path: find_missing(path.read_text(encoding="utf-8")) for path in paths if path.name not in RECORDS}
    assert named
    assert {str(path.relative_to(ROOT)): missing for path, missing in named.items() if missing} == {}


def test_a_bench_that_does_not_exist_is_found() -> None:
    assert find_missing("python -m bench.ops.bench_nt_xent, then `bench.step`; `bench.step.bench_step`.") == []
    assert find_missing("`bench.nothing.here` and bench.step.bench_walk.") == [
        "bench.nothing.here",
        "bench.step.bench_walk",
    ]
