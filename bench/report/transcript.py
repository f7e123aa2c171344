"""Runs the code blocks of a page and writes their output into it: python -m bench.report.transcript docs/PAGE.md.

The program runs each block of `sh` or `python` code that has the markers <!-- output --> and <!-- /output --> after it.
It writes the standard output of the block between these markers. The blocks run one after another in the same folder,
each in a process of its own.
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

# A shell function that makes the command lowlevel-simclr run the code of this checkout, not an installed version.
PROGRAM = 'lowlevel-simclr() { python -m lowlevel_simclr "$@"; }\n'


def run_block(language: str, text: str, folder: Path) -> str:
    """Run one block of code in a folder, and return its standard output.

    Raises:
        RuntimeError: if the block failed. The message has the end of its error output.
    """
    path = [str(markers.ROOT), os.environ.get("PYTHONPATH", "")]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PATH": programs}
    command = ["bash", "-ec", PROGRAM + text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"A block of {language} on the page failed:\n{text}\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def run_page(text: str, folder: Path) -> str:
    """Run the code blocks of a page in a folder, and return the text of the page with their outputs."""

    def replace(found: re.Match[str]) -> str:
        said = run_block(found["language"], found["text"], folder)
        print(said, flush=True)
        shown = f"```text\n{said}\n```\n" if said else ""
        return f"{found['code']}\n{found['begin']}{shown}{found['end']}"

    return BLOCK.sub(replace, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the code blocks of a page, and write the page with their outputs."""
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
