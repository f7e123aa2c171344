"""Tests the charts in the HTML report about a training: axes, curves of metrics, and horizontal lines (levels)."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from lowlevel_simclr.evaluation.report.chart import MOST_POINTS, TICKS, Curve, Level, draw_chart, find_span


@pytest.mark.parametrize(
    "values", [[2.9, 4.14], [0, 0.1], [1e-5, 6e-3], [5, 5], [0, 0], [-3, 9], [1e6, 3e6], [0.999, 1.0], [-1, -1]]
)
def test_a_span_holds_its_values_and_has_short_numbers(values: list[float]) -> None:
    span = find_span(values)
    assert span.low <= min(values) and max(values) <= span.high
    ticks = [span.low + (span.high - span.low) * tick / TICKS for tick in range(TICKS + 1)]
    distance = ticks[1] - ticks[0]
    assert f"{distance:.1e}"[:3] in ("1.0", "2.0", "2.5", "5.0")
    assert distance <= 2.5 * ((max(values) - min(values)) or abs(values[0]) or 1) / TICKS * 2


def test_a_chart_shows_its_curves_and_levels() -> None:
    curve = Curve("loss <1>", [1, 2, 3, 4], [4.0, 2.0, None, 1.0])
    text = draw_chart("Loss", "nats", [curve], 4, [Level("chance", 5.0)])
    figure = ElementTree.fromstring(text)
    paths = [(path.get("class"), path.get("d")) for path in figure.iter("path")]
    # The axis goes from 1 to 5. The value None makes a gap in the curve.
    assert ("curve c0", "M250 250L500 750M1000 1000") in paths
    assert ("level c1", "M0 0H1000") in paths
    svg = next(figure.iter("svg"))
    assert svg.get("role") == "img" and "loss <1>: from 4 to 1; chance: 5" in str(svg.get("aria-label"))
    assert json.loads(str(figure.get("data-chart")))["curves"] == [["loss <1>", [1, 2, 3, 4], [4.0, 2.0, None, 1.0]]]
    assert [item.text or item[0].tail for item in figure.iter("li")] == ["loss <1>", "chance, 5.000"]


def test_a_long_run_is_thinned_to_means() -> None:
    curve = Curve("loss", range(1, 10_001), [float(step % 2) for step in range(10_000)])
    data = json.loads(str(ElementTree.fromstring(draw_chart("Loss", "nats", [curve], 10_000)).get("data-chart")))
    _, steps, values = data["curves"][0]
    assert len(steps) == len(values) <= MOST_POINTS and set(values) <= {0.48, 0.5, 0.52}


def test_nothing_is_drawn_without_a_value() -> None:
    assert draw_chart("k-NN", "accuracy", [Curve("k-NN", [], []), Curve("other", [1], [None])], 1) == ""


def test_a_run_of_one_step_is_drawn() -> None:
    text = draw_chart("Loss", "nats", [Curve("loss", [1], [3.0])], 1)
    assert re.search(r'class="dots c0" d="M1000 [\d.]+h0"', text) and "nan" not in text


@pytest.mark.parametrize(
    ("last", "ticks"), [(1950, "0 488 975 1462 1950"), (6, "0 1.5 3 4.5 6"), (1, "0 0.25 0.5 0.75 1")]
)
def test_the_axis_of_the_steps_has_whole_numbers_where_the_ticks_are_far_apart(last: int, ticks: str) -> None:
    drawn = draw_chart("Loss", "nats", [Curve("loss", [1, last], [2.0, 1.0])], last)
    assert re.findall(r'<text class="x"[^>]*>([\d.]+)<', drawn) == ticks.split()
