"""Tests that the parts of the documentation that programs write (tables, help texts, outputs) are up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.report import markers, reference_pages, site_tables, step_page, transcript


def read_between(name: str) -> str:
    """Return the text between the two markers with this name, on the page that has these markers."""
    text = markers.find_page(name, markers.list_pages()).read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


@pytest.mark.parametrize("write", [reference_pages.format_flags, reference_pages.format_presets])
def test_the_reference_is_up_to_date(write: Callable[[], str]) -> None:
    name = write.__name__.removeprefix("format_")
    assert read_between(name) == write(), "run python -m bench.report.reference_pages"


@pytest.mark.parametrize(("name", "text"), site_tables.list_parts().items(), ids=site_tables.list_parts())
def test_a_table_holds_what_the_results_say(name: str, text: str) -> None:
    assert read_between(name) == text, "run python -m bench.report.site_tables"


def test_the_page_of_steps_holds_what_the_results_say() -> None:
    assert step_page.STEP.read_text(encoding="utf-8") == site_tables.format_steps()


@pytest.mark.slow
@pytest.mark.parametrize("program", reference_pages.PROGRAMS)
def test_a_help_text_is_up_to_date(program: str) -> None:
    assert read_between(f"help:{program}") == reference_pages.format_help(program)


def test_every_setting_and_preset_is_on_its_page() -> None:
    flags, recipes = read_between("flags"), read_between("presets")
    assert all(f"`{field.flag}`" in flags for field in reference_pages.list_fields().values())
    assert all(f"## {name}\n" in recipes for name in reference_pages.presets.PRESETS)


def test_a_page_gets_what_its_blocks_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n```sh\necho one > file\n```\n\n<!-- output -->\nold\n<!-- /output -->\n\n"
        "```python\nprint(open('file').read())\n```\n\n<!-- output -->\n<!-- /output -->\nb\n"
    )
    transcript.main([str(page)])
    assert page.read_text().endswith("\n\n<!-- output -->\n```text\none\n```\n<!-- /output -->\nb\n")
    assert "<!-- output -->\n<!-- /output -->\n\n```python" in page.read_text()


def test_a_block_runs_the_program_of_this_checkout(tmp_path: Path) -> None:
    """Test that a block runs the programs of this repository, even if another version of the package is installed."""
    said = transcript.run_block("sh", "type lowlevel-simclr | head -1; lowlevel-simclr --help | head -1", tmp_path)
    assert said.splitlines()[0].endswith("is a function") and "usage: lowlevel-simclr" in said


def test_a_block_that_fails_leaves_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho why >&2; false\n```\n\n<!-- output -->\nold\n<!-- /output -->\n")
    with pytest.raises(RuntimeError, match="why"):
        transcript.main([str(page)])
    assert "old" in page.read_text()


def test_the_tutorial_has_its_outputs() -> None:
    text = (markers.ROOT / "docs" / "photographs.md").read_text(encoding="utf-8")
    assert "<!-- output -->\n<!-- /output -->" not in text


def test_markers_that_stand_twice_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.md", tmp_path / "b.md"]
    for path in paths:
        path.write_text("<!-- x -->\n<!-- /x -->\n")
    with pytest.raises(ValueError, match="exactly one page"):
        markers.find_page("x", paths)
    assert markers.find_page("x", paths[:1]) == paths[0]
