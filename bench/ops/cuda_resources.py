"""Reads what ptxas said of every CUDA kernel and stores it: python -m bench.ops.cuda_resources [LOGS ...].

`setup.py` compiles with -Xptxas -v and keeps the logs beside the objects. Registers, spills, stack and static shared
memory of each kernel and architecture go to bench/results/cuda_resources.json and as a table into docs/gpu.md. Nothing
runs.
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

ROOT = Path(__file__).parents[2]
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<architecture>sm_\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def entries(log: str) -> list[dict[str, Any]]:
    """One dictionary for each kernel and architecture of a log."""
    found = []
    for match in ENTRY.finditer(log):
        numbers = {key: int(match[key]) for key in ("registers", "stack", "stores", "loads")}
        found.append({"kernel": match["name"], "architecture": match["architecture"], **numbers})
    return found


def demangled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with names as they are written, without namespaces and arguments."""
    program = shutil.which("c++filt")
    names = [row["kernel"] for row in rows]
    if program is not None:
        said = subprocess.run(
            [program, "-p"], input="\n".join(names), capture_output=True, text=True, check=True
        ).stdout
        names = [re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", name) for name in said.splitlines()]
    return [dict(row, kernel=name) for row, name in zip(rows, names)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| kernel | architecture | registers | spilled bytes, stored / loaded | stack bytes |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        spills = f"{row['stores']} / {row['loads']}"
        lines.append(f"| `{row['kernel']}` | {row['architecture']} | {row['registers']} | {spills} | {row['stack']} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, store, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="*", help="default: what the last build left under build/")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "cuda_resources.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md", help="where the table is written")
    chosen = parser.parse_args(arguments)
    logs = chosen.logs or sorted((ROOT / "build").glob("temp*/native-*/*.cu.log"))
    if not logs:
        raise SystemExit("there is no log of nvcc under build/: build with LOWLEVEL_SIMCLR_CUDA=1 first, or name one.")
    rows = demangled([row for log in logs for row in entries(log.read_text(encoding="utf-8"))])
    rows.sort(key=lambda row: (row["kernel"], row["architecture"]))
    chosen.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    shown = table(rows)
    page = chosen.page.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- cuda_resources -->\n).*?(<!-- /cuda_resources -->)", re.DOTALL)
    chosen.page.write_text(marked.sub(lambda found: f"{found[1]}{shown}\n{found[2]}", page), encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    main()
