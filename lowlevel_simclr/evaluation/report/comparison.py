"""Compares several runs: the settings that differ, the curves of all runs in common charts, and a table of results."""

from __future__ import annotations

from collections.abc import Sequence

from lowlevel_simclr.config.command import write_command
from lowlevel_simclr.evaluation.report import markup
from lowlevel_simclr.evaluation.report.chart import COLOURS, draw_chart
from lowlevel_simclr.evaluation.report.facts import Facts, find_steps, measure_rate
from lowlevel_simclr.evaluation.report.sections import CURVES, make_curve
from lowlevel_simclr.evaluation.report.tables import PROTOCOL, list_differences


def name_runs(every: Sequence[Facts]) -> list[Facts]:
    """Return the runs with distinct names: the names of their folders, or whole paths if two folders have one name."""
    names = [facts.name for facts in every]
    return [facts._replace(name=str(facts.folder)) if names.count(facts.name) > 1 else facts for facts in every]


def write_differences(every: Sequence[Facts]) -> str:
    """Return the table of the settings that are not the same in all runs."""
    rows = list_differences([{"preset": facts.config.get("preset"), **facts.settings} for facts in every])
    if not rows:
        return markup.write_section("Settings that differ", markup.write_paragraph("All settings are the same."))
    table = markup.write_table("Settings that differ", ["setting", *(facts.name for facts in every)], rows)
    return markup.write_section("Settings that differ", table)


def write_curves(every: Sequence[Facts]) -> str:
    """Return the curves of all runs, a chart for each quantity."""
    last = max(find_steps(facts)[0] for facts in every)
    charts = [
        draw_chart(title, unit, [make_curve(facts, key, facts.name) for facts in every], last)
        for key, (title, unit, _) in CURVES.items()
    ]
    note = f"There are more than {COLOURS} runs, so colours repeat." if len(every) > COLOURS else ""
    parts = [markup.write_paragraph(note, "muted")] if note else []
    return markup.write_section("Learning", f'<div class="charts">{"".join(charts)}</div>', *parts)


def write_results(every: Sequence[Facts]) -> str:
    """Return one table with a row for each run."""
    head = ["run", "k-NN 20", "k-NN 200", "linear", "untrained, k-NN 20", "pixels, k-NN 20", "steps", "loss", "pairs/s"]
    rows = []
    for facts in every:
        found = facts.evaluation
        shares = [found.get("knn", {}).get("20"), found.get("knn", {}).get("200"), found.get("linear")]
        shares += [found.get("knn_untrained", {}).get("20"), found.get("knn_pixels", {}).get("20")]
        rate, loss = measure_rate(facts), facts.metrics[-1].get("loss") if facts.metrics else None
        numbers = [str(find_steps(facts)[0]), markup.format_number(loss), "–" if rate is None else f"{rate:.0f}"]
        rows.append([facts.name, *map(markup.format_share, shares), *numbers])
    return markup.write_section(
        "Results", markup.write_table("Results of the runs", head, rows), markup.write_paragraph(PROTOCOL, "muted")
    )


def write_commands(every: Sequence[Facts]) -> str:
    """Return the command that trains each run again."""
    parts = [
        f"<h3>{markup.escape(facts.name)}</h3>{markup.write_code(write_command(facts.config, f'{facts.folder}-again'))}"
        for facts in every
    ]
    return markup.write_section("Commands that train them again", *parts)


SECTIONS = {
    "settings": write_differences,
    "learning": write_curves,
    "results": write_results,
    "commands": write_commands,
}
