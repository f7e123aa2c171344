"""Tests verify_wheel.py, a program that installs a wheel with each Python of the machine and tries the wheel out.

It must find the Pythons, hide all compilers, and print which command failed. Most tests use imitated programs. A slow
test makes and uses a real wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.installing import verify_wheel

ROOT = Path(__file__).parents[2]
THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"
SAID = "TensorFlow      2.21.0\nAll 479 comparisons passed.\n"
# An imitation of the program lowlevel-simclr. Environment variables can make it fail.
PROGRAM = """#!/bin/sh
case $1 in
  train) [ -n "$FAULT_TRAIN" ] || { MKDIR run; : > run/encoder.keras; } ;;
  evaluate) echo "trained encoder 0.5" ;;
  check) [ -z "$FAULT_CHECK" ] || { echo "2 comparisons failed."; exit 1; }; printf '%s' 'SAID' ;;
esac
"""


def make_programs(folder: Path) -> Path:
    """Return a folder of imitated programs, which print what the real ones would print."""
    programs = folder / "environment" / "bin"
    programs.mkdir(parents=True)
    python = '#!/bin/sh\ncase "$2" in *__file__*) echo "PLACE/lib";; *paths*) echo 8;; esac\n'
    mkdir = shutil.which("mkdir") or "mkdir"
    texts = {
        "python": python.replace("PLACE", str(programs.parent)),
        "lowlevel-simclr": PROGRAM.replace("MKDIR", mkdir).replace("SAID", SAID),
    }
    for name, text in texts.items():
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs


def test_only_a_python_of_the_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verify_wheel.find_python(THIS) is None
    for version in (THIS, "3.99"):
        (tmp_path / f"python{version}").symlink_to(sys.executable)
    found = verify_wheel.find_python(THIS)
    assert found is not None and found.name == f"python{THIS}"
    assert verify_wheel.find_python("3.99") is None  # the program python3.99 has another version


def test_what_works_is_said(tmp_path: Path) -> None:
    said = verify_wheel.prove(make_programs(tmp_path), tmp_path)
    assert said == "TensorFlow 2.21.0: train, evaluate and embed work; check: All 479 comparisons passed."


@pytest.mark.parametrize(
    ("fault", "wanted"), [("FAULT_TRAIN", "no encoder.keras"), ("FAULT_CHECK", "check\n2 comparisons failed")]
)
def test_what_fails_is_said(fault: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fault, "1")
    with pytest.raises(verify_wheel.Failure, match=wanted):
        verify_wheel.prove(make_programs(tmp_path), tmp_path)


def test_a_package_from_another_place_is_not_taken_for_the_wheel(tmp_path: Path) -> None:
    programs = make_programs(tmp_path)
    (programs / "python").write_text("#!/bin/sh\necho /checkout/lowlevel_simclr\n", encoding="utf-8")
    with pytest.raises(verify_wheel.Failure, match="is missing from:\n/checkout"):
        verify_wheel.prove(programs, tmp_path)


def test_programs_find_no_compiler_and_not_this_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LOWLEVEL_SIMCLR_ISA", "baseline")
    code = "import os, shutil; print(sorted(os.environ), [shutil.which(name) for name in ('g++', 'nvcc', 'sh')])"
    said = verify_wheel.run([sys.executable, "-I", "-c", code], tmp_path, tmp_path)
    assert "PYTHONPATH" not in said and "LOWLEVEL_" not in said and said.endswith("[None, None, None]\n")


def test_a_machine_without_a_python_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify_wheel, "find_python", lambda version: None)
    assert verify_wheel.main([str(tmp_path / "x.whl")]) == 1
    assert "Python 3.10: not on this machine, not verified" in capsys.readouterr().out


@pytest.mark.slow
def test_the_repaired_wheel_works_without_a_compiler(tmp_path: Path) -> None:
    """Test all steps of `make wheel` with this Python. This compiles the library and downloads TensorFlow."""
    for needed in ("build", "auditwheel", "twine", "pyroma"):
        pytest.importorskip(needed, reason=f"{needed} is missing (make wheel installs it)")
    environment = {**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), ".")
    (source,), (built,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    libraries = [word for name in ("framework", "cc") for word in ("--exclude", f"libtensorflow_{name}.so.2")]
    run(sys.executable, "-m", "auditwheel", "repair", *libraries, "--wheel-dir", str(tmp_path / "dist"), str(built))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (glibc,) = re.findall(r"manylinux_2_(\d+)_x86_64", wheel.name)
    assert "-py3-none-" in wheel.name and int(glibc) <= 28
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
    run(sys.executable, "-m", "pyroma", "--min", "9", "--skip-tests", "AuthorEmail", str(source))
    requirements = [wheel, "--constraint", ROOT / "constraints.txt"]
    assert "comparisons passed." in verify_wheel.verify(Path(sys.executable), requirements)
