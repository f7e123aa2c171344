"""Runs the blocks of a page and writes what they print: python -m bench.report.transcript docs/photographs.md.

A block of `sh` or `python` that is followed by the markers <!-- output --> and <!-- /output --> runs in one folder, in
the order of the page, and what it prints on standard output is written between the markers. Every block of Python is
a separate process.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.report import markers

BLOCK = re.compile(
    r"(?P<code>^```(?P<language>sh|python)\n(?P<text>.*?)^```\n)\n"
    r"(?P<begin><!-- output -->\n).*?(?P<end><!-- /output -->)",
    re.DOTALL | re.MULTILINE,
)

# The command of this checkout, whatever is installed.
PROGRAM = 'lowlevel-simclr() { python -m lowlevel_simclr "$@"; }\n'


def run_block(language: str, text: str, folder: Path) -> str:
    """Run one block in a folder, and return what it printed.

    Raises:
        RuntimeError: the block failed. The message has the end of its error output.
    """
    path = [str(markers.ROOT), os.environ.get("PYTHONPATH", "")]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PATH": programs}
    command = ["bash", "-ec", PROGRAM + text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a block of {language} failed:\n{text}\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def run_page(text: str, folder: Path) -> str:
    """Run the blocks of a page in a folder, and return the page with their outputs."""

    def replace(found: re.Match[str]) -> str:
        said = run_block(found["language"], found["text"], folder)
        print(said, flush=True)
        shown = f"```text\n{said}\n```\n" if said else ""
        return f"{found['code']}\n{found['begin']}{shown}{found['end']}"

    return BLOCK.sub(replace, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a page and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--folder", type=Path, help="the folder in which the blocks run (default: a temporary folder)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chosen.page.write_text(run_page(chosen.page.read_text(encoding="utf-8"), folder), encoding="utf-8")


if __name__ == "__main__":
    main()
