"""Tests that no test file imports another test file, and that each has the name of the module that it tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "lowlevel_simclr"
FILES = sorted(TESTS.rglob("*.py"))
NAMES = [path.relative_to(TESTS) for path in FILES if path.name.startswith("test_") and path.parent != TESTS]
# Finds imports of test modules in programs that are texts (strings) inside a test.
IN_A_PROGRAM = re.compile(r"(?:\b(?:from|import)\s+|-m\s+)[\w.]*\btest_\w+|\btests(?:\.\w+)*\.test_\w+|"
                          r"\bfrom\s+tests[\w.]*\s+import\s+[\w, ]*\btest_\w+")  # fmt: skip
# Test files whose name is not that of the module that they test
OTHERS = {
    "contract/test_independence.py",
    "run/test_wrong_files.py",  # tests every file of a run folder
    "ops/test_library.py",  # tests ops/_library.py
    "runtime/test_onednn.py",  # tests the package's own __init__.py
}
OTHER_ROOMS = ("api", "bench", "docs", "faults", "installing", "kernels", "programs", "support", "verification")


def find_imported_tests(text: str) -> set[str]:
    """Return the test modules that a file imports, in its own statements or in programs that it contains as strings."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(IN_A_PROGRAM.findall(node.value))
            continue
        else:
            continue
        found |= {name for name in names if any(part.startswith("test_") for part in name.split("."))}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_is_imported(path: Path) -> None:
    """Test that no test module is imported. Code that two tests need belongs in tests/support."""
    found = find_imported_tests(path.read_text())
    assert not found, f"{path.relative_to(TESTS)} imports from a test: {sorted(found)}. Move it to tests/support"


@pytest.mark.parametrize(
    "statement",
    [
        "from tests.{}ops.{}test_nt_xent import rows",
        "from tests.ops import a, {}test_nt_xent",
        "from .{}test_nt_xent import rows",
        "import tests.ops.{}test_nt_xent as t",
        "import {}test_nt_xent",
        "import importlib; importlib.import_module('tests.{}ops.{}test_nt_xent')",
    ],
)
def test_every_way_to_import_a_test_is_seen(statement: str) -> None:
    """Test each way to import a test module. Without the braces, the statements would count as imports of this file."""
    whole = statement.format("", "")
    assert find_imported_tests(whole) and find_imported_tests(f"PROGRAM = {whole!r}")
    assert not find_imported_tests(whole.replace("test_nt_xent", "support"))


@pytest.mark.parametrize("name", [name for name in NAMES if name.parts[0] not in OTHER_ROOMS], ids=str)
def test_a_file_has_the_name_of_the_module_it_is_about(name: Path) -> None:
    module = PACKAGE / name.with_name(name.name.removeprefix("test_"))
    there = module.is_file()
    if name.as_posix() in OTHERS:
        assert not there, f"remove {name} from OTHERS: the module {module.relative_to(PACKAGE)} exists"
    else:
        assert there, f"{name} has not the name of a module: {module.relative_to(PACKAGE)} does not exist"
