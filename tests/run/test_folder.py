"""Tests the folder of a training run: when training may resume in it, and that only one process may use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lowlevel_simclr.run import folder
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import open_run
from lowlevel_simclr.run.results import read_config
from tests.support.open_runs import CONFIG, compare_temperature

ROOT = Path(__file__).parents[2]


# Which run a folder has


def test_a_folder_that_is_not_there_begins_a_run(tmp_path):
    out = tmp_path / "runs" / "shapes"
    with open_run(out, CONFIG, compare_temperature()) as run:
        assert run.folder == out and not run.resumed
        assert (run.checkpoints, run.plots, run.tensorboard) == tuple(
            out / name for name in ("checkpoints", "plots", "tensorboard")
        )
    assert read_config(out) == CONFIG


def test_an_empty_folder_and_one_left_by_a_kill_begin_a_run(tmp_path):
    (tmp_path / folder.TRAINING_LOCK).write_text("process 1\n")
    (tmp_path / "config.json.tmp").write_text('{"pre')
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        assert run.folder == tmp_path and not run.resumed
    assert not (tmp_path / "config.json.tmp").exists()


def test_the_same_identity_resumes_and_what_is_no_identity_is_brought_up_to_date(tmp_path):
    open_run(tmp_path, CONFIG, compare_temperature()).close()
    moved = {**CONFIG, "data": {"data_dir": "/elsewhere"}}
    with open_run(tmp_path, moved, compare_temperature()) as run:
        assert run.resumed and run.folder == tmp_path
    assert read_config(tmp_path) == moved


def test_another_configuration_is_refused_with_the_difference_and_nothing_changes(tmp_path):
    open_run(tmp_path / "run", CONFIG, compare_temperature()).close()
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(RunError) as refused:
        open_run(tmp_path / "run", {"loss": {"temperature": 0.5}}, compare_temperature(0.5))
    text = str(refused.value)
    assert "\n  temperature: 0.2 -> 0.5\n" in text and f"--fresh to start a new run in {tmp_path / 'run-2'}" in text
    assert "--out" in text and (tmp_path / "run" / "config.json").read_bytes() == before
    open_run(tmp_path / "run", CONFIG, compare_temperature()).close()  # after the error, the folder is not locked


def test_fresh_starts_beside_what_is_there_and_counts_on(tmp_path):
    out, folders = tmp_path / "run", []
    for _ in range(3):
        with open_run(out, CONFIG, compare_temperature(), fresh=True) as run:
            folders.append(run.folder.name)
            assert not run.resumed
    assert folders == ["run", "run-2", "run-3"]


def test_fresh_uses_an_empty_folder_and_gives_one_without_a_name_its_name(tmp_path, monkeypatch):
    with open_run(tmp_path, CONFIG, compare_temperature(), fresh=True) as run:
        assert run.folder == tmp_path
    monkeypatch.chdir(tmp_path)
    with open_run(Path("."), CONFIG, compare_temperature(), fresh=True) as run:
        assert run.folder == Path(f"{tmp_path}-2")


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty and is not a run folder \(it contains thesis.tex\). .* --out"):
        open_run(tmp_path, CONFIG, compare_temperature())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "This version cannot resume the run in .*'loss'.*--fresh"),
        ("{", "is not valid JSON"),
        ("3", "does not contain a JSON object"),
    ],
)
def test_a_config_that_is_none_of_ours_is_refused(tmp_path, text, sentence):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=sentence):
        open_run(tmp_path, CONFIG, compare_temperature())
    assert (tmp_path / "config.json").read_text() == text


def test_a_file_and_a_place_below_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is a file. Choose a folder"):
        open_run(tmp_path / "file", CONFIG, compare_temperature())
    with pytest.raises(RunError, match="Cannot make a run in .*: Not a directory. A part of this path is a file"):
        open_run(tmp_path / "file" / "run", CONFIG, compare_temperature())


def test_a_full_disk_is_told_before_work_begins(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="Cannot make a run in .*: No space left on device. Free some disk space"):
            open_run(tmp_path / "run", CONFIG, compare_temperature())
    with open_run(tmp_path / "run", CONFIG, compare_temperature()) as run:
        assert not run.resumed


# Two processes that want to train in one folder

HOLDS_FOR_EVER = """
import sys, time
from pathlib import Path
from lowlevel_simclr.run.folder import open_run
run = open_run(Path(sys.argv[1]), {}, lambda stored: [])
print("open", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_ends_even_by_a_kill(tmp_path):
    command = [sys.executable, "-c", HOLDS_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as first:
        try:
            assert first.stdout.readline() == b"open\n"
            with pytest.raises(RunError, match=f"Process {first.pid} is already training in .*. Wait until .*--out"):
                open_run(tmp_path, {}, lambda stored: [])
        finally:
            first.kill()
    with open_run(tmp_path, {}, lambda stored: []) as run:
        assert run.resumed


def test_closing_lets_the_next_one_in(tmp_path):
    first = open_run(tmp_path, CONFIG, compare_temperature())
    with pytest.raises(RunError, match=f"Process {os.getpid()} is already training"):
        open_run(tmp_path, CONFIG, compare_temperature())
    first.close()
    first.close()
    open_run(tmp_path, CONFIG, compare_temperature()).close()
