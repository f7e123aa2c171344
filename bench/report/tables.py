"""Makes a table and a figure from results: python -m bench.report.tables RESULT.json ... [--figure PNG --write].

All files must be results of the same bench. The program prints a Markdown table with the rows of all files. With
--figure it also draws a figure. For results of bench_nt_xent, the figure shows time and memory over N (the number of
pairs). For a result of bench_step, it shows the speed of each program. With --write the program also writes the table
between the markers <!-- bench:NAME --> and <!-- /bench:NAME -->, in the README or the page of the site that has these
markers. NAME is the name of the first file, without .json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import harness
from bench.report import markers

AT_CEILING = "≥\u00a0100%"  # explained in docs/measurements.md and docs/op-speed.md
# The present folder of each module that was moved into a folder. The commands stored in older results name these
# modules without the folder.
_MOVED = {"accuracy": "learning", "first_steps": "learning"}
_PROBES = ("linear", "linear_augmented")  # entries of evaluation.json with a mean and a standard deviation over seeds


def format_times(rows: Sequence[harness.Row]) -> str:
    """Return a Markdown table of times, with one line for each problem and one column for each alternative.

    An alternative is one way to compute the answer. A cell begins with the smallest processor time. The smallest wall
    time stands behind it in parentheses. If they were measured, two more numbers stand in the parentheses. The first is
    the op's rate as a percentage of a matrix product's rate, both in operations per second. The second is the peak
    memory.
    """
    names = list(dict.fromkeys(row.name for row in rows))
    problems = list(dict.fromkeys(tuple(row.problem.items()) for row in rows))
    cells = {(tuple(row.problem.items()), row.name): _format_cell(row) for row in rows}
    lines = ["| problem | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for problem in problems:
        label = ", ".join(f"{key} = {value}" for key, value in problem)
        lines.append(f"| {label} | " + " | ".join(cells.get((problem, name), "") for name in names) + " |")
    return "\n".join(lines)


def _format_cell(row: harness.Row) -> str:
    if row.processor is None or row.minimum is None:
        return row.note
    share = f", {_format_share(row.of_sgemm)}" if row.of_sgemm else ""
    memory = f", {_format_digits(row.peak_memory / 1e6)} MB" if row.peak_memory is not None else ""
    return f"{_format_digits(1e3 * row.processor)} ms ({_format_digits(1e3 * row.minimum)} wall{share}{memory})"


def _format_share(share: float) -> str:
    """Return the op's rate as a percentage of a matrix product's rate, or "≥ 100%" if the op was at least as fast."""
    return f"{share:.0%}" if share <= 1 else AT_CEILING


def _format_digits(value: float) -> str:
    """Return the value rounded to three significant digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def format_views(rows: Sequence[harness.Row]) -> str:
    """Return a Markdown table of views per processor second, with one line for each problem.

    There is one column for each alternative, which is one way to make the views. The first alternative is the native
    op. In the other columns, the number in parentheses is the speed of the native op divided by the speed of the
    column's alternative.
    """
    names = list(dict.fromkeys(row.name for row in rows))
    lines = ["| image -> view, pixels | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for problem in dict.fromkeys(tuple(row.problem.items()) for row in rows):
        found = {row.name: row for row in rows if tuple(row.problem.items()) == problem and row.processor}
        facts = dict(problem)
        label = f"{facts['height']} x {facts['width']} -> {facts['size']}" + (", blur" if facts["blur"] else "")
        rates = {name: row.extra["views_per_processor_second"] for name, row in found.items()}
        ratios = {name: "" if name == names[0] else f" ({rates[names[0]] / rate:.1f}x)" for name, rate in rates.items()}
        cells = [f"{rates[name]:,.0f}{ratios[name]}" if name in rates else "" for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_caption(results: Sequence[dict[str, Any]]) -> str:
    """Return a line with the device, the version of TensorFlow and the date of each result."""
    said = [f"{each['device']}, TensorFlow {each['versions']['tensorflow']}, {each['date']}" for each in results]
    return "; ".join(dict.fromkeys(said)) + "."


def _name_command(stored: dict[str, Any]) -> str:
    """Return the command that made a result, with the present names of modules that have moved since."""
    command = stored["command"]
    for name, folder in _MOVED.items():
        command = command.replace(f"-m bench.{name} ", f"-m bench.{folder}.{name} ")
    return command


# In figures, these texts replace the names from the stored results. A figure has no text that explains such names.
_IN_WORDS = {
    "whole": "this package: the whole step",
    "encoder": "this package: the encoder alone",
    "plain": "plain TensorFlow and Keras",
    "plain bfloat16": "plain TensorFlow and Keras, bfloat16",
    "torch": "PyTorch",
    "native": "this package",
    "native jit": "this package, in XLA",
    "stock graph": "plain TensorFlow",
    "stock XLA": "plain TensorFlow, in XLA",
    "four blocks graph": "TensorFlow, four blocks of similarities",
    "torch plain": "PyTorch",
}


def draw_times(rows: Sequence[harness.Row], path: Path) -> None:
    """Draw the smallest wall time and, if measured, the peak memory over N. Each alternative is a line."""
    import matplotlib  # imported here, because the tables do not need it

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(10, 4.6), layout="constrained")
    times, memory = figure.subplots(1, 2)
    for name in dict.fromkeys(row.name for row in rows):
        mine = sorted((row for row in rows if row.name == name and row.minimum), key=lambda row: row.problem["N"])
        if not mine:
            continue
        label = _IN_WORDS.get(name, name)
        times.loglog([row.problem["N"] for row in mine], [1e3 * (row.minimum or 0) for row in mine], "o-", label=label)
        held = [row for row in mine if row.peak_memory]
        memory.loglog([row.problem["N"] for row in held], [(row.peak_memory or 0) / 1e6 for row in held], "o-")
    times.set(xlabel="N, pairs of views", ylabel="shortest time of loss and gradient, ms")
    memory.set(xlabel="N, pairs of views", ylabel="peak memory without the input z, MB")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)  # below the panels, so that it covers no line
    figure.savefig(path, dpi=120, bbox_inches="tight")


def format_accuracy(stored: dict[str, Any]) -> str:
    """Return a Markdown table of accuracies in per cent: one line for each seed, then mean ± standard deviation."""
    runs = stored["runs"]
    columns = [
        ("20-NN", lambda run: run["knn"]["20"]),
        ("200-NN", lambda run: run["knn"]["200"]),
        ("linear probe", lambda run: run["linear"]),
        ("20-NN, untrained encoder", lambda run: run["knn_untrained"]["20"]),
        ("20-NN, raw pixels", lambda run: run["knn_pixels"]["20"]),
    ]
    lines = [
        "| seed | " + " | ".join(f"{name}, %" for name, _ in columns) + " | seconds |",
        "|---" * (len(columns) + 2) + "|",
    ]
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
        f"`{_name_command(stored)}`; {stored['device']}, {first['precision']}, TensorFlow {first['tensorflow']}, "
        f"{first['steps']} steps, {first['pairs_per_second']:.0f} pairs/s.",
    ]
    return "\n".join([*lines, *_format_remarks(first)])


def _format_remarks(run: dict[str, Any]) -> list[str]:
    """Return the lines below the table of accuracies.

    They give the k-NN accuracy (of a nearest-neighbour classifier) during the run, and the accuracies of classifiers
    that were trained with labels. If the encoder was trained on the test images too, the lines warn that this inflates
    the numbers.
    """
    lines = []
    if run.get("curve"):
        curve = ", ".join(f"{100 * value:.1f} at step {step}" for step, value in run["curve"].items())
        sample = "Only samples of the test and training images were used, so these accuracies are lower than with all "
        sample += "images."
        lines += ["", f"20-NN accuracy in per cent during the run of seed {run['seed']}: {curve}. {sample}"]
    scores = [(f"fine-tuned on {100 * float(share):g} % of the labels", each) for share, each in _sort_fine_tuned(run)]
    scores += [(name.replace("_", ", "), run["seeds"][name]) for name in _PROBES if name in run.get("seeds", {})]
    if scores:
        lines += ["", "| classifier trained with labels | accuracy, % | seeds | training |", "|---|---|---|---|"]
    for what, each in scores:
        spread = "" if each["std"] is None else f" ± {100 * each['std']:.1f}"
        recipe = each.get("recipe")
        how = f"{recipe['steps']} steps of {recipe['batch_size']} images" if recipe else ""
        lines.append(f"| {what} | {100 * each['mean']:.1f}{spread} | {each['n']} | {how} |")
    if run.get("train_on") == "all":
        lines += ["", "The encoder was trained on training and test images together. This inflates these numbers."]
    return lines


def format_first_steps(stored: dict[str, Any]) -> str:
    """Return a Markdown table of the first steps of a run. Each line has means over a group of steps."""
    lines = ["| steps | mean loss | mean contrastive top-1 |", "|---|---|---|"]
    for span in stored["spans"]:
        first, last = span["steps"]
        lines.append(f"| {first}-{last} | {span['loss']:.3f} | {100 * span['top1']:.1f} % |")
    memory = stored["peak_memory_bytes"]["host"]
    peak = "" if memory is None else f" Peak memory: {memory / 1e9:.1f} GB."
    lines += [
        "",
        f"`{_name_command(stored)}`; {stored['encoder']}, {stored['stem']} stem, batch {stored['batch_size']}; "
        f"{stored['device']}, {stored['precision']}, TensorFlow {stored['tensorflow']}. Contrastive top-1 is the "
        "share of views whose nearest view in the batch is the other view of the same image. If all similarities were "
        f"equal, the loss would be {stored['chance']:.3f}. The median time of a step is "
        f"{stored['seconds_per_step']:.1f} s.{peak}",
    ]
    return "\n".join(lines)


def format_mixed_aspects(stored: dict[str, Any]) -> str:
    """Return a Markdown table with one line for each run, on whole pictures or on squares cut from them."""
    lines = [
        "| pictures | seed | pixels shown by at least one view, % | k-NN 20, % | k-NN 200, % | linear, % |",
        "|---|---|---|---|---|---|",
    ]
    for way in sorted(stored["ways"], key=lambda way: (way["pictures"], way["seed"])):
        scores = [way["knn"]["20"], way["knn"]["200"], way["linear"]]
        cells = [way["pictures"], str(way["seed"]), *(f"{100 * each:.1f}" for each in (way["pixels_shown"], *scores))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"`{_name_command(stored)}`; preset {stored['preset']}, {stored['epochs']} epochs of {stored['train']:,} "
        f"pictures, {stored['test']:,} to test with; {stored['device']}.",
    ]
    return "\n".join(lines)


def _sort_fine_tuned(run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(run.get("seeds", {}).get("finetune", {}).items(), key=lambda item: float(item[0]))


def format_step_forms(stored: dict[str, Any]) -> str:
    """Return a Markdown table with one line for each program (in the code: form) that bench_step timed."""
    lines = [
        "| program | pairs/s, median | pairs/s, best turn | speed of the whole job relative to this program |",
        "|---" * 4 + "|",
    ]
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
        ratios = ", ".join(f"{each:.2f}x" for each in by_process)
        lines[-1] += f" Speed of the whole job relative to the encoder, in each process: {ratios}."
    return "\n".join(lines)


def draw_step_forms(stored: dict[str, Any], path: Path) -> None:
    """Draw the pairs per second of each program: the median as a bar, the 10th to 90th percentile as a thin line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    forms, batch_size = stored["forms"], stored["config"]["batch_size"]
    middle = [form["pairs_per_second"] for form in forms.values()]
    below = [rate - batch_size / form["p90_seconds"] for rate, form in zip(middle, forms.values())]
    above = [batch_size / form["p10_seconds"] - rate for rate, form in zip(middle, forms.values())]
    figure = plt.figure(figsize=(6, 2.5))
    axes = figure.add_subplot()
    axes.barh([_IN_WORDS.get(name, name) for name in forms], middle, xerr=[below, above])
    axes.invert_yaxis()
    axes.set(xlabel=f"pairs a second (median, p10-p90), {stored['config']['encoder']}, batch {batch_size}")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def format_results(results: Sequence[dict[str, Any]], rows: Sequence[harness.Row]) -> str:
    """Return the Markdown table that a page shows.

    Args:
        results: stored results of the same bench.
        rows: the rows of all these results.
    """
    first = results[0]
    if first.get("benchmark") == "step":
        return "\n\n".join(format_step_forms(each) for each in results)
    if first.get("benchmark") == "first_steps":
        return format_first_steps(first)
    if first.get("benchmark") == "mixed_aspects":
        return format_mixed_aspects(first)
    if "runs" in first:
        return format_accuracy(first)
    shown = format_views(rows) if "blur" in rows[0].problem else format_times(rows)
    return f"{shown}\n\n{format_caption(results)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table. If the flags ask for it, draw the figure and write the table into its page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="stored results of the same bench")
    parser.add_argument("--figure", type=Path, help="draw a figure into this file")
    parser.add_argument("--write", action="store_true", help="write the table into the page that has its markers")
    chosen = parser.parse_args(arguments)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in chosen.results]
    rows = [harness.Row(**row) for each in results for row in each.get("rows", [])]
    shown = format_results(results, rows)
    print(shown)
    if chosen.figure and results[0].get("benchmark") == "step":
        draw_step_forms(results[0], chosen.figure)
    elif chosen.figure:
        draw_times(rows, chosen.figure)
    if chosen.write:
        name = f"bench:{chosen.results[0].stem}"
        markers.write_between(markers.find_page(name, markers.list_pages(Path.cwd())), name, shown)


if __name__ == "__main__":
    main()
