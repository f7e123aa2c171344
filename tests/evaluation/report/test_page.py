"""Tests the HTML report about a training: its content, its accessibility, and that it needs no other file.

Names of files and classes must stay text in a page, and never become HTML.
"""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.evaluation.report import page, sections
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkup import Verdict, write_verdicts
from tests.support.finished_run import write_finished_run
from tests.support.other_process import output_of

VOID = {"meta", "img", "br"}
HOSTILE = ('<script>alert("1")</script>', "a&b", "\x1b[31m\n", "\udcff", "'\"><img src=x onerror=alert(1)>")


class Page(HTMLParser):
    """The elements of an HTML page, each with its attributes and text. An element that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, Any]] = []
        self.elements: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "text": "", **dict(attrs)})

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def find(self, *tags: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_finished_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def texts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return three pages: about a run with labels, about a run without labels, and a comparison of two runs."""
    out = tmp_path_factory.mktemp("pages")
    bare = write_finished_run(out / "bare", (), {"schema": 1, "train_on": "train"}, temperature=0.5)
    page.write_run_report(folder, out / "labelled.html")
    page.write_run_report(bare, out / "unlabelled.html")
    page.write_comparison([folder, bare], out / "both.html")
    return {path.stem: path.read_text(encoding="utf-8") for path in out.glob("*.html")}


def test_a_page_shows_what_the_run_did(texts: dict[str, str]) -> None:
    shown = Page(texts["labelled"])
    headings = [element["text"] for element in shown.find("h2")]
    assert headings == [
        "How it was trained",
        "Learning",
        "Views",
        "Map of the representation (h)",
        "Nearest neighbours",
        "Accuracy",
        "Data",
        "Time and cost",
        "Versions",
    ]
    assert "is missing" not in texts["labelled"] and "left out. " not in texts["labelled"]
    body = shown.find("body")[0]["text"]
    for words in (
        "20-NN on held-out images reaches 0.910, the untrained encoder 0.410, pixels 0.210",
        "not <converged>",
    ):
        assert words in body
    rows = [row["text"] for row in shown.find("tr")]
    assert "trained encoder0.9100.8200.930" in rows and "linear probe, trained on views0.9400.0103" in rows
    assert (
        "a.pngtruncated" in rows
        and "pairs of views a second, median100" in rows
        and "time of all steps, with compiling51 s" in rows
    )
    assert len(shown.find("circle")) == 12 + 2  # 12 points of the map, and 2 in its legend


def test_the_command_of_a_page_trains_the_same(folder: Path, texts: dict[str, str]) -> None:
    command = next(element["text"] for element in Page(texts["unlabelled"]).find("code"))
    config, _ = parse_run(shlex.split(command)[3:])
    assert command.startswith("python -m lowlevel_simclr.train") and config.loss.temperature == 0.5


def test_without_labels_there_is_no_table_of_accuracy(texts: dict[str, str]) -> None:
    body = Page(texts["unlabelled"]).find("body")[0]["text"]
    assert "Nothing was classified" in body and "trained encoder0" not in body and "training ignores them" not in body


def test_a_comparison_shows_what_differs(texts: dict[str, str]) -> None:
    shown = Page(texts["both"])
    rows = [row["text"] for row in shown.find("tr")]
    assert rows[:2] == ["settingonebare", "temperature0.10.5"]
    assert "one0.9100.8200.9300.4100.210400.125100" in rows and "bare–––––400.125100" in rows
    assert all(
        len(re.findall(r'class="curve c\d" d="M[\d.]+ [\d.]+L', chart)) == 2
        for chart in texts["both"].split("<figure")[1:]
    )


@pytest.mark.parametrize("name", ["labelled", "unlabelled", "both"])
def test_a_page_needs_nothing_else(texts: dict[str, str], name: str) -> None:
    shown = Page(texts[name])
    loaded = [element[key] for element in shown.elements for key in ("src", "href", "srcset") if element.get(key)]
    loaded += re.findall(r"url\(([^)]*)\)", texts[name])
    assert all(address.startswith("data:image/") for address in loaded)
    assert not shown.find("link", "iframe", "object") and "@import" not in texts[name]
    policy = next(element for element in shown.find("meta") if element.get("http-equiv"))
    assert "default-src 'none'" in policy["content"] and "http" not in policy["content"]
    assert len(texts[name]) < 5_000_000


@pytest.mark.parametrize("name", ["labelled", "unlabelled", "both"])
def test_everyone_can_read_a_page(texts: dict[str, str], name: str) -> None:
    shown = Page(texts[name])
    assert shown.find("html")[0]["lang"] == "en" and shown.find("title")[0]["text"]
    assert any(element.get("name") == "viewport" for element in shown.find("meta"))
    levels = [int(element["tag"][1]) for element in shown.find("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:]))
    assert all(element.get("alt") for element in shown.find("img"))
    drawings = [element for element in shown.find("svg") if element.get("class") != "panel"]
    assert drawings and all(element.get("aria-label") or element.get("aria-hidden") for element in drawings)
    assert all(element.get("scope") in ("col", "row") for element in shown.find("th"))
    assert all(element["text"] for element in shown.find("caption"))
    scrolled = [element for element in shown.elements if element.get("class") == "scroll"]
    assert all(element["tabindex"] == "0" and element["aria-label"] for element in scrolled)


def test_names_are_text(tmp_path: Path) -> None:
    folder = write_finished_run(tmp_path / HOSTILE[0].replace("/", "_"), HOSTILE, data_dir=HOSTILE[4])
    data = json.loads((folder / "data.json").read_text())
    data["skipped"] = [{"path": name, "reason": name} for name in HOSTILE]
    (folder / "data.json").write_text(json.dumps(data))
    out = tmp_path / "page.html"
    for write in (lambda: page.write_run_report(folder, out), lambda: page.write_comparison([folder, folder], out)):
        write()
        shown = Page(out.read_text(encoding="utf-8"))
        assert len(shown.find("script")) == 1
        assert not any(key.startswith("on") for element in shown.elements for key in element)
        assert all(element["src"].startswith("data:") for element in shown.find("img"))
        assert "is missing" not in shown.find("body")[0]["text"]


@pytest.mark.parametrize(
    "name", ["environment.json", "data.json", "evaluation.json", "metrics.jsonl", "plots/report.json"]
)
@pytest.mark.parametrize("content", ["{\n{}\n", '{"counts": 3, "knn": 4, "cpu": 5, "map": 6, "steps": "x"}\n{}\n'])
def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path: Path, name: str, content: str) -> None:
    folder = write_finished_run(tmp_path / "run")
    (folder / name).write_text(content)
    shown = Page(page.write_run_report(folder).read_text(encoding="utf-8"))
    warnings = [element["text"] for element in shown.find("p") if element.get("class") == "warning"]
    assert warnings and len(shown.find("h2")) >= 7


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    folder = write_finished_run(tmp_path / "run")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "config.json":
            path.unlink()
    shown = Page(page.write_run_report(folder).read_text(encoding="utf-8"))
    assert "0 steps of 128 images" in shown.find("body")[0]["text"]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    folder = write_finished_run(tmp_path / "run")
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**environment, "steps": 4000}))
    assert "The training has not ended: the run has 4,000 steps." in page.write_run_report(folder).read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        page.write_run_report(tmp_path)


def test_a_report_that_fails_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_finished_run(tmp_path / "run")
    (folder / page.REPORT).mkdir()
    page.write_report_or_warn(folder)
    said = capsys.readouterr().err
    assert said.startswith("warning: report.html was not written. Cannot write the report ") and said.count("\n") == 1


def test_a_section_that_fails_is_named_in_its_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(facts: object) -> str:
        raise ValueError("<odd>")

    monkeypatch.setitem(sections.SECTIONS, "views", fail)
    text = page.write_run_report(folder, tmp_path / "out.html").read_text()
    assert "The section &#x27;views&#x27; is missing (ValueError: &lt;odd&gt;)." in text and "<h2>Accuracy" in text


def test_the_check_up_is_shown_where_the_run_has_one(tmp_path: Path, texts: dict[str, str]) -> None:
    assert "Check-up" not in texts["labelled"]
    folder = write_finished_run(tmp_path / "run")
    write_verdicts(folder, 40, [])
    assert "Nothing was noticed up to step 40." in page.write_run_report(folder).read_text()
    advice = "Use a lower --learning-rate.", "Use <other> views."
    write_verdicts(folder, 40, [Verdict("collapsed", 30, "The encoder collapsed.", "The rank is 1.0.", advice, False)])
    rows = [json.dumps({"step": step, "loss": 1.0, "rank_h": step / 2}) for step in (10, 40)]
    (folder / "metrics.jsonl").write_text("\n".join(rows))
    shown = Page(page.write_run_report(folder).read_text())
    section = next(each["text"] for each in shown.find("section") if each["text"].startswith("Check-up without labels"))
    for words in (
        "Step 30: The encoder collapsed.",
        "The rank is 1.0. It no longer held",
        *advice,
        "effective rank of h",
    ):
        assert words in section
    (folder / "checkup.json").write_text('{"verdicts": 3}')
    assert "checkup.json is damaged" in Page(page.write_run_report(folder).read_text()).find("body")[0]["text"]


def test_a_report_needs_no_tensorflow(folder: Path, tmp_path: Path) -> None:
    """Test that a report can be written without TensorFlow, whose import takes seconds."""
    text = "import sys; from pathlib import Path; from lowlevel_simclr.evaluation.report import page; "
    text += f"page.write_run_report(Path({str(folder)!r}), Path({str(tmp_path / 'out.html')!r})); "
    assert output_of(text + "print('tensorflow' in sys.modules, 'matplotlib' in sys.modules)") == "False False"
