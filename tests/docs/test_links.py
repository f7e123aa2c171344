"""Tests that links between the pages of the documentation work, and that the site's contents list every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import pages

SITE = [page for page in pages.PAGES if page.parent.name == "docs"]


def make_anchor(heading: str) -> str:
    """Return the name with which a link leads to a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in pages.list_links(page) if not (page.parent / link.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_links_lead_to_headings(page: Path) -> None:
    for link in pages.list_links(page):
        path, _, anchor = link.partition("#")
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(make_anchor, headings)


def test_every_page_is_in_the_contents() -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (pages.ROOT / "docs" / "index.md").read_text("utf-8"), re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert sorted(listed) == sorted(page.stem for page in SITE if page.stem != "index")


@pytest.mark.parametrize("page", SITE, ids=lambda page: page.stem)
def test_a_page_has_one_title(page: Path) -> None:
    text = pages.FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^# ", text, re.MULTILINE)
    assert len(titles) == 1 or page.stem == "contributing"  # it includes CONTRIBUTING.md with its title
