"""Tests that no benchmark imports another benchmark."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def list_imported(path: Path) -> set[str]:
    """Return the last part of each name that a Python file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    whole = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    parts = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    whole += [node.module or "" for node in parts] + [alias.name for node in parts for alias in node.names]
    return {name.rpartition(".")[2] for name in whole}


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCH)))
def test_no_module_imports_a_bench(path: Path) -> None:
    assert [name for name in list_imported(path) if name.startswith("bench_")] == []
