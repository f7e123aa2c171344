"""Tests that texts and lines in the HTML report have enough contrast with their background, by the rules of WCAG 2."""

from __future__ import annotations

import re

import pytest

from lowlevel_simclr.evaluation.report import style

PALETTES = {"light": style.LIGHT, "dark": style.DARK}


def measure_luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def measure_contrast(one: str, other: str) -> float:
    low, high = sorted([measure_luminance(one), measure_luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_the_formula_gives_the_known_contrast_of_black_and_white() -> None:
    assert measure_contrast("#ffffff", "#000000") == pytest.approx(21)
    assert measure_contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("mode", PALETTES)
@pytest.mark.parametrize(("names", "least"), [(style.TEXTS, 4.5), (style.LINES, 3.0)])
def test_texts_and_lines_have_enough_contrast(mode: str, names: tuple[str, ...], least: float) -> None:
    colours = PALETTES[mode]
    contrasts = {(a, b): measure_contrast(colours[a], colours[b]) for a in names for b in style.BACKGROUNDS}
    assert {pair: value for pair, value in contrasts.items() if value < least} == {}


def test_the_style_sheet_has_no_other_colours_of_text() -> None:
    """Test that texts and lines use no other colours than those that the test above tests."""
    used = set(re.findall(r"(?:[{;]color|fill|stroke):var\(--(\w+)\)", style.write_style()))
    assert used == {*style.TEXTS, *style.LINES, "edge"}  # "edge" is the colour of grid lines
    assert style.LIGHT.keys() == style.DARK.keys()
    assert not re.search(r"[{;](?:color|fill):#", style.RULES)
