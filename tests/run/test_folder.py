"""runlog.py: whose folder it is, what is in it, what is left after a kill and a full disk, two at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.run import environment, folder, tensorboard
from lowlevel_simclr.run.atomic import RunError, write_atomically
from lowlevel_simclr.run.folder import Run, open_run
from lowlevel_simclr.run.results import merge_evaluation, read_config, read_evaluation, read_metrics

CONFIG = {"preset": "shapes", "loss": {"temperature": 0.2}, "data": {"data_dir": None}}
PACKAGE = Path(folder.__file__).parents[1]


def of_temperature(temperature: float = 0.2):
    """A difference that looks at the temperature only."""

    def difference(stored: dict) -> list[str]:
        if "loss" not in stored:
            raise ValueError("there is no section 'loss'")
        before = stored["loss"]["temperature"]
        return [] if before == temperature else [f"temperature: {before} -> {temperature}"]

    return difference


def row(step: int, **more: float) -> dict:
    return {"step": step, "loss": 6.0 - step / 8, "top1": 0.25, **more}


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", CONFIG, of_temperature()) as run:
        yield run


# Whose folder it is


def test_a_folder_that_is_not_there_begins_a_run(tmp_path):
    out = tmp_path / "runs" / "shapes"
    with open_run(out, CONFIG, of_temperature()) as run:
        assert run.folder == out and not run.resumed
        assert (run.checkpoints, run.plots, run.tensorboard) == tuple(
            out / name for name in ("checkpoints", "plots", "tensorboard")
        )
    assert read_config(out) == CONFIG


def test_an_empty_folder_and_one_left_by_a_kill_begin_a_run(tmp_path):
    (tmp_path / folder.TRAINING_LOCK).write_text("process 1\n")
    (tmp_path / "config.json.tmp").write_text('{"pre')
    with open_run(tmp_path, CONFIG, of_temperature()) as run:
        assert run.folder == tmp_path and not run.resumed
    assert not (tmp_path / "config.json.tmp").exists()


def test_the_same_identity_resumes_and_what_is_no_identity_is_brought_up_to_date(tmp_path):
    open_run(tmp_path, CONFIG, of_temperature()).close()
    moved = {**CONFIG, "data": {"data_dir": "/elsewhere"}}
    with open_run(tmp_path, moved, of_temperature()) as run:
        assert run.resumed and run.folder == tmp_path
    assert read_config(tmp_path) == moved


def test_another_configuration_is_refused_with_the_difference_and_nothing_changes(tmp_path):
    open_run(tmp_path / "run", CONFIG, of_temperature()).close()
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(RunError) as refused:
        open_run(tmp_path / "run", {"loss": {"temperature": 0.5}}, of_temperature(0.5))
    text = str(refused.value)
    assert "\n  temperature: 0.2 -> 0.5\n" in text and f"--fresh to start in {tmp_path / 'run-2'}" in text
    assert "--out" in text and (tmp_path / "run" / "config.json").read_bytes() == before
    open_run(tmp_path / "run", CONFIG, of_temperature()).close()  # the refusal let go of the folder


def test_fresh_starts_beside_what_is_there_and_counts_on(tmp_path):
    out, folders = tmp_path / "run", []
    for _ in range(3):
        with open_run(out, CONFIG, of_temperature(), fresh=True) as run:
            folders.append(run.folder.name)
            assert not run.resumed
    assert folders == ["run", "run-2", "run-3"]


def test_fresh_uses_an_empty_folder_and_gives_one_without_a_name_its_name(tmp_path, monkeypatch):
    with open_run(tmp_path, CONFIG, of_temperature(), fresh=True) as run:
        assert run.folder == tmp_path
    monkeypatch.chdir(tmp_path)
    with open_run(Path("."), CONFIG, of_temperature(), fresh=True) as run:
        assert run.folder == Path(f"{tmp_path}-2")


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty and holds no run \(it holds thesis.tex\): .* --out"):
        open_run(tmp_path, CONFIG, of_temperature())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "no run that this version can resume .*section 'loss'.*--fresh"),
        ("{", "is no JSON"),
        ("3", "no JSON obj"),
    ],
)
def test_a_config_that_is_none_of_ours_is_refused(tmp_path, text, sentence):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=sentence):
        open_run(tmp_path, CONFIG, of_temperature())
    assert (tmp_path / "config.json").read_text() == text


def test_a_file_and_a_place_below_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is a file: choose a folder"):
        open_run(tmp_path / "file", CONFIG, of_temperature())
    with pytest.raises(RunError, match="cannot make a run in .*: Not a directory; see that it can be written"):
        open_run(tmp_path / "file" / "run", CONFIG, of_temperature())


def test_a_full_disk_is_told_before_work_begins(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="cannot make a run in .*: No space left on device; free some space"):
            open_run(tmp_path / "run", CONFIG, of_temperature())
    with open_run(tmp_path / "run", CONFIG, of_temperature()) as run:
        assert not run.resumed


def test_a_folder_without_a_run_has_no_config(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        read_config(tmp_path)


# Two at a time

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
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PACKAGE) as first:
        try:
            assert first.stdout.readline() == b"open\n"
            with pytest.raises(RunError, match=f"process {first.pid} is training in .*: wait until .*--out"):
                open_run(tmp_path, {}, lambda stored: [])
        finally:
            first.kill()
    with open_run(tmp_path, {}, lambda stored: []) as run:
        assert run.resumed


def test_closing_lets_the_next_one_in(tmp_path):
    first = open_run(tmp_path, CONFIG, of_temperature())
    with pytest.raises(RunError, match=f"process {os.getpid()} is training"):
        open_run(tmp_path, CONFIG, of_temperature())
    first.close()
    first.close()
    open_run(tmp_path, CONFIG, of_temperature()).close()


# Metrics


def test_rows_are_one_object_a_line_and_with_the_system_after_each_call(run):
    run.append([row(1), row(2, knn=0.5)])
    run.append([])
    run.append([row(3)])
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(1), row(2, knn=0.5), row(3)]
    assert read_metrics(run.folder) == [row(1), row(2, knn=0.5), row(3)]


def test_numbers_of_numpy_and_tensorflow_keep_their_bits_and_what_is_not_finite_is_null(run):
    import tensorflow as tf

    loss = np.float32(1) / np.float32(3)
    step = {
        "step": np.int64(7),
        "loss": tf.constant(loss),
        "top1": loss,
        "knn": np.array(np.nan),
        "rate": math.inf,
    }
    run.append([step])
    (found,) = read_metrics(run.folder)
    assert found == {"step": 7, "loss": float(loss), "top1": float(loss), "knn": None, "rate": None}


def test_no_metrics_are_no_rows(run):
    run.cut_metrics(5)
    assert read_metrics(run.folder) == [] and not (run.folder / "metrics.jsonl").exists()


@pytest.mark.parametrize("length", range(1, 40, 4))
def test_a_torn_last_line_is_passed_over_and_cut(run, length):
    run.append([row(1), row(2)])
    path = run.folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(row(3)).encode()[:length])
    assert read_metrics(run.folder) == [row(1), row(2)]
    run.cut_metrics(2)
    assert path.read_bytes() == whole
    run.append([row(3)])
    assert read_metrics(run.folder) == [row(1), row(2), row(3)]


def test_rows_after_the_checkpoint_are_cut_and_a_missing_end_of_line_is_mended(run):
    run.append([row(step) for step in range(1, 9)])
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    run.cut_metrics(8)
    assert path.read_bytes().endswith(b"}\n") and len(read_metrics(run.folder)) == 8
    run.cut_metrics(5)
    run.append([row(6, knn=0.5)])
    assert read_metrics(run.folder) == [*(row(step) for step in range(1, 6)), row(6, knn=0.5)]
    run.cut_metrics(0)
    assert read_metrics(run.folder) == []


def test_a_line_that_is_damaged_in_the_middle_is_named(run):
    run.append([row(1), row(2), row(3)])
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"step": 2', b'{"stop": 2'))
    with pytest.raises(RunError, match=r"line 2 of .*metrics.jsonl is no row"):
        read_metrics(run.folder)


def test_a_full_disk_is_told_with_the_metrics(run):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, a file that is always full")
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="cannot write the metrics of .*: No space left on device; free some space"):
        run.append([row(1)])


# TensorBoard


def events(run_folder: Path) -> list:
    """Every event of a run, in the order of the files' names."""
    import tensorflow as tf

    files = sorted(str(path) for path in (run_folder / "tensorboard").iterdir())
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]


def test_every_number_of_a_row_becomes_a_scalar_of_its_step(run):
    run.append([row(4, knn=None), row(5, knn=0.75)])
    version, start, fourth, fifth = events(run.folder)
    assert version.file_version == "brain.Event:2" and (start.step, start.session_log.status) == (
        4,
        tensorboard.START,
    )
    assert (fourth.step, fifth.step) == (4, 5)
    assert {value.tag: value.simple_value for value in fourth.summary.value} == {"loss": 5.5, "top1": 0.25}
    assert {value.tag: value.simple_value for value in fifth.summary.value} == {
        "loss": 5.375,
        "top1": 0.25,
        "knn": 0.75,
    }


def test_nothing_is_written_where_nothing_is_logged(run):
    run.append([])
    assert not run.tensorboard.exists()


def test_tensorboard_shows_a_resumed_run_once(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    with open_run(tmp_path, CONFIG, of_temperature()) as run:
        run.append([row(step) for step in range(1, 7)])
    with open_run(tmp_path, CONFIG, of_temperature()) as run:
        run.cut_metrics(4)
        run.append([row(5), row(6), row(7)])
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in shown] == [(step, row(step)["loss"]) for step in range(1, 8)]


def test_an_error_of_tensorflow_while_logging_is_told_like_one_of_the_system(run, monkeypatch):
    import tensorflow as tf

    class Full:
        def __init__(self, path: str) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", Full)
    with pytest.raises(RunError, match="cannot write the metrics of .*: No space left on device"):
        run.append([row(1)])


# What it ran on


def test_the_environment_tells_versions_machine_and_what_was_chosen(run):
    import tensorflow as tf

    run.write_environment({"precision": "bfloat16", "ops": "stock"})
    found = json.loads((run.folder / "environment.json").read_text())
    assert (found["precision"], found["ops"], found["earlier"]) == ("bfloat16", "stock", [])
    assert found["tensorflow"] == tf.__version__ and found["numpy"] == np.__version__
    assert found["keras"].split(".")[0] in ("2", "3") and found["python"] == sys.version.split()[0]
    assert found["cpu"]["cores"] >= 1 and found["cpu"]["model"] and isinstance(found["gpus"], list)
    assert Path(sys.executable).name in found["command"]


def test_sessions_before_this_one_are_kept_in_order(run):
    for precision in ("float32", "bfloat16", "float16"):
        run.write_environment({"precision": precision})
    found = json.loads((run.folder / "environment.json").read_text())
    assert found["precision"] == "float16"
    assert [session["precision"] for session in found["earlier"]] == ["float32", "bfloat16"]
    assert all("earlier" not in session for session in found["earlier"])


def test_only_variables_that_matter_are_recorded(run, monkeypatch):
    monkeypatch.setenv("TF_SOMETHING", "1")
    monkeypatch.setenv("MY_TOKEN", "secret")
    run.write_environment({})
    text = (run.folder / "environment.json").read_text()
    assert json.loads(text)["variables"]["TF_SOMETHING"] == "1" and "secret" not in text


def test_the_processor_is_read_as_linux_lists_it(tmp_path):
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 fma amx_bf16 avx512f_not\n")
    assert {**environment._describe_cpu(listed), "cores": 0} == {
        "model": "Fast 9000",
        "cores": 0,
        "flags": ["amx_bf16", "avx2", "fma"],
    }
    listed.write_text("processor\t: 0\nFeatures\t: fp asimd sve\n")
    assert environment._describe_cpu(listed)["flags"] == ["asimd", "sve"] and environment._describe_cpu(listed)["model"]
    assert environment._describe_cpu(tmp_path / "none")["flags"] == []


def test_the_commit_is_that_of_the_repository_that_tracks_the_file(tmp_path):
    def git(*arguments: str) -> str:
        name = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    module, other = tmp_path / "module.py", tmp_path / "other.py"
    module.write_text("1")
    if environment._ask_git(tmp_path, "--version") is None:
        pytest.skip("there is no git")
    assert environment._find_git_commit(module) is None  # no repository
    git("init")
    git("add", "module.py")
    git("commit", "--message", "first")
    other.write_text("not tracked, as an installed package is not")
    assert (
        environment._find_git_commit(module) == git("rev-parse", "HEAD") and environment._find_git_commit(other) is None
    )
    module.write_text("2")
    assert environment._find_git_commit(module) == git("rev-parse", "HEAD") + "+changes"


def test_a_package_that_is_not_installed_has_no_version():
    assert (
        environment._find_version("no-such-package-as-this") is None
        and environment._find_version("numpy") == np.__version__
    )


# Evaluation


def test_results_are_merged_key_by_key(run):
    assert read_evaluation(run.folder) == {}
    merge_evaluation(run.folder, 7, {"schema": 1, "knn": {"20": 0.9, "200": 0.8}, "linear": 0.7})
    both = merge_evaluation(run.folder, 7, {"knn": {"20": 0.95}, "linear": 0.75, "finetune": {"0.01": 0.5}})
    assert both == read_evaluation(run.folder)
    assert both == {
        "schema": 1,
        "step": 7,
        "knn": {"20": 0.95, "200": 0.8},
        "linear": 0.75,
        "finetune": {"0.01": 0.5},
    }


@pytest.mark.parametrize("old", [{"step": 10, "linear": 0.5}, {"linear": 0.5}])
def test_results_of_an_earlier_or_unknown_step_make_room(run, old):
    (run.folder / "evaluation.json").write_text(json.dumps(old))
    assert merge_evaluation(run.folder, 20, {"knn": {"20": 0.9}}) == {"step": 20, "knn": {"20": 0.9}}


def test_results_of_a_later_step_stay_and_the_earlier_ones_are_refused(run):
    later = merge_evaluation(run.folder, 20, {"linear": 0.9})
    with pytest.raises(RunError, match=r"is about step 20 by now and these results are about step 10.*evaluate again"):
        merge_evaluation(run.folder, 10, {"linear": 0.5, "finetune": {"1": 0.6}})
    assert read_evaluation(run.folder) == later


def test_results_that_are_not_finite_are_refused_and_the_file_stays(run):
    merge_evaluation(run.folder, 7, {"linear": 0.7})
    with pytest.raises(ValueError, match="not JSON compliant"):
        merge_evaluation(run.folder, 7, {"linear": math.nan})
    assert read_evaluation(run.folder) == {"step": 7, "linear": 0.7}


def test_nothing_is_lost_when_several_add_results_at_once(run):
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda i: merge_evaluation(run.folder, 7, {"finetune": {str(i): i / 40}}), range(40)))
    assert read_evaluation(run.folder) == {"step": 7, "finetune": {str(i): i / 40 for i in range(40)}}


def test_an_evaluation_does_not_wait_for_training_to_end(run):
    assert isinstance(run, Run)
    assert merge_evaluation(run.folder, 7, {"linear": 0.7}) == {"step": 7, "linear": 0.7}


# Files that are whole or not there


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def half(file) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_bytes() == b"old" and [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    told = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (told.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (told.append("rename"), rename(old, new)))
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    assert told == [str(tmp_path / "file.tmp"), "rename", str(tmp_path)]


def test_the_peak_of_memory_is_this_processs_own() -> None:
    """A small process started by one with 300 MB more: its peak is small."""
    held = np.ones(300 * 2**20 // 8)
    script = "from lowlevel_simclr.run import environment; print(environment.measure_peak_resident())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert held.all() and 2**20 < int(done.stdout) < environment.measure_peak_resident() - 200 * 2**20


@pytest.mark.parametrize("told", [None, "VmPeak:\t 12 kB\n"])
def test_where_linux_does_not_tell_the_peak_the_process_is_asked(tmp_path: Path, told: str | None) -> None:
    status = tmp_path / "status"
    if told:
        status.write_text(told)
    assert environment.measure_peak_resident(status) >= environment.measure_peak_resident() > 2**20
    status.write_text("VmPeak:\t 12 kB\nVmHWM:\t 34 kB\n")
    assert environment.measure_peak_resident(status) == 34 * 1024
