"""Writes constraints.txt and constraints-2.15.txt: the versions of all packages that make and CI install.

    python -m bench.report.constraints            # writes both files with the newest versions
    python -m bench.report.constraints --check    # only prints the packages that have newer releases

The program uv chooses versions that work with Python 3.10 to 3.13. A change of the files is merged only if CI passes
with the new versions. So the files contain the newest versions that CI has tested together. pip reads one of these
files if its path follows the option --constraint.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+)(?: ; .+)?$")
HEAD = "# {subject}. Written by `make constraints`; do not edit.\n"


class Choice(NamedTuple):
    """What one of the two files must contain.

    Attributes:
        subject: the purpose of the file, for its first line.
        extras: the extras of this package whose requirements the file includes.
        files: files with further requirements.
        requirements: further requirements, as pip reads them.
    """

    subject: str
    extras: Sequence[str]
    files: Sequence[str]
    requirements: Sequence[str]


CHOICES = {
    "constraints.txt": Choice(
        "The newest versions that CI proved together",
        ["test"],
        ["requirements-docs.txt", "requirements-lint.txt", "requirements-wheel.txt"],
        ["pip", "setuptools>=77.0.3"],
    ),
    "constraints-2.15.txt": Choice(
        "The versions that CI proved together with TensorFlow 2.15.1",
        ["test", "addons"],
        [],
        # tensorboard 2.15 imports pkg_resources, which setuptools 81 and later do not have. Later releases of
        # tensorflow-metadata need a newer protobuf than TensorFlow 2.15 allows. Later releases of pyarrow need NumPy 2.
        ["pip", "setuptools<81", "tensorflow==2.15.1", "tensorflow-metadata==1.16.1", "pyarrow<18"],
    ),
}


def choose_versions(choice: Choice) -> str:
    """Return the text of a file of versions. uv asks the package index, and prefers the newest versions.

    Raises:
        SystemExit: if uv is not installed or finds no versions that work together.
    """
    extras = [word for extra in choice.extras for word in ("--extra", extra)]
    with tempfile.NamedTemporaryFile("w", suffix=".in", encoding="utf-8") as more:
        more.write("\n".join(choice.requirements) + "\n")
        more.flush()
        flags = ["--universal", "--python-version", "3.10", "--no-header", "--no-annotate", "--quiet", *extras]
        command = [sys.executable, "-m", "uv", "pip", "compile", *flags, "pyproject.toml", *choice.files, more.name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr}\nuv chose no versions. `make constraints` installs uv.")
    return HEAD.format(subject=choice.subject) + done.stdout


def read_pins(text: str) -> dict[str, list[str]]:
    """Return a dict from the name of each package to its versions. There can be several, for different Pythons.

    Raises:
        ValueError: if a line is neither a comment nor a pin (a package with its version, such as numpy==2.4.6).
    """
    pins: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        found = PIN.match(line)
        if found is None:
            raise ValueError(f"{line!r} is not a pin, such as numpy==2.4.6")
        pins.setdefault(found[1], []).append(found[2])
    return pins


def list_differences(old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> list[str]:
    """Return one line for each package whose versions differ, such as "numpy 2.4.6 -> 2.5.0"."""

    def describe(versions: list[str] | None) -> str:
        return ", ".join(versions) if versions else "none"

    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"{name} {describe(old.get(name))} -> {describe(new.get(name))}" for name in names]


def find_released() -> list[str]:
    """Ask the package index, and return one line for each package that has a newer release than in the files."""
    found = []
    for name, choice in CHOICES.items():
        stored = read_pins((ROOT / name).read_text(encoding="utf-8"))
        found += [f"{name}: {line}" for line in list_differences(stored, read_pins(choose_versions(choice)))]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files, or print the newer releases.

    Returns the exit code, which is 1 if --check finds newer releases.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; print which packages have newer releases")
    if parser.parse_args(argv).check:
        found = find_released()
        print("\n".join(found) or "Nothing newer is out.")
        return 1 if found else 0
    for name, choice in CHOICES.items():
        (ROOT / name).write_text(choose_versions(choice), encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
