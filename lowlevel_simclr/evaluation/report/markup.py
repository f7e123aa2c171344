"""Writes the parts of an HTML page.

This module escapes every text, because names from file systems can contain HTML.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from lowlevel_simclr.config.names import show_name


def escape(text: object) -> str:
    """Return a text, or any other value as text, with HTML's special characters escaped."""
    return html.escape(show_name(str(text)))


def write_paragraph(text: object, kind: str = "") -> str:
    """Return a paragraph of text. `kind` is its class in the style sheet."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def write_section(title: str, *parts: str) -> str:
    """Return a section with a heading of the second level."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def write_table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table. The first cell of a row is its heading. On a narrow screen, the reader can scroll the table."""
    columns = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def write_list(items: Iterable[object]) -> str:
    """Return a list of texts."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def write_details(summary: str, *parts: str) -> str:
    """Return a part of the page that is hidden until the reader clicks on its summary."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def write_code(text: str) -> str:
    """Return a command as a separate block. Lines break only between words."""
    words = " ".join(f"<span>{escape(word)}</span>" for word in text.split(" "))
    return f'<pre tabindex="0"><code>{words}</code></pre>'


def write_picture(png: bytes, alt: str, caption: str) -> str:
    """Return a PNG picture whose bytes are part of the page. On a narrow screen, the reader can scroll the picture."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def format_number(value: object) -> str:
    """Return a number with four digits, or a dash for a missing number."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_share(value: object) -> str:
    """Return an accuracy in [0, 1] with three digits, or a dash for a missing one."""
    return f"{value:.3f}" if isinstance(value, (int, float)) else "–"


def format_seconds(seconds: float) -> str:
    """Return a duration.

    Examples:
        >>> format_seconds(42), format_seconds(600), format_seconds(7260)
        ('42 s', '10 min', '2 h 1 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
