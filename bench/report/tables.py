"""Draws stored results: python -m bench.report.tables RESULT.json ... [--figure out.png] [--readme].

Prints a Markdown table, draws time and memory against N, and with --readme writes the table between the markers of its
name in the README, <!-- bench:NAME --> and <!-- /bench:NAME -->. Rows of further results of the same kind go into the
same table and figure, under the first one's name. It measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import harness

_PROBES = ("linear", "linear_augmented")  # of evaluation.json, with means and spreads over seeds


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
    memory = f", {_three_digits(row.peak_memory / 1e6)} MB" if row.peak_memory is not None else ""
    return f"{_three_digits(1e3 * row.processor)} ms ({_three_digits(1e3 * row.minimum)} wall{share}{memory})"


def _three_digits(value: float) -> str:
    """To three significant digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def views_table(rows: Sequence[harness.Row]) -> str:
    """Markdown: a line for each problem, views a processor second of each alternative and native's ratio to it."""
    names = list(dict.fromkeys(row.name for row in rows))
    lines = ["| sources -> view | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for problem in dict.fromkeys(tuple(row.problem.items()) for row in rows):
        found = {row.name: row for row in rows if tuple(row.problem.items()) == problem and row.processor}
        facts = dict(problem)
        label = f"{facts['height']} x {facts['width']} -> {facts['size']}" + (", blur" if facts["blur"] else "")
        rates = {name: row.extra["views_per_processor_second"] for name, row in found.items()}
        ratios = {name: "" if name == names[0] else f" ({rates[names[0]] / rate:.1f}x)" for name, rate in rates.items()}
        cells = [f"{rates[name]:,.0f}{ratios[name]}" if name in rates else "" for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def caption(results: Sequence[dict[str, Any]]) -> str:
    """Who measured the rows of some results, and when."""
    said = [f"{each['device']}, TensorFlow {each['versions']['tensorflow']}, {each['date']}" for each in results]
    return "; ".join(dict.fromkeys(said)) + "."


def figure(rows: Sequence[harness.Row], path: Path) -> None:
    """Wall time and, where it was measured, memory against N: one line for each alternative."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    times, memory = plt.figure(figsize=(10, 4)).subplots(1, 2)
    for name in dict.fromkeys(row.name for row in rows):
        mine = sorted((row for row in rows if row.name == name and row.minimum), key=lambda row: row.problem["N"])
        if not mine:
            continue
        times.loglog([row.problem["N"] for row in mine], [1e3 * (row.minimum or 0) for row in mine], "o-", label=name)
        held = [row for row in mine if row.peak_memory]
        memory.loglog([row.problem["N"] for row in held], [(row.peak_memory or 0) / 1e6 for row in held], "o-")
    times.set(xlabel="N, pairs of views", ylabel="loss and gradient, ms (minimum)")
    memory.set(xlabel="N, pairs of views", ylabel="memory beside z, MB (peak)")
    times.legend()
    times.figure.savefig(path, dpi=120, bbox_inches="tight")


def accuracy_table(stored: dict[str, Any]) -> str:
    """Markdown: a line for each seed, then mean and spread; accuracies in per cent."""
    runs = stored["runs"]
    columns = [
        ("k-NN 20", lambda run: run["knn"]["20"]),
        ("k-NN 200", lambda run: run["knn"]["200"]),
        ("linear", lambda run: run["linear"]),
        ("k-NN 20, untrained", lambda run: run["knn_untrained"]["20"]),
        ("k-NN 20, pixels", lambda run: run["knn_pixels"]["20"]),
    ]
    lines = ["| seed | " + " | ".join(name for name, _ in columns) + " | seconds |", "|---" * (len(columns) + 2) + "|"]
    for run in runs:
        cells = " | ".join(f"{100 * of(run):.1f}" for _, of in columns)
        seconds = "resumed" if run["seconds"] is None else f"{run['seconds']:.0f}"
        lines.append(f"| {run['seed']} | {cells} | {seconds} |")
    if len(runs) > 1:
        spread = [(statistics.mean(map(of, runs)), statistics.stdev(map(of, runs))) for _, of in columns]
        lines.append("| mean | " + " | ".join(f"{100 * mean:.1f} ± {100 * std:.1f}" for mean, std in spread) + " | |")
    first = runs[0]
    lines += [
        "",
        f"`{stored['command']}`; {stored['device']}, {first['precision']}, TensorFlow {first['tensorflow']}, "
        f"{first['steps']} steps, {first['pairs_per_second']:.0f} pairs/s.",
    ]
    return "\n".join([*lines, *_beside_the_table(first)])


def _beside_the_table(run: dict[str, Any]) -> list[str]:
    """Of one run what has no column: k-NN along it, what was trained with labels, what flatters it."""
    lines = []
    if run.get("curve"):
        curve = ", ".join(f"{100 * value:.1f} at step {step}" for step, value in run["curve"].items())
        sample = "a sample of the test images among a sample of the train images, which is lower than among all"
        lines += ["", f"k-NN 20 along the run of seed {run['seed']} ({sample}): {curve}."]
    scores = [(f"fine-tuned on {100 * float(share):g} %", each) for share, each in _fine_tuned(run)]
    scores += [(name.replace("_", ", "), run["seeds"][name]) for name in _PROBES if name in run.get("seeds", {})]
    if scores:
        lines += ["", "| trained with labels | accuracy | seeds | training |", "|---|---|---|---|"]
    for what, each in scores:
        spread = "" if each["std"] is None else f" ± {100 * each['std']:.1f}"
        recipe = each.get("recipe")
        how = f"{recipe['steps']} steps of {recipe['batch_size']} images" if recipe else ""
        lines.append(f"| {what} | {100 * each['mean']:.1f}{spread} | {each['n']} | {how} |")
    if run.get("train_on") == "all":
        lines += ["", "Trained on train and test images together, which inflates these numbers."]
    return lines


def first_steps_table(stored: dict[str, Any]) -> str:
    """Markdown: means over some steps a line."""
    lines = ["| steps | loss | top-1 |", "|---|---|---|"]
    for span in stored["spans"]:
        first, last = span["steps"]
        lines.append(f"| {first}-{last} | {span['loss']:.3f} | {100 * span['top1']:.1f} % |")
    memory = stored["peak_memory_bytes"]["host"]
    peak = "" if memory is None else f", {memory / 1e9:.1f} GB of memory"
    lines += [
        "",
        f"`{stored['command']}`; {stored['encoder']}, {stored['stem']} stem, batch {stored['batch_size']}, chance "
        f"{stored['chance']:.3f}, {stored['seconds_per_step']:.1f} s a step{peak}; {stored['device']}, "
        f"{stored['precision']}, TensorFlow {stored['tensorflow']}.",
    ]
    return "\n".join(lines)


def _fine_tuned(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(run.get("seeds", {}).get("finetune", {}).items(), key=lambda item: float(item[0]))


def step_table(stored: dict[str, Any]) -> str:
    """Markdown: a line for each form of the training step."""
    lines = ["| form | pairs/s, median | best | whole job is |", "|---" * 4 + "|"]
    for name, form in stored["forms"].items():
        against = stored["whole_against"].get(name)
        ratio = f"{against['by_medians']:.2f}x" if against else ""
        lines.append(f"| {name} | {form['pairs_per_second']:.0f} | {form['best_pairs_per_second']:.0f} | {ratio} |")
    config = stored["config"]
    lines += [
        "",
        f"{config['encoder']}, {config['stem']} stem, {config['image_size']} pixels, batch {config['batch_size']}, "
        f"{config['precision']}, {config['ops']} ops, LARS; {stored['device']}, TensorFlow "
        f"{stored['versions']['tensorflow']}, {stored['date']}.",
    ]
    if by_process := stored.get("encoder_by_process"):
        lines[-1] += f" Of the encoder, by process: {', '.join(f'{each:.2f}x' for each in by_process)}."
    return "\n".join(lines)


def step_figure(stored: dict[str, Any], path: Path) -> None:
    """Pairs a second of each form, medians as bars and the 10th and 90th percentile as whiskers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    forms, batch_size = stored["forms"], stored["config"]["batch_size"]
    middle = [form["pairs_per_second"] for form in forms.values()]
    below = [rate - batch_size / form["p90_seconds"] for rate, form in zip(middle, forms.values())]
    above = [batch_size / form["p10_seconds"] - rate for rate, form in zip(middle, forms.values())]
    axes = plt.figure(figsize=(6, 2.5)).add_subplot()
    axes.barh(list(forms), middle, xerr=[below, above])
    axes.invert_yaxis()
    axes.set(xlabel=f"pairs a second, {stored['config']['encoder']}, batch {batch_size}")
    axes.figure.savefig(path, dpi=120, bbox_inches="tight")


def write_into_readme(readme: Path, name: str, text: str) -> None:
    """Replaces what stands between the markers of a name.

    Raises:
        ValueError: the README has no such markers.
    """
    pattern = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
    old = readme.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise ValueError(f"{readme} has no markers <!-- bench:{name} --> and <!-- /bench:{name} -->")
    readme.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old), encoding="utf-8")


def markdown(results: Sequence[dict[str, Any]], rows: Sequence[harness.Row]) -> str:
    """What the README shows of some results of one kind; `rows` are those of all of them."""
    first = results[0]
    if first.get("benchmark") == "step":
        return "\n\n".join(step_table(each) for each in results)
    if first.get("benchmark") == "first_steps":
        return first_steps_table(first)
    if "runs" in first:
        return accuracy_table(first)
    shown = views_table(rows) if "blur" in rows[0].problem else table(rows)
    return f"{shown}\n\n{caption(results)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; draw and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    chosen = parser.parse_args(arguments)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in chosen.results]
    rows = [harness.Row(**row) for each in results for row in each.get("rows", [])]
    shown = markdown(results, rows)
    print(shown)
    if chosen.figure and results[0].get("benchmark") == "step":
        step_figure(results[0], chosen.figure)
    elif chosen.figure:
        figure(rows, chosen.figure)
    if chosen.readme:
        write_into_readme(Path("README.md"), chosen.results[0].stem, shown)


if __name__ == "__main__":
    main()
