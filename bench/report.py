"""Draws stored results: python -m bench.report bench/results/<device>/nt_xent.json [--figure out.png].

Prints the README's table (Markdown) and draws time against N. It measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import harness


def table(rows: Sequence[harness.Row]) -> str:
    """Markdown: a line for each problem, a column for each alternative, processor milliseconds."""
    names = list(dict.fromkeys(row.name for row in rows))
    problems = list(dict.fromkeys(tuple(row.problem.items()) for row in rows))
    cells = {(tuple(row.problem.items()), row.name): _cell(row) for row in rows}
    lines = ["| problem | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for problem in problems:
        label = ", ".join(f"{key} = {value}" for key, value in problem)
        lines.append(f"| {label} | " + " | ".join(cells.get((problem, name), "") for name in names) + " |")
    return "\n".join(lines)


def _cell(row: harness.Row) -> str:
    if row.processor is None or row.minimum is None:
        return row.note
    share = f", {row.of_sgemm:.0%}" if row.of_sgemm else ""
    return f"{1e3 * row.processor:.3g} ms ({1e3 * row.minimum:.3g} wall{share})"


def figure(rows: Sequence[harness.Row], path: Path) -> None:
    """Wall time against N, one line for each alternative."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(6, 4)).add_subplot()
    for name in dict.fromkeys(row.name for row in rows):
        mine = sorted((row.problem["N"], row.minimum) for row in rows if row.name == name and row.minimum)
        if mine:
            axes.loglog([n for n, _ in mine], [1e3 * seconds for _, seconds in mine], marker="o", label=name)
    axes.set(xlabel="N, pairs of views", ylabel="loss and gradient, ms (minimum)")
    axes.legend()
    axes.figure.savefig(path, dpi=120, bbox_inches="tight")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args(arguments)
    rows = harness.load(chosen.result)
    print(table(rows))
    if chosen.figure:
        figure(rows, chosen.figure)


if __name__ == "__main__":
    main()
