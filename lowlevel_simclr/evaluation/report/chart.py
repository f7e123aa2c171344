"""Draws curves as SVG. A script in the page lets readers zoom and read values, but the curves do not need it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lowlevel_simclr.evaluation.report.markup import escape

MOST_POINTS = 400  # points of a curve; of a longer curve, means over equal parts are drawn
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 480, 270, 58, 10, 14, 36  # size and margins of the drawing, in SVG units
UNIT = 1000  # inside a panel, both axes run from 0 to this number
TICKS = 4  # parts into which the ticks divide an axis
COLOURS = 6  # colours of lines in the style sheet


class Curve(NamedTuple):
    """A quantity over the steps of a run. `values` may hold None, which leaves a gap."""

    name: str
    steps: Sequence[float]
    values: Sequence[float | None]


class Level(NamedTuple):
    """A horizontal line, such as a baseline."""

    name: str
    value: float


class Span(NamedTuple):
    """The lowest and the highest value of an axis."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return the position of a value on the axis: 0 for `low`, UNIT for `high`."""
        return round(UNIT * (value - self.low) / (self.high - self.low), 2)


def shorten_curve(curve: Curve) -> Curve:
    """Return a curve of at most MOST_POINTS points. If there are more, each new point is the mean of several old ones.

    Example:
        >>> shorten_curve(Curve("loss", range(800), [1.0, 3.0] * 400)).values[:2]
        [2.0, 2.0]
    """
    size = -(-len(curve.steps) // MOST_POINTS)
    if size < 2:
        return curve
    steps, values = [], []
    for first in range(0, len(curve.steps), size):
        part = [value for value in curve.values[first : first + size] if value is not None]
        steps.append(sum(curve.steps[first : first + size]) / len(curve.steps[first : first + size]))
        values.append(sum(part) / len(part) if part else None)
    return Curve(curve.name, steps, values)


def draw_chart(title: str, unit: str, curves: Sequence[Curve], last: int, levels: Sequence[Level] = ()) -> str:
    """Return a figure with curves over the steps and horizontal lines, or "" if no curve has a value.

    Args:
        title: what the curves show.
        unit: the unit of the values, in words.
        curves: the curves.
        last: the last step of the axis.
        levels: the horizontal lines.
    """
    curves = [shorten_curve(curve) for curve in curves if any(value is not None for value in curve.values)]
    if not curves:
        return ""
    x = Span(0, max(1, last))
    known = [value for curve in curves for value in curve.values if value is not None]
    y = find_span([*known, *(level.value for level in levels)])
    data = {"x": x, "y": y, "curves": [[each.name, list(each.steps), list(each.values)] for each in curves]}
    alt = escape(_describe(title, unit, curves, levels))
    return (
        f'<figure class="chart" data-chart="{escape(json.dumps(data))}"><h3>{escape(title)}</h3>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{alt}">'
        f"{_draw_axes(x, y)}"
        f'<svg class="panel" x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
        f'viewBox="0 0 {UNIT} {UNIT}" preserveAspectRatio="none">'
        f"{''.join(_draw_level(place, level, y) for place, level in enumerate(levels, len(curves)))}"
        f"{''.join(_draw_curve(place, curve, x, y) for place, curve in enumerate(curves))}"
        f"</svg></svg>{_write_key(curves, levels)}"
        f'<p class="readout" aria-live="polite">{escape(unit)}</p></figure>'
    )


def find_span(values: Sequence[float]) -> Span:
    """Return a span that contains all given values and has round numbers at its ticks.

    Example:
        >>> find_span([2.9, 4.14])
        Span(low=2.5, high=4.5)
    """
    low, high = min(values), max(values)
    extent = high - low or abs(low) or 1.0
    exponent = math.floor(math.log10(extent / TICKS))
    for factor in (1, 2, 2.5, 5, 10, 20):
        distance = factor * 10.0**exponent
        start = math.floor(low / distance) * distance
        if start + TICKS * distance >= high:
            break
    return Span(round(start, 12), round(start + TICKS * distance, 12))


def _draw_axes(x: Span, y: Span) -> str:
    """Return grid lines and numbers."""
    width, height, parts = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, []
    for tick in range(TICKS + 1):
        across, down = LEFT + width * tick / TICKS, TOP + height * (1 - tick / TICKS)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:g}" y2="{down:g}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{down + 4:g}">{_format_tick(y, tick)}</text>')
        parts.append(f'<text class="x" x="{across:g}" y="{HEIGHT - BOTTOM + 17}">{_format_tick(x, tick)}</text>')
    parts.append(f'<text class="x" x="{LEFT + width / 2:g}" y="{HEIGHT - 3}">step</text>')
    return "".join(parts)


def _format_tick(span: Span, tick: int) -> str:
    """Return the number at a tick, with enough digits to tell neighbouring ticks apart.

    Ticks that are 10 or more apart have whole numbers.
    """
    distance = (span.high - span.low) / TICKS
    value = span.low + distance * tick
    return f"{round(value, 12):.4g}" if distance < 10 else f"{round(value)}"


def _draw_level(place: int, level: Level, y: Span) -> str:
    down = UNIT - y.place(level.value)
    return f'<path class="level c{place % COLOURS}" d="M0 {down:g}H{UNIT}"/>'


def _draw_curve(place: int, curve: Curve, x: Span, y: Span) -> str:
    """Return a curve, with a dot at each point if there are few points."""
    path, pen, dots = [], "M", []
    for step, value in zip(curve.steps, curve.values):
        if value is None:
            pen = "M"
            continue
        point = f"{x.place(step):g} {UNIT - y.place(value):g}"
        path.append(f"{pen}{point}")
        dots.append(f"M{point}h0")
        pen = "L"
    dotted = f'<path class="dots c{place % COLOURS}" d="{"".join(dots)}"/>' if len(dots) <= 30 else ""
    return f'<path class="curve c{place % COLOURS}" d="{"".join(path)}"/>{dotted}'


def _write_key(curves: Sequence[Curve], levels: Sequence[Level]) -> str:
    """Return the legend: the name of each line, and for a horizontal line also its value."""
    names = [("curve", curve.name) for curve in curves]
    names += [("level", f"{level.name}, {level.value:.3f}") for level in levels]
    items = "".join(
        f'<li><svg class="swatch" viewBox="0 0 24 8" aria-hidden="true"><path class="{kind} c{place % COLOURS}" '
        f'd="M0 4H24"/></svg>{escape(name)}</li>'
        for place, (kind, name) in enumerate(names)
    )
    return f'<ul class="key">{items}</ul>'


def _describe(title: str, unit: str, curves: Sequence[Curve], levels: Sequence[Level]) -> str:
    """Return what a chart shows, for people who do not see it."""
    parts = []
    for curve in curves:
        values: list[Any] = [value for value in curve.values if value is not None]
        parts.append(f"{curve.name}: from {values[0]:.4g} to {values[-1]:.4g}")
    parts += [f"{level.name}: {level.value:.4g}" for level in levels]
    return f"{title}, {unit}, over the steps. {'; '.join(parts)}."
