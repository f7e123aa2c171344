"""Draws a map of encoder outputs (h): a point in the plane for each image. Pointing at a point shows its image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lowlevel_simclr.evaluation.class_marks import PALE, PALETTE, choose_mark, choose_named_classes
from lowlevel_simclr.evaluation.report.markup import escape

SIDE, MARGIN, RADIUS = 600, 14, 5  # units of the drawing


def draw_map(kept: Mapping[str, Any]) -> str:
    """Return a figure with the points of h and their images.

    Args:
        kept: the "map" of plots/report.json, see `kept.py`.
    """
    labels, classes = np.array(kept["labels"], np.int64), [str(name) for name in kept["classes"]]
    named = choose_named_classes(labels, len(classes))
    ranks = {label: rank for rank, label in enumerate(named)} or dict.fromkeys(labels.tolist(), 0)
    marks = "".join(
        _draw_point(place, x, y, ranks.get(label), label)
        for place, ((x, y), label) in enumerate(zip(kept["points"], labels.tolist()))
    )
    alt = f"Map of h, by t-SNE: {len(labels)} held-out images"
    alt += f" of {len(classes)} classes. Points that lie close together have similar h." if classes else "."
    names = escape(json.dumps(classes))
    return (
        f"<style>.thumb{{background-image:url(data:image/jpeg;base64,{escape(kept['thumbnails'])})}}</style>"
        f'<figure><div class="map" data-names="{names}"><svg viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{escape(alt)}">{marks}</svg>'
        f'<div class="tip"><div class="thumb"></div><span class="name"></span></div></div>'
        f"{_write_key(classes, named)}"
        f"<figcaption>Each point is a held-out image. Point at one, or tap it, to see the image. The axes of "
        f"t-SNE have no unit.</figcaption></figure>"
    )


def _draw_point(place: int, x: float, y: float, rank: int | None, label: int) -> str:
    """Return a point. Of the classes in the legend, the first ten are discs, and the next ten are squares."""
    across, down = (MARGIN + (SIDE - 2 * MARGIN) * share for share in (float(x), 1 - float(y)))
    colour = PALE if rank is None else choose_mark(rank)[0]
    data = f'data-i="{place}" data-c="{label}" fill="{colour}"'
    if rank is not None and rank >= len(PALETTE):
        corner = f'x="{across - RADIUS:.1f}" y="{down - RADIUS:.1f}"'
        return f'<rect {data} {corner} width="{2 * RADIUS}" height="{2 * RADIUS}"/>'
    return f'<circle {data} cx="{across:.1f}" cy="{down:.1f}" r="{RADIUS}"/>'


def _write_key(classes: Sequence[str], named: Sequence[int]) -> str:
    """Return the legend: the classes with their marks. It is empty if there are fewer than two classes."""
    if len(classes) < 2:
        return ""
    items = []
    for rank, number in enumerate(named):
        shape = '<rect width="12" height="12"' if rank >= len(PALETTE) else '<circle cx="6" cy="6" r="6"'
        mark = f'<svg class="dot" viewBox="0 0 12 12" aria-hidden="true">{shape} fill="{choose_mark(rank)[0]}"/></svg>'
        items.append(f"<li>{mark}{escape(classes[number])}</li>")
    rest = len(classes) - len(named)
    items += [f"<li>{rest} other classes are grey</li>"] if rest > 0 else []
    return f'<ul class="key">{"".join(items)}</ul>'
