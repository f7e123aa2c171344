"""Stores the registers and memory that every CUDA kernel needs: python -m bench.ops.cuda_resources [LOGS ...].

ptxas, a part of CUDA's compiler, reports these numbers. `setup.py` compiles with -Xptxas -v and keeps the reports in
log files next to the object files. From the log files, this program reads the registers, the spilled bytes and the
stack bytes of each kernel and architecture. It stores the numbers in bench/results/cuda_resources.json, and writes them
as a table into docs/gpu.md. No kernel runs, so no GPU is needed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import harness
from bench.report import markers

ROOT = Path(__file__).parents[2]
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<architecture>sm_\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def read_entries(log: str) -> list[dict[str, Any]]:
    """Return one dictionary for each kernel and architecture in the text of a log."""
    found = []
    for match in ENTRY.finditer(log):
        numbers = {key: int(match[key]) for key in ("registers", "stack", "stores", "loads")}
        found.append({"kernel": match["name"], "architecture": match["architecture"], **numbers})
    return found


def demangle_names(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the names that the kernels have in the source, without namespaces and arguments.

    If c++filt is not installed, the names stay mangled.
    """
    program = shutil.which("c++filt")
    names = [row["kernel"] for row in rows]
    if program is not None:
        said = subprocess.run(
            [program, "-p"], input="\n".join(names), capture_output=True, text=True, check=True
        ).stdout
        names = [re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", name) for name in said.splitlines()]
    return [dict(row, kernel=name) for row, name in zip(rows, names)]


def format_resources(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table with one line for each kernel and architecture."""
    lines = [
        "| kernel | architecture | registers | spilled bytes, stored / loaded | stack bytes |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        spills = f"{row['stores']} / {row['loads']}"
        lines.append(f"| `{row['kernel']}` | {row['architecture']} | {row['registers']} | {spills} | {row['stack']} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the logs, store the rows, print the table and write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "logs", type=Path, nargs="*", help="logs of nvcc (default: the logs of the last build, under build/)"
    )
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "cuda_resources.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md", help="the page to write the table into")
    chosen = parser.parse_args(arguments)
    logs = chosen.logs or sorted((ROOT / "build").glob("temp*/native-*/*.cu.log"))
    if not logs:
        raise SystemExit("There is no log of nvcc under build/. Build with LOWLEVEL_SIMCLR_CUDA=1, or name a log.")
    rows = demangle_names([row for log in logs for row in read_entries(log.read_text(encoding="utf-8"))])
    rows.sort(key=lambda row: (row["kernel"], row["architecture"]))
    chosen.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    shown = format_resources(rows)
    markers.write_between(chosen.page, "cuda_resources", shown)
    print(shown)


if __name__ == "__main__":
    main()
