"""The house keeps its own rules: levels, one op in five homes, no test without an assertion."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lowlevel_simclr"
LEVELS = (
    ("config", "reference", "tracing", "processor"),
    (
        "presets",
        "ops",
        "stock",
        "compat",
        "convolution",
        "pooling",
        "runlog",
        "background",
        "trace",
        "dataset",
        "picture",
    ),
    ("command_line", "shapes", "augment", "encoder", "projection", "optimizer", "checkpoint", "plots", "downloads"),
    ("cifar", "image_folder", "npz_file", "score_store"),
    ("distribute", "data"),
    ("step", "protocol", "export", "view_cases", "lars_cases"),
    ("classifier", "h_store", "assembly"),
    ("micro_batch",),
    ("train", "evaluate", "check", "embed"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
ENTRY_POINTS = ("train", "evaluate", "check", "embed")
ASSERTING = ("assert_", "check_", "given_")  # helpers of the tests that assert for them


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")


def part(path: Path) -> str:
    """The name that has a level: the module, or the package that it lies in."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The parts of this package that a module imports, wherever in it."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "lowlevel_simclr":
                parts |= {alias.name for alias in node.names}
            elif node.module.startswith("lowlevel_simclr."):
                parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lowlevel_simclr.")}
    return parts


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_levels(path: Path) -> None:
    own = part(path)
    assert own in LEVEL, f"{path} has no level: give it one in {Path(__file__).name}"
    wrong = {name for name in imported(path) - {own} if LEVEL[name] >= LEVEL[own] and own not in ENTRY_POINTS}
    # `runlog` is level 1 and `checkpoint` writes through it; entry points never import one another.
    if own in ENTRY_POINTS:
        wrong = imported(path) & set(ENTRY_POINTS)
    assert not wrong, f"{own} (level {LEVEL[own]}) imports {sorted(wrong)} from its own level or above"


def test_the_reference_needs_numpy_only() -> None:
    for path in sources(PACKAGE / "reference"):
        modules = {
            (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        allowed = {
            "__future__",
            "collections",
            "dataclasses",
            "itertools",
            "math",
            "typing",
            "numpy",
            "lowlevel_simclr",
        }
        assert modules <= allowed, f"{path.name} imports {modules - allowed}"


def op_names() -> list[str]:
    return [path.stem for path in sources(PACKAGE / "ops") if not path.stem.startswith("_")]


@pytest.mark.parametrize("op", op_names())
def test_an_op_has_five_homes(op: str) -> None:
    homes = [
        ROOT / "kernels" / op,
        PACKAGE / "ops" / f"{op}.py",
        PACKAGE / "reference" / f"{op}.py",
        PACKAGE / "stock" / f"{op}.py",
        ROOT / "tests" / f"test_{op}.py",
        ROOT / "bench" / f"bench_{op}.py",
    ]
    assert [home for home in homes if not home.exists()] == []


@pytest.mark.parametrize("op", op_names())
def test_implementations_share_their_signatures(op: str) -> None:
    from lowlevel_simclr import ops, stock

    def names(module: object) -> list[str]:
        return list(inspect.signature(getattr(module, op)).parameters)

    assert names(ops) == names(stock)


def asserts(function: ast.FunctionDef) -> bool:
    """An assert, a `pytest.raises`, or a call of a helper that says in its name that it asserts."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "raises" or called.lstrip("_").startswith(ASSERTING):
                return True
    return False


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.name)
def test_every_test_can_fail(path: Path) -> None:
    tests = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert tests
    assert [test.name for test in tests if not asserts(test)] == []


def test_no_grab_bags() -> None:
    banned = {"utils", "util", "common", "helpers", "misc"}
    names = {
        path.stem for folder in ("lowlevel_simclr", "kernels", "tests", "bench") for path in (ROOT / folder).rglob("*")
    }
    assert not names & banned
