"""Finds phrases in the text of this project that are hard to read: python -m tests.support.prose.

The list of phrases is in this file. Earlier comments, messages and pages of this project were full of them. The exit
code is 1 if one is found. `make lint` runs this program.
"""

from __future__ import annotations

import bisect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDERS = ("lowlevel_simclr", "kernels", "tests", "bench", "docs")
SUFFIXES = {".py", ".md", ".cc", ".h", ".cuh", ".cu"}


class Phrase(NamedTuple):
    """A phrase to avoid.

    Attributes:
        pattern: a regular expression. The program searches for it in the text, with spaces in place of line breaks.
        advice: what to write instead.
        before: a sentence that has the phrase.
        after: the same sentence in plain words.
    """

    pattern: str
    advice: str
    before: str
    after: str


PHRASES = (
    Phrase(
        r"\b(that|which|it|they|there) (is|are|was|were) none\b",
        "say what it is: NaN, missing, not a number",
        "a run that is none",
        "a folder that is not a run",
    ),
    Phrase(
        r"\b(is|are|was|were|be) told\b", "raises, prints, reports", "a missing file is told", "the message names it"
    ),
    Phrase(
        r"(?<!thing )(?<!where )(?<!one )\belse[.;,)]", "otherwise", "1 for views, 0 else.", "1 for views, otherwise 0."
    ),
    Phrase(r"\bof (which|whom) the\b", "whose", "a file of which the name", "a file whose name"),
    Phrase(
        r"\bin silence\b", "silently, without a message", "it is dropped in silence", "it is dropped without a message"
    ),
    Phrase(
        r"\b[Ww]hat (\w+ ){1,3}makes? of\b", "name the result", "what Keras makes of it", "the layer that Keras returns"
    ),
    Phrase(r"\bunasked\b", "by default", "used unasked", "used by default"),
    Phrase(
        r"\b[Ww]hat (\w+ ){1,3}c[oa]mes? to\b",
        "name the result",
        "what a configuration comes to",
        "the plan of a configuration",
    ),
    Phrase(
        r"\bthat (is|are|was|were) no (?!longer|larger|smaller|more|less|slower|faster)\w+",
        "that is not a",
        "a name that is no file",
        "a name that is not a file",
    ),
    Phrase(r"\b[Nn]obody\b", "name the actor: no thread, no caller", "if nobody reads it", "if no op reads it"),
    Phrase(r"\b(go|goes|going|went) on\b", "resumes, continues", "the run goes on", "the run resumes"),
    Phrase(r"\bgiven up\b", "aborted, skipped", "an exchange that is given up", "an aborted exchange"),
    Phrase(r"\b(is|are|was|were) said\b", "the message says", "what is said of it", "what the message says"),
    Phrase(r"\b(do|does|did) without\b", "does not need, does not use", "does without a GPU", "does not need a GPU"),
    Phrase(
        r"\bcannot be[:.,;]", "name the verb: cannot be split", "a batch of 0 cannot be.", "a batch needs an image."
    ),
    Phrase(
        r": give\b", "a full stop, then: Use, Give, It must be", "size is 0: give more", "size is 0. Use 1 or more."
    ),
    Phrase(r"\bheld against\b", "compared with", "held against NumPy", "compared with NumPy"),
    Phrase(
        r"\b(but for|everything but|every \w+ but)\b",
        "except",
        "every row but its rate",
        "every row except its rate",
    ),
    Phrase(r"\b[Ss]o many\b", "name the number", "after so many steps", "after `count` steps"),
    Phrase(r"\banew\b", "again, new", "it is built anew", "it is built again"),
)


def flatten(text: str) -> tuple[str, list[int]]:
    """Return the text with a space in place of each line break and comment mark, and where each line begins in it."""
    lines = [line.strip().lstrip("#/ ") for line in text.splitlines()]
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line) + 1)
    return " ".join(lines), begins


def find_phrases(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, phrase and advice for each phrase to avoid."""
    flat, begins = flatten(text)
    for phrase in PHRASES:
        for found in re.finditer(phrase.pattern, flat):
            yield bisect.bisect(begins, found.start()), found.group(), phrase.advice


def list_files(root: Path = ROOT) -> list[Path]:
    """Return every file to check, except this one and its test, which quote the phrases."""
    quoting = (root / "tests/support/prose.py", root / "tests/docs/test_prose.py")
    files = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in SUFFIXES]
    files += [root / "Makefile", root / "setup.py", *root.glob("*.md")]
    return sorted(path for path in files if path not in quoting)


def main(paths: Sequence[str]) -> int:
    """Print every phrase in these files, or in all files of the project; return the exit code."""
    files = [Path(path) for path in paths] or list_files()
    found = [(path, *where) for path in files for where in find_phrases(path.read_text(encoding="utf-8"))]
    for path, line, phrase, advice in found:
        print(f"{os.path.relpath(path)}:{line}: '{phrase}'. Write: {advice}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
