"""Sphinx's settings for the site: `make docs` builds it, and every warning is an error.

Formulas become MathML, which browsers draw without a script, so that the pages work without a network.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # autodoc imports TensorFlow, whose notes would hide warnings

project = "lowlevel_simclr"
author = "the authors of lowlevel_simclr"
project_copyright = "the authors; Apache-2.0"
version = release = importlib.import_module("lowlevel_simclr").__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

autodoc_typehints = "none"  # no types in signatures: the Args sections have them, with shapes
autodoc_member_order = "bysource"
autoclass_content = "class"
napoleon_google_docstring, napoleon_numpy_docstring = True, False

smartquotes = False  # it makes a dash of the two hyphens of a flag

html_theme = "furo"
html_title = "lowlevel_simclr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
linkcheck_ignore = [r"https?://"]  # internal links only: the build must not depend on other people's servers


def _write_inline(self: Any, node: nodes.math) -> None:
    """Write a formula in a line."""
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _write_block(self: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own. It scrolls by itself where the screen is narrow."""
    self.body.append(f'<div class="formula">{latex2mathml.tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def _keep_bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape bars in docstrings: |z| is a norm there, and a substitution in reStructuredText."""
    lines[:] = [line.replace("|", "\\|") if not line.lstrip().startswith(">>>") else line for line in lines]


def _read_returns(self: Any, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    """Read Returns: as a sentence. Napoleon takes what stands before a colon for a type, as in "The run: its ..."."""
    lines = self._dedent(self._consume_to_next_section())
    return [("", "", lines)] if lines else []


def _read_property(self: Any) -> tuple[str, list[str]]:
    """Read the docstring of a property as a sentence, for the same reason."""
    lines = [self._lines.next(), *self._dedent(self._consume_to_end())]
    return "", self.__class__(lines, self._config).lines()


def _mark_long_code(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Give code in a sentence that is longer than a line the class that wraps it. A flag stays whole."""
    for node in doctree.findall(nodes.literal):
        if len(node.astext()) > 60:
            node["classes"].append("long")


def setup(app: Sphinx) -> None:
    """Tell Sphinx how to write formulas and how to read docstrings."""
    GoogleDocstring._consume_returns_section = _read_returns
    GoogleDocstring._consume_inline_attribute = _read_property
    app.connect("autodoc-process-docstring", _keep_bars)
    app.connect("doctree-resolved", _mark_long_code)
    app.add_html_math_renderer("mathml", (_write_inline, None), (_write_block, None))
