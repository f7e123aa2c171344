"""The sections of the report of one run, in the order of the page."""

from __future__ import annotations

import math
from typing import Any

from lowlevel_simclr.config.command import write_command
from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.report import markup
from lowlevel_simclr.evaluation.report.chart import Curve, Level, draw_chart
from lowlevel_simclr.evaluation.report.embedding_map import draw_map
from lowlevel_simclr.evaluation.report.facts import Facts, find_steps, measure_rate, measure_seconds
from lowlevel_simclr.evaluation.report.tables import (
    PROTOCOL,
    list_accuracies,
    list_settings,
    list_trained_with_labels,
)
from lowlevel_simclr.run.checkup import MEASURES, Verdict

MOST_LISTED = 50  # most left-out files that a list shows; data.json has all of them
CURVES = {  # the quantities of metrics.jsonl that are drawn: title, unit and name
    "loss": ("NT-Xent loss", "nats", "loss"),
    "top1": ("Contrastive top-1", "share of the views that find their pair", "top-1"),
    "knn": ("k-NN on held-out images", "accuracy", "trained encoder"),
    "learning_rate": ("Learning rate", "learning rate", "learning rate"),
}
COUNTED = {  # the counts of data.json
    "train": "images to train on",
    "test": "images that are held out",
    "skipped": "images that were skipped",
    "not_images": "files that are not images",
    "outside_splits": "images outside the folders of the splits",
}
VERSIONS = ("lowlevel_simclr", "git", "tensorflow", "keras", "numpy", "python", "platform")


def write_summary(facts: Facts) -> str:
    """Return a paragraph about what was trained, with its k-NN accuracy."""
    settings, (trained, planned) = facts.settings, find_steps(facts)
    images = facts.data.get("counts", {}).get("train")
    parts = [
        f"The encoder {settings.get('encoder')} was trained by SimCLR, without labels, on {settings.get('dataset')}"
        + (f" ({images:,} images)" if isinstance(images, int) else "")
        + f": {trained:,} steps of {settings.get('batch_size')} images."
    ]
    if planned is not None and trained < planned:
        parts.append(f"The training has not ended: the run has {planned:,} steps.")
    knn = facts.evaluation.get("knn", {}).get("20")
    if knn is not None:
        untrained, pixels = (facts.evaluation.get(f"knn_{kind}", {}).get("20") for kind in ("untrained", "pixels"))
        parts.append(
            f"20-NN on held-out images reaches {markup.format_share(knn)}, the untrained encoder "
            f"{markup.format_share(untrained)}, pixels {markup.format_share(pixels)}."
        )
    return markup.write_paragraph(" ".join(parts)) + "".join(
        markup.write_paragraph(f"A file of the run was left out. {problem}", "warning") for problem in facts.problems
    )


def write_recipe(facts: Facts) -> str:
    """Return the command that trains the run again, and every setting."""
    command = write_command(facts.config, f"runs/{facts.name}-again")
    typed = facts.environment.get("command")
    return markup.write_section(
        "How it was trained",
        markup.write_paragraph("This command trains it again, with every choice that the program made for the device:"),
        markup.write_code(command),
        *([markup.write_paragraph(f"The run was started by: {typed}", "muted")] if typed else []),
        markup.write_details(
            "All settings", markup.write_table("Settings", ["setting", "value"], list_settings(facts.settings))
        ),
    )


def write_curves(facts: Facts) -> str:
    """Return the curves with their baselines."""
    if not facts.metrics:
        return ""
    chance = facts.kept.get("chance_loss")
    baselines = [Level(name, value) for name, value in facts.kept.get("knn_baselines", {}).items()]
    batch = facts.settings.get("batch_size")
    guess = [Level("chance", 1 / (2 * batch - 1))] if isinstance(batch, int) else []
    known = [Level("chance", chance)] if chance else []
    levels = {"loss": known, "top1": guess, "knn": baselines, "learning_rate": []}
    last = facts.metrics[-1]["step"]
    charts = [
        draw_chart(title, unit, [make_curve(facts, key, name)], last, levels[key])
        for key, (title, unit, name) in CURVES.items()
    ]
    advice = "Drag over a curve to zoom in, double-click for the whole run. The keys +, -, left and right work too."
    return markup.write_section(
        "Learning", f'<div class="charts">{"".join(charts)}</div>', markup.write_paragraph(advice, "muted")
    )


def make_curve(facts: Facts, key: str, name: str) -> Curve:
    """Return a quantity of metrics.jsonl as a curve over the steps that have it."""
    rows = [row for row in facts.metrics if key in row]
    values = [value if value is None or math.isfinite(value) else None for value in (row[key] for row in rows)]
    return Curve(name, [row["step"] for row in rows], values)


def write_views(facts: Facts) -> str:
    """Return the picture of the views (random augmentations)."""
    if "views" not in facts.pictures:
        return ""
    alt = "A row of training images, and below each image two random views of it."
    caption = "Training images (top) and two views of each. The encoder learns which views are of one image."
    return markup.write_section("Views", markup.write_picture(facts.pictures["views"], alt, caption))


def write_map(facts: Facts) -> str:
    """Return the interactive map of h if the run has one, and the picture with the maps before and after training."""
    parts = [draw_map(facts.kept["map"])] if facts.kept.get("map") else []
    if "embedding" in facts.pictures:
        alt = "Two maps of h by t-SNE, before and after training. Each point is a held-out image."
        picture = markup.write_picture(facts.pictures["embedding"], alt, "The same map before and after training.")
        parts.append(markup.write_details("Before and after training", picture) if parts else picture)
    return markup.write_section("Map of the representation (h)", *parts) if parts else ""


def write_neighbours(facts: Facts) -> str:
    """Return the picture of nearest neighbours."""
    if "neighbours" not in facts.pictures:
        return ""
    alt = "Rows of images. The first of each row is held out, the others are the training images nearest to it in h."
    caption = "Held-out images and the training images that are nearest in h."
    caption += " A check mark means the same class." if len(facts.data.get("classes", ())) > 1 else ""
    return markup.write_section("Nearest neighbours", markup.write_picture(facts.pictures["neighbours"], alt, caption))


def write_accuracy(facts: Facts) -> str:
    """Return the tables of accuracies, with sentences about how they were measured."""
    evaluation, parts = facts.evaluation, []
    head, rows = list_accuracies(evaluation)
    if rows:
        parts.append(markup.write_table("Accuracy on held-out images", head, rows))
        parts.append(markup.write_paragraph(PROTOCOL, "muted"))
    trained = list_trained_with_labels(evaluation)
    if trained:
        parts.append(markup.write_table("Trained with labels", ["protocol", "accuracy", "spread", "seeds"], trained))
        text = "The accuracy is the mean over the seeds, and the spread their standard deviation."
        parts.append(markup.write_paragraph(text, "muted"))
    if not parts:
        text = "Nothing was classified: that needs labels of two classes." if evaluation else "Not evaluated yet."
        parts.append(markup.write_paragraph(text))
    if evaluation.get("train_on") == "all":
        text = "The encoder was trained on training and held-out images together, which inflates these numbers."
        parts.append(markup.write_paragraph(text, "warning"))
    if evaluation.get("transform"):
        parts.append(markup.write_paragraph(f"Images: {evaluation['transform']}.", "muted"))
    notes = [f"{name}: {note}" for name, note in evaluation.get("notes", {}).items()]
    return markup.write_section("Accuracy", *parts, *([markup.write_list(notes)] if notes else []))


def write_checkup(facts: Facts) -> str:
    """Return the measures of h and z during training (check-ups) and what they show, or "" if the run has none."""
    found = facts.checkup
    if found is None or (found.judged is None and not found.series):
        return ""
    parts = [_write_verdict(verdict) for verdict in found.verdicts]
    if found.judged is None:
        parts.append(markup.write_paragraph("The run was not judged yet."))
    elif not parts:
        parts.append(markup.write_paragraph(f"Nothing was noticed up to step {found.judged:,}."))
    last = facts.metrics[-1]["step"] if facts.metrics else 0
    charts = [
        draw_chart(MEASURES[name].title, MEASURES[name].meaning, [Curve(MEASURES[name].title, *series)], last)
        for name, series in found.series.items()
    ]
    return markup.write_section(
        "Check-up without labels",
        *parts,
        markup.write_details("Measures", f'<div class="charts">{"".join(charts)}</div>'),
    )


def _write_verdict(verdict: Verdict) -> str:
    """Return a verdict (something noticeable in the run), with its evidence and advice."""
    state = "" if verdict.holds else " It no longer held at the last check-up."
    return (
        markup.write_paragraph(f"Step {verdict.step:,}: {verdict.title}", "warning")
        + markup.write_paragraph(verdict.evidence + state)
        + markup.write_list(verdict.advice)
    )


def write_data(facts: Facts) -> str:
    """Return the number of images, the classes, and what was left out."""
    data = facts.data
    if not data:
        return ""
    counts = data["counts"]
    shown = {name: count for name, count in counts.items() if count or name in ("train", "test")}
    parts = [markup.write_list(f"{COUNTED.get(name, name)}: {count:,}" for name, count in shown.items())]
    classes = data.get("classes", [])
    if classes:
        title = f"{len(classes)} classes (training ignores them)"
        parts.append(markup.write_details(title, markup.write_list(classes)))
    for name, title in (("skipped", "Skipped images"), ("left_out", "Left out")):
        if data.get(name):
            rows = [[entry.get("path", ""), entry.get("reason", "")] for entry in data[name][:MOST_LISTED]]
            listed = markup.write_table(f"{title}, at most {MOST_LISTED} are shown", ["file", "reason"], rows)
            parts.append(markup.write_details(f"{title}: {len(data[name])}", listed))
    unlabelled = data.get("unlabelled")
    if unlabelled:
        listed = markup.write_list(unlabelled[:MOST_LISTED])
        parts.append(markup.write_details(f"Images without a label, not evaluated: {len(unlabelled)}", listed))
    return markup.write_section("Data", *parts)


def write_cost(facts: Facts) -> str:
    """Return the time, the speed, the memory and the energy of the training."""
    environment, rate, seconds = facts.environment, measure_rate(facts), measure_seconds(facts)
    rows = [["device", _name_device(environment)]]
    rows += [[name, environment[name]] for name in ("precision", "implementation") if environment.get(name)]
    if rate is not None:
        rows.append(["pairs of views a second, median", f"{rate:,.0f}"])
    if seconds is not None:
        rows.append(["time of all steps, with compiling", markup.format_seconds(seconds)])
    for where, size in (environment.get("peak_memory_bytes") or {}).items():
        if size:
            rows.append([f"peak memory, {where}", f"{size / 1e9:.2f} GB"])
    energy = environment.get("energy_joules")
    rows.append(["energy", f"{energy / 3.6e6:.3g} kWh" if energy else "not measured"])
    earlier = environment.get("earlier") or []
    rows.append(["sessions", str(1 + len(earlier))])
    rows += [["started", environment["started"]]] if environment.get("started") else []
    table = markup.write_table("Time and cost of the training", ["what", "value"], rows)
    return markup.write_section("Time and cost", table)


def _name_device(environment: dict[str, Any]) -> str:
    cpu = environment.get("cpu") or {}
    gpus = environment.get("gpus") or []
    return show_name(", ".join(map(str, gpus)) or f"{cpu.get('model', 'unknown')}, {cpu.get('cores', '?')} cores")


def write_versions(facts: Facts) -> str:
    """Return the versions of the programs in the last session of the training."""
    rows = [[name, facts.environment[name]] for name in VERSIONS if facts.environment.get(name)]
    if not rows:
        return ""
    table = markup.write_table("Versions of the last session", ["what", "version"], rows)
    return markup.write_section("Versions", table)


SECTIONS = {
    "summary": write_summary,
    "how it was trained": write_recipe,
    "learning": write_curves,
    "views": write_views,
    "map": write_map,
    "neighbours": write_neighbours,
    "accuracy": write_accuracy,
    "check-up": write_checkup,
    "data": write_data,
    "time and cost": write_cost,
    "versions": write_versions,
}
