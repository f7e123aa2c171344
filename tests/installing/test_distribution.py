"""Tests the files and the metadata in this package's source distribution and wheel. Nothing is compiled."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

import lowlevel_simclr
from bench.report import tensorflow_versions

ROOT = Path(__file__).parents[2]
TOP = f"lowlevel_simclr-{lowlevel_simclr.__version__}"
SOURCES = ("lowlevel_simclr", "kernels", "tests", "docs")


def list_files(folder: Path) -> set[str]:
    """Return the names of the files in a folder of this repository, without built and cached files."""
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)) for path in files if not path.name.startswith("_native.")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a source distribution, and a wheel without the native library. Return the folder that has both."""
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is missing (make installs it)")
    root, folder = tmp_path_factory.mktemp("source") / "root", tmp_path_factory.mktemp("made")
    for name in SOURCES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, root)
    (root / "lowlevel_simclr" / "_native.so").write_bytes(b"a library that was built in place")
    (root / "lowlevel_simclr" / "_native.json").write_bytes(b"{}")
    commands = ["sdist", "--dist-dir", folder, "build_py", "bdist_wheel", "--skip-build", "--dist-dir", folder]
    subprocess.run([sys.executable, "setup.py", "-q", *map(str, commands)], cwd=root, check=True, capture_output=True)
    yield folder


def read_wheel(made: Path) -> tuple[set[str], Message, Message]:
    """Return the names of the files in a wheel, its metadata, and the content of its file WHEEL."""
    (wheel,) = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        metadata, about = (packed.read(f"{TOP}.dist-info/{name}").decode() for name in ("METADATA", "WHEEL"))
        return set(packed.namelist()), email.message_from_string(metadata), email.message_from_string(about)


def test_the_source_distribution_has_all_that_a_build_needs(made: Path) -> None:
    with tarfile.open(made / f"{TOP}.tar.gz") as packed:
        names = {name.removeprefix(f"{TOP}/") for name in packed.getnames()}
    for folder in SOURCES:
        assert list_files(ROOT / folder) - names == set()
    top = {
        "setup.py",
        "build_backend.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "SECURITY.md",
    }
    assert top | {"Makefile", "constraints.txt"} <= names


def test_the_source_distribution_has_nothing_that_was_built(made: Path) -> None:
    with tarfile.open(made / f"{TOP}.tar.gz") as packed:
        assert [name for name in packed.getnames() if re.search(r"\.so$|\.pyc$|_native|__pycache__", name)] == []


def test_the_wheel_has_the_whole_package_and_nothing_else(made: Path) -> None:
    names, _, _ = read_wheel(made)
    files = {name for name in names if ".dist-info/" not in name}
    assert files == list_files(ROOT / "lowlevel_simclr") and "lowlevel_simclr/py.typed" in files
    assert f"{TOP}.dist-info/licenses/LICENSE" in names


def test_the_wheel_serves_every_python_3_on_one_platform(made: Path) -> None:
    _, _, about = read_wheel(made)
    (tag,) = about.get_all("Tag", [])
    assert re.fullmatch(r"py3-none-linux_\w+", tag) and about["Root-Is-Purelib"] == "false"


def test_the_metadata_say_what_people_look_for(made: Path) -> None:
    _, said, _ = read_wheel(made)
    assert said["Version"] == lowlevel_simclr.__version__ and said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.10" and said["Description-Content-Type"] == "text/markdown"
    assert said["Author"] == "lowlevel_simclr contributors" and said["Keywords"] and said["Summary"]
    required = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert required == ["tensorflow>=2.15", *tensorflow_versions.BESIDE]
    assert said.get_all("Provides-Extra") == ["addons", "onnx", "litert", "pytorch", "parquet", "tfds", "test"]
    assert "Typing :: Typed" in said.get_all("Classifier", [])


def test_the_version_stands_once() -> None:
    """Test that these four files do not contain the package's version. It must be written only in its __init__.py."""
    found = [
        path.name
        for path in (ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "CITATION.cff", ROOT / "docs" / "conf.py")
        if re.search(rf"(?<![\d.]){re.escape(lowlevel_simclr.__version__)}(?![\d.])", path.read_text(encoding="utf-8"))
    ]
    assert found == []
