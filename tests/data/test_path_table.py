"""Tests the CSV files with which a user gives each image a label, or makes it a training or test image.

Tests the format of these tables, how their paths are matched with images, and errors.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.path_table import Entry, Matched, match_entries, read_table


def read(folder: Path, content: str | bytes, column: str = "label") -> list[tuple[str, str]]:
    file = folder / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(entry.path, entry.value) for entry in read_table(file, column)]


@pytest.mark.parametrize(
    "text",
    [
        "a.png,cat\nb.png,dog\n",
        "a.png,cat\nb.png,dog",
        "path,label\na.png,cat\nb.png,dog\n",
        "label,path\ncat,a.png\ndog,b.png\n",
        "\ufeffFilename,Class\r\na.png,cat\r\n\r\nb.png,dog\r\n",
        "a.png\tcat\nb.png\tdog\n",
        "a.png;cat\nb.png;dog\n",
        '"a.png","cat"\n"b.png", "dog"\n',
        "file_name,split,label,width\na.png,train,cat,3\nb.png,test,dog,4\n",
        "photo,label\na.png,cat\nb.png,dog\n",
        "path,breed\na.png,cat\nb.png,dog\n",
        " a.png , cat \n\n,,\nb.png,dog\n",
    ],
)
def test_the_usual_forms_say_the_same(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == [("a.png", "cat"), ("b.png", "dog")]


def test_quotes_hold_commas_and_one_file_may_hold_both_columns(tmp_path: Path) -> None:
    text = 'path,split,label\n"a, b.png",train,"big, red"\nc.png,test,\n'
    assert read(tmp_path, text) == [("a, b.png", "big, red"), ("c.png", "")]
    assert read(tmp_path, text, "split") == [("a, b.png", "train"), ("c.png", "test")]


def test_the_first_image_is_not_taken_for_a_header(tmp_path: Path) -> None:
    assert read(tmp_path, "image.png,class\nb.png,dog\n") == [("image.png", "class"), ("b.png", "dog")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty. Each line needs a path and a label"),
        ("\n \n", "is empty"),
        ("a.png,cat,3\n", "begins with the columns a.png, cat, 3. Give it a header that names the columns path and"),
        ("path,label,class\na.png,1,2\n", "begins with the columns path, label, class"),
        ("a.png\nb.png\n", "begins with the columns a.png"),
        ("a.png,cat\nb.png\n", r"has 1 column in line 2 \(b.png\), but it needs 2"),
        ("path,label\n\n,cat\n", "has no path in line 3"),
        ('a.png,cat\n"b.png,dog\n', "is not CSV in line 2"),
        ("a.png,cat".encode("utf-16"), "is not text in UTF-8: it contains a zero byte. Save it as UTF-8"),
    ],
)
def test_a_table_of_another_form_is_refused_with_the_line(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=f"--labels .*table.csv {sentence}"):
        read(tmp_path, content)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for file, why in ((tmp_path / "gone.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=f"--split .* cannot be read: {why}"):
            read_table(file, "split")


# Finding the images


def match(root: Path, table: Path, paths: list[str], *named: str) -> Matched:
    return match_entries(table, "label", [Entry(line, name, "cat") for line, name in enumerate(named, 1)], root, paths)


@pytest.mark.parametrize("name", ["a/1.png", "./a//1.png", "a/b/../1.png", "a\\1.png", "{root}/a/1.png"])
def test_a_path_finds_its_image_however_it_is_written(tmp_path: Path, name: str) -> None:
    found = match(tmp_path, tmp_path / "t.csv", ["a/1.png", "a/2.png"], name.format(root=tmp_path))
    assert list(found.values) == ["a/1.png"] and not found.unknown


def test_paths_start_in_the_data_folder_or_in_that_of_the_table(tmp_path: Path) -> None:
    paths = ["a/1.png", "a/2.png", "2.png"]
    assert list(match(tmp_path, tmp_path / "else/t.csv", paths, "2.png").values) == ["2.png"]
    below = match(tmp_path, tmp_path / "a/t.csv", paths, "1.png", "2.png")
    assert list(below.values) == ["a/1.png", "a/2.png"]  # the folder in which more of the paths exist
    above = match(tmp_path / "data", tmp_path / "t.csv", ["1.png"], "data/1.png")
    assert list(above.values) == ["1.png"]


def test_accents_are_found_in_both_forms_of_unicode(tmp_path: Path) -> None:
    composed, separate = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    assert composed != separate
    for named, there in ((composed, separate), (separate, composed)):
        assert list(match(tmp_path, tmp_path / "t.csv", [there], named).values) == [there]
    both = match(tmp_path, tmp_path / "t.csv", [separate, composed], composed)
    assert list(both.values) == [composed]


def test_a_name_that_is_no_utf_8_is_found(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff.png,cat\n")
    entries = read_table(tmp_path / "t.csv", "label")
    assert list(match_entries(tmp_path / "t.csv", "label", entries, tmp_path, ["\udcff.png"]).values) == ["\udcff.png"]


def test_unknown_paths_are_named_and_none_that_is_known_is_refused(tmp_path: Path) -> None:
    found = match(tmp_path, tmp_path / "t.csv", ["1.png"], "1.png", "2.png")
    assert found.unknown == {"2.png": "is named in t.csv, but is not an image here"}
    with pytest.raises(DataError, match="None of the 2 paths in .*t.csv is an image in .* is x.png in line 1"):
        match(tmp_path, tmp_path / "t.csv", ["1.png"], "x.png", "y.png")


def test_an_image_that_is_named_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a.png,cat\nb.png,cat\n./a.png,dog\n")
    entries = read_table(tmp_path / "t.csv", "label")
    with pytest.raises(DataError, match="names a.png twice: label cat in line 1, label dog in line 3. Keep one"):
        match_entries(tmp_path / "t.csv", "label", entries, tmp_path, ["a.png", "b.png"])
