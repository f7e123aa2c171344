"""Tests reading and writing of a run's results: config.json, metrics.jsonl and evaluation.json."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import EVALUATION, merge_evaluation, read_config, read_evaluation, read_metrics
from tests.support.open_runs import make_row

# Configuration


def test_a_folder_without_a_run_has_no_config(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        read_config(tmp_path)


# Metrics


def test_rows_are_one_object_a_line_and_with_the_system_after_each_call(run):
    run.append([make_row(1), make_row(2, knn=0.5)])
    run.append([])
    run.append([make_row(3)])
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [make_row(1), make_row(2, knn=0.5), make_row(3)]
    assert read_metrics(run.folder) == [make_row(1), make_row(2, knn=0.5), make_row(3)]


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
    run.append([make_row(1), make_row(2)])
    path = run.folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(make_row(3)).encode()[:length])
    assert read_metrics(run.folder) == [make_row(1), make_row(2)]
    run.cut_metrics(2)
    assert path.read_bytes() == whole
    run.append([make_row(3)])
    assert read_metrics(run.folder) == [make_row(1), make_row(2), make_row(3)]


def test_rows_after_the_checkpoint_are_cut_and_a_missing_end_of_line_is_mended(run):
    run.append([make_row(step) for step in range(1, 9)])
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    run.cut_metrics(8)
    assert path.read_bytes().endswith(b"}\n") and len(read_metrics(run.folder)) == 8
    run.cut_metrics(5)
    run.append([make_row(6, knn=0.5)])
    assert read_metrics(run.folder) == [*(make_row(step) for step in range(1, 6)), make_row(6, knn=0.5)]
    run.cut_metrics(0)
    assert read_metrics(run.folder) == []


def test_a_line_that_is_damaged_in_the_middle_is_named(run):
    run.append([make_row(1), make_row(2), make_row(3)])
    path = run.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"step": 2', b'{"stop": 2'))
    with pytest.raises(RunError, match=r"Line 2 of .*metrics.jsonl is not a row"):
        read_metrics(run.folder)


def test_a_full_disk_is_told_with_the_metrics(run):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, a file that is always full")
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match="Cannot write the metrics of .*: No space left on device. Free some disk space"):
        run.append([make_row(1)])


# Evaluation


def test_results_are_merged_key_by_key(run):
    assert read_evaluation(run.folder) == {}
    merge_evaluation(run.folder / EVALUATION, 7, {"schema": 1, "knn": {"20": 0.9, "200": 0.8}, "linear": 0.7})
    both = merge_evaluation(
        run.folder / EVALUATION, 7, {"knn": {"20": 0.95}, "linear": 0.75, "finetune": {"0.01": 0.5}}
    )
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
    assert merge_evaluation(run.folder / EVALUATION, 20, {"knn": {"20": 0.9}}) == {"step": 20, "knn": {"20": 0.9}}


def test_results_of_a_later_step_stay_and_the_earlier_ones_are_refused(run):
    later = merge_evaluation(run.folder / EVALUATION, 20, {"linear": 0.9})
    with pytest.raises(RunError, match=r"already has results of step 20, and these are of step 10.*Evaluate again"):
        merge_evaluation(run.folder / EVALUATION, 10, {"linear": 0.5, "finetune": {"1": 0.6}})
    assert read_evaluation(run.folder) == later


def test_results_that_are_not_finite_are_refused_and_the_file_stays(run):
    merge_evaluation(run.folder / EVALUATION, 7, {"linear": 0.7})
    with pytest.raises(ValueError, match="not JSON compliant"):
        merge_evaluation(run.folder / EVALUATION, 7, {"linear": math.nan})
    assert read_evaluation(run.folder) == {"step": 7, "linear": 0.7}


def test_nothing_is_lost_when_several_add_results_at_once(run):
    with ThreadPoolExecutor(4) as several:
        list(
            several.map(
                lambda i: merge_evaluation(run.folder / EVALUATION, 7, {"finetune": {str(i): i / 40}}), range(40)
            )
        )
    assert read_evaluation(run.folder) == {"step": 7, "finetune": {str(i): i / 40 for i in range(40)}}


def test_an_evaluation_does_not_wait_for_training_to_end(run):
    assert isinstance(run, Run)
    assert merge_evaluation(run.folder / EVALUATION, 7, {"linear": 0.7}) == {"step": 7, "linear": 0.7}
