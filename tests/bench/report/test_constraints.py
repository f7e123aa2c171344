"""Tests the constraints files, which fix the version of each package that `make` and CI install.

They must have one version of every requirement for every supported Python. A further test finds newer releases.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bench.report import constraints

ROOT = Path(__file__).parents[3]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LATER = ("pip", "setuptools")  # packages that `make` installs in addition


def read_lines(name: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def read_project(extras: tuple[str, ...]) -> list[str]:
    """Return the requirements in pyproject.toml. The file is read as text, because Python 3.10 cannot read TOML."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = []
    for name in ("dependencies", *extras):
        (listed,) = re.findall(rf"^{name} = \[(.*)\]$", text, re.MULTILINE)
        found += re.findall(r'"([^"]+)"', listed)
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", constraints.CHOICES)
def test_every_requirement_has_one_version_for_each_python(name: str, python: str) -> None:
    choice = constraints.CHOICES[name]
    if "2.15" in name and python not in PYTHONS[:2]:
        pytest.skip("there is no TensorFlow 2.15.1 for this Python")
    where = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux"}
    pins = [pin for pin in map(Requirement, read_lines(name)) if pin.marker is None or pin.marker.evaluate(where)]
    wanted = [*read_project(tuple(choice.extras)), *choice.requirements, *LATER]
    wanted += [line for file in choice.files for line in read_lines(file)]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate(where):
            (pin,) = [pin for pin in pins if pin.name == requirement.name.lower().replace("_", "-")]
            (version,) = [each.version for each in pin.specifier]
            assert str(pin.specifier) == f"=={version}" and requirement.specifier.contains(version), requirement


def test_a_line_that_is_no_pin_is_refused() -> None:
    text = "# head\nnumpy==2.2.6 ; python_full_version < '3.11'\nnumpy==2.4.6 ; python_full_version >= '3.11'\n"
    assert constraints.read_pins(text) == {"numpy": ["2.2.6", "2.4.6"]}
    for wrong in ("numpy>=2", "numpy", "-r other.txt"):
        with pytest.raises(ValueError, match="is not a pin"):
            constraints.read_pins(text + wrong)


def test_what_is_newer_is_said() -> None:
    old = {"numpy": ["2.4.6"], "pillow": ["13.0.0"], "gone": ["1"]}
    new = {"numpy": ["2.4.6", "2.5.0"], "pillow": ["13.0.0"], "new": ["2"]}
    lines = ["gone 1 -> none", "new none -> 2", "numpy 2.4.6 -> 2.4.6, 2.5.0"]
    assert constraints.list_differences(old, new) == lines


def test_check_prints_what_is_newer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Test with an imitated package index that has a newer tqdm, so that every constraints file is out of date."""

    def choose(choice: constraints.Choice) -> str:
        (name,) = [name for name, each in constraints.CHOICES.items() if each is choice]
        return re.sub(r"^tqdm==.*$", "tqdm==999", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)

    monkeypatch.setattr(constraints, "choose_versions", choose)
    assert constraints.main(["--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"tqdm \S+", "tqdm OLD", line) for line in lines] == [
        f"{name}: tqdm OLD -> 999" for name in constraints.CHOICES
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_files_are_compared_with_what_is_out() -> None:
    """Warn about newer releases. This does not fail, because the constraints files are still right."""
    pytest.importorskip("uv", reason="uv is missing (make constraints installs it)")
    released = constraints.find_released()
    assert all(" -> " in line for line in released)
    if released:
        warnings.warn(f"Run make constraints, then make test. Released since: {released}", stacklevel=1)
