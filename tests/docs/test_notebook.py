"""Tests the tutorial's notebook: it must equal what a program makes from the tutorial's page, and it must run."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.report import notebook
from lowlevel_simclr.config import identity
from lowlevel_simclr.config.command_line import override_settings, parse_run
from lowlevel_simclr.config.starting_point import choose_starting_point
from tests.support import pages

PAGE = pages.ROOT / "docs" / "photographs.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")


def list_code() -> list[str]:
    """Return the code of each code cell of the stored notebook."""
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in stored["cells"] if cell["cell_type"] == "code"]


def find_training_call() -> tuple[list[Any], dict[str, Any]]:
    """Return the positional arguments and the settings of the call of `ls.train` in the notebook."""
    calls = [node for cell in list_code() for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == "ls.train"]
    settings = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return [ast.literal_eval(each) for each in call.args], settings


def test_the_notebook_is_that_of_its_page() -> None:
    written = notebook.format_notebook(PAGE)
    assert NOTEBOOK.read_text(encoding="utf-8") == written, "run python -m bench.report.notebook docs/photographs.md"


def test_the_notebook_trains_with_the_settings_of_the_page() -> None:
    programs = map(pages.parse_program, pages.list_distinct_commands(pages.list_blocks(PAGE)))
    (flags,) = [each.flags for each in programs if each and each.name == "train" and "--preview" not in each.flags]
    expected, options = parse_run(flags)
    (dataset, out), settings = find_training_call()
    base = choose_starting_point(None, dataset, None)
    assert identity.to_dict(override_settings(base, {**settings, "dataset": dataset})) == identity.to_dict(expected)
    assert Path(out) == options.out


def test_a_page_becomes_cells() -> None:
    page = (
        "# T\n\ntext\n\n<!-- page only -->\nno\n<!-- /page only -->\n\n```python\na = 1\n```\n\n"
        "<!-- output -->\n```text\n1\n```\n<!-- /output -->\n\n<!-- notebook\nb = a\n-->\n\n```sh\nx\n```\n\nend\n"
    )
    assert notebook.split_page(page) == [
        ("markdown", "# T\n\ntext"),
        ("code", "a = 1"),
        ("code", "b = a"),
        ("markdown", "end"),
    ]


def test_a_command_without_python_is_refused() -> None:
    with pytest.raises(ValueError, match="before the block:\nprogram"):
        notebook.split_page("a\n\n```sh\nprogram\n```\n")


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the notebook's code on 1,500 drawings, with 600 training steps.

    The trained encoder must be clearly better than the untrained encoder and than raw pixels.
    """
    nbformat = pytest.importorskip("nbformat", reason="nbformat is missing (see requirements-docs.txt)")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is missing (see requirements-docs.txt)")
    pytest.importorskip("ipykernel", reason="ipykernel is missing (see requirements-docs.txt)")
    path = os.pathsep.join(filter(None, [str(pages.ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)
    ran = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(ran, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = json.loads((tmp_path / "runs" / "pictures" / "evaluation.json").read_text())
    assert results["knn"]["20"] > max(results["knn_untrained"]["20"], results["knn_pixels"]["20"]) + 0.2
    said = ["".join(str(output) for output in cell["outputs"]) for cell in ran.cells if cell["cell_type"] == "code"]
    assert all(said[:3]) and "image/png" in said[1] and "text/html" in said[2] and "(1, 64)" in said[-1]
