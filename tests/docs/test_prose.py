"""Tests that no text of this repository has a phrase from a list of phrases that are hard to read.

The list is in tests/support/prose.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import prose


@pytest.mark.parametrize("path", prose.list_files(), ids=lambda path: str(path.relative_to(prose.ROOT)))
def test_a_file_is_in_plain_words(path: Path) -> None:
    found = list(prose.find_phrases(path.read_text(encoding="utf-8")))
    assert found == [], "see tests/support/prose.py"


@pytest.mark.parametrize("phrase", prose.PHRASES, ids=lambda phrase: phrase.pattern)
def test_a_phrase_is_found_and_its_plain_words_are_not(phrase: prose.Phrase) -> None:
    assert [advice for _, _, advice in prose.find_phrases(phrase.before)] == [phrase.advice]
    assert list(prose.find_phrases(phrase.after)) == []


def test_there_are_few_phrases() -> None:
    assert len(prose.PHRASES) <= 20


def test_a_phrase_over_two_lines_of_a_comment_has_its_first_line() -> None:
    text = "import os\n\n# A caller is\n# told.\n// nothing else, and what Keras\n// makes of it\n"
    assert [(line, phrase) for line, phrase, _ in prose.find_phrases(text)] == [
        (3, "is told"),
        (5, "what Keras makes of"),
    ]


def test_the_program_names_file_line_and_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.md").write_text("It works.\nIt goes on.\n")
    (tmp_path / "new.md").write_text("It works.\nIt resumes.\n")
    assert prose.main([str(tmp_path / "new.md")]) == 0 and capsys.readouterr().out == ""
    assert prose.main([str(tmp_path / "old.md"), str(tmp_path / "new.md")]) == 1
    assert capsys.readouterr().out == "old.md:2: 'goes on'. Write: resumes, continues\n"
