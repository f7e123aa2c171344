"""Writes docs/command-line.md and docs/presets.md from the configuration: python -m bench.report.reference_pages.

Every setting is a field in `config/settings.py`, and every preset is a function in `config/presets.py`. This program
copies the help texts of the settings and the docstrings of the presets into the pages. A test fails if a page differs
from the text that this program writes.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from bench.report import markers
from lowlevel_simclr.config import presets
from lowlevel_simclr.config.fields import Field, describe_wanted, format_value, get_value, list_fields
from lowlevel_simclr.config.settings import SECTIONS, Config

PROGRAMS = ("evaluate", "embed", "report", "export", "check")  # not `train`: the tables of flags describe it
WIDTH = 100  # the line width of a help text, in characters


def format_flags() -> str:
    """Return the tables of all flags, one table for each section of the settings."""
    parts = []
    for section, kind in SECTIONS.items():
        fields = [field for field in list_fields().values() if field.section == section]
        lines = [f"### {section.capitalize()}", "", (kind.__doc__ or "").strip(), ""]
        lines += ["| flag | what it is | accepts | default |", "|---|---|---|---|"]
        lines += [_format_flag(field) for field in fields]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _format_flag(field: Field) -> str:
    """Return the table line of one setting."""
    flag = f"`{field.flag}`"
    if field.item is bool:
        flag += f", `--no-{field.flag[2:]}`"
    text = _escape(field.rule["help"])
    if not field.rule.get("identity", True):
        text += " *"
    return f"| {flag} | {text} | {_format_accepted(field)} | {_format_short(get_value(Config(), field))} |"


def _format_accepted(field: Field) -> str:
    """Return a description of the values that a setting accepts."""
    if "choices" in field.rule:
        return ", ".join(f"`{choice}`" for choice in field.rule["choices"])
    if field.item is bool:
        return "yes or no"
    return _escape(describe_wanted(field))


def _format_short(value: Any) -> str:
    """Return a value as a user types it: a float with at most six digits, a boolean as yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return " ".join(_format_short(part) for part in value)
    return f"{value:.6g}" if isinstance(value, float) else _escape(format_value(value))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def format_presets() -> str:
    """Return one section for each preset: its docstring, and a table of the settings that differ from the defaults."""
    parts = []
    for name, make in presets.PRESETS.items():
        config = make()
        lines = [f"## {name}", "", _escape(inspect.cleandoc(make.__doc__ or "")), ""]
        lines += ["| flag | value | default |", "|---|---|---|"]
        for field in list_fields().values():
            value, default = get_value(config, field), get_value(Config(), field)
            if value != default:
                lines.append(f"| `{field.flag}` | {_format_short(value)} | {_format_short(default)} |")
        parts.append("\n".join(_break_paragraphs(line) for line in lines))
    return "\n\n".join(parts)


def _break_paragraphs(text: str) -> str:
    """Start a new paragraph at each label of a docstring, such as "Expected:" or "Cost:"."""
    for word in ("Expected:", "Cost:", "Not reproduced:", "Corrected:", "Our choices,"):
        text = text.replace(f"\n{word}", f"\n\n**{word[:-1]}**{word[-1]}")
    return text


def format_help(program: str) -> str:
    """Return the text that a program prints for --help, as a Markdown code block."""
    command = [sys.executable, "-m", f"lowlevel_simclr.{program}", "--help"]
    environment = {**os.environ, "COLUMNS": str(WIDTH)}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=markers.ROOT)
    return f"```text\n{said.stdout.rstrip()}\n```"


def list_parts() -> dict[str, str]:
    """Return a dict with the generated texts. Each key is the name of the two markers around the text on its page."""
    helps = {f"help:{program}": format_help(program) for program in PROGRAMS}
    return {"flags": format_flags(), "presets": format_presets(), **helps}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write each text between its markers on the page that has them."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    for name, text in list_parts().items():
        markers.write_between(markers.find_page(name, markers.list_pages()), name, text)


if __name__ == "__main__":
    main()
