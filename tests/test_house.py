"""Tests rules for the source code of this package, such as which module may import which.

A sub-package is called a room. The rooms have levels, and a room may import only from lower levels. An op has files in
six places. The allowed values of a setting are listed only once. Every test must assert something.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lowlevel_simclr"
PROGRAMS = ("train", "evaluate", "embed", "report", "export", "check", "__main__")
# The levels of the package, from the lowest to the highest. A room imports only from itself and from lower levels.
LEVELS = (
    ("contract", "runtime", "config"),
    ("model", "ops", "stock", "reference"),
    ("data", "optim", "run"),
    ("evaluation", "verification"),
    ("training",),
    ("api",),
    PROGRAMS,
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MOST_ARROWS = 60  # the limit for the number of pairs of a room and another room that it imports from
KNOW_CONFIG = (
    "api.budget_settings",
    "api.picture_settings",
    "api.session",
    "api.stored",
    "api.subject",
    "training.plan",
)  # modules outside config/ that may use the whole configuration
STANDARD = {"__future__", "collections", "dataclasses", "itertools", "math", "numbers", "operator", "typing"}
ASSERTING = ("assert_", "check_", "given_")  # the names of functions that assert something for a test begin like this


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_of(path): path for path in sources(PACKAGE)}


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a file imports from this package, as pairs (module, name in the module). Functions count too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from ((name.partition(".")[2], "") for name in names if name.startswith("lowlevel_simclr."))
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "lowlevel_simclr":
            continue
        base = (node.module or "")[len("lowlevel_simclr.") :]
        for alias in node.names:
            full = f"{base}.{alias.name}".lstrip(".")
            yield (full, "") if full in MODULES else (base or full, alias.name)


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_of)
def test_a_room_imports_only_from_lower_levels(path: Path) -> None:
    own = module_of(path).split(".")[0]
    assert own in LEVEL, f"{path} is in no sub-package of LEVELS, see {Path(__file__).name}"
    rooms = {module.split(".")[0] for module, _ in imported(path)} & set(LEVEL)
    wrong = {room for room in rooms - {own} if LEVEL[room] >= LEVEL[own]}
    assert not wrong, f"{own} (level {LEVEL[own]}) imports {sorted(wrong)} from its own level or above"


def test_the_rooms_are_few_and_so_are_the_arrows_between_them() -> None:
    arrows = {
        (own.split(".")[0], module.split(".")[0])
        for own, path in MODULES.items()
        for module, _ in imported(path)
        if module.split(".")[0] in LEVEL and module.split(".")[0] != own.split(".")[0]
    }
    assert len(arrows) < MOST_ARROWS, len(arrows)
    assert {own.split(".")[0] for own in MODULES} == set(LEVEL)


def test_no_modules_import_one_another_in_a_circle() -> None:
    imports = defaultdict(set)
    for own, path in MODULES.items():
        imports[own] = {module for module, _ in imported(path) if module in MODULES} - {own}
    while free := [own for own, others in imports.items() if not others & set(imports)]:
        for own in free:
            del imports[own]
    assert not imports, f"these import one another: {sorted(imports)}"


def test_only_the_sessions_and_the_plan_know_the_configuration() -> None:
    know = {own for own, path in MODULES.items() if ("config.settings", "Config") in set(imported(path))}
    assert {own for own in know if not own.startswith("config.")} == set(KNOW_CONFIG)


def test_the_reference_needs_numpy_only() -> None:
    with_tensors = {"lars_checks", "nt_xent_checks", "view_checks"}
    contract = [path for path in sources(PACKAGE / "contract") if path.stem not in with_tensors]
    texts = [path.read_text() for path in sources(PACKAGE / "reference")]
    assert not [name for name in with_tensors for text in texts if name in text]
    for path in [*sources(PACKAGE / "reference"), *contract]:
        modules = {
            (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert modules <= {*STANDARD, "numpy", "lowlevel_simclr"}, f"{path.name} imports {modules}"


# The files and the signatures of an op


def op_names() -> list[str]:
    return [path.stem for path in sources(PACKAGE / "ops") if not path.stem.startswith("_")]


@pytest.mark.parametrize("op", op_names())
def test_an_op_has_six_homes(op: str) -> None:
    homes = [
        ROOT / "kernels" / op,
        PACKAGE / "ops" / f"{op}.py",
        PACKAGE / "reference" / f"{op}.py",
        PACKAGE / "stock" / f"{op}.py",
        ROOT / "tests" / "ops" / f"test_{op}.py",
        ROOT / "bench" / "ops" / f"bench_{op}.py",
    ]
    assert [home for home in homes if not home.exists()] == []


@pytest.mark.parametrize("op", op_names())
def test_implementations_share_their_signatures(op: str) -> None:
    from lowlevel_simclr import ops, stock

    def names(module: object) -> list[str]:
        return list(inspect.signature(getattr(module, op)).parameters)

    assert names(ops) == names(stock)


# The choices of a setting are listed once


def test_every_choice_is_listed_once() -> None:
    """Test that only config/choices.py lists the allowed values (choices) of a setting.

    A tuple, list or set in another module that has two choices of one setting counts as a second list.
    """
    from lowlevel_simclr.config import choices

    lists = {name: set(value) for name, value in vars(choices).items() if name.isupper() and isinstance(value, tuple)}
    common = {"none", "auto", "on", "off", "all", "train", "test", "mean", "imagenet", "float32", "bfloat16", "float16"}
    second = []
    for own, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if own == "config.choices" or not isinstance(node, (ast.Tuple, ast.List, ast.Set)):
                continue
            words = {each.value for each in node.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)}
            second += [(own, node.lineno, name) for name, known in lists.items() if len((words & known) - common) > 1]
    # These two tuples list only the protocols (ways to judge an encoder) that do not change the encoder.
    allowed = {("evaluation.protocols", "PROTOCOLS"), ("evaluation.summary", "PROTOCOLS")}
    assert [one for one in second if (one[0], one[2]) not in allowed] == []


def test_every_choice_is_served() -> None:
    import tensorflow as tf

    from lowlevel_simclr.config import choices
    from lowlevel_simclr.config.presets import PRESETS
    from lowlevel_simclr.data import catalog, dataset
    from lowlevel_simclr.model.encoder import BASIC
    from lowlevel_simclr.model.torch_resnet import TORCH
    from lowlevel_simclr.optim import optimizers, schedule
    from lowlevel_simclr.runtime.precision import POLICIES
    from lowlevel_simclr.training.loss import LOSS_FACTORS

    assert {*BASIC, *TORCH, "resnet50"} == set(choices.ENCODERS)
    assert set(LOSS_FACTORS) == set(choices.LOSS_REDUCTIONS)
    assert set(choices.PRECISIONS) <= set(POLICIES)
    assert all(schedule.scale_learning_rate(1.0, 256, rule) > 0 for rule in choices.LEARNING_RATE_SCALINGS)
    assert all(optimizers.build_optimizer(name, [tf.Variable([[1.0]])]) for name in choices.OPTIMIZERS)
    for name in choices.DATASETS + tuple(f"{form}none" for form in choices.DATASET_FORMS):
        try:
            assert catalog.load_dataset(name, "/none", 0).name
        except dataset.DataError as error:
            assert "There is no data set" not in str(error)
    assert {preset().data.dataset.partition(":")[0] for preset in PRESETS.values()} <= {*choices.DATASETS, "folder"}


# Tests and names


def asserts(function: ast.FunctionDef) -> bool:
    """Return whether a test asserts something: by `assert`, by `pytest.raises`, or by a helper (see ASSERTING)."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "raises" or called.lstrip("_").startswith(ASSERTING):
                return True
    return False


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
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


def test_the_readme_shows_the_real_tree() -> None:
    """Test that the list of folders in the README has exactly the folders of the package."""
    tree = (ROOT / "README.md").read_text().partition("<!-- tree -->")[2].partition("<!-- /tree -->")[0]
    shown = set(re.findall(r"^      ([a-z_]+)/ ", tree, re.MULTILINE))
    assert shown == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    top = set(re.findall(r"^    ([a-z_]+)/ ", tree, re.MULTILINE))
    assert top == {"lowlevel_simclr", "kernels", "tests", "bench", "docs"}
