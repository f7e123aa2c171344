"""Tests the benchmark bench_evaluation, which times the evaluation of a trained encoder.

It must find the table of results in a program's output, measure processor time, and list results that differ. It
compares the package with simple code for two classifiers, k-NN and the linear probe. Both must give equal results.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.learning import bench_evaluation
from lowlevel_simclr.evaluation import knn, linear_probe
from tests.support.labelled_images import draw_clouds

TABLE = ["accuracy, 0 to 1     k-NN 20", "pixels              0.3", "  k-NN k: vote of"]


def test_the_table_is_found_in_the_output_of_a_run() -> None:
    assert bench_evaluation.find_table(["k-NN, pixels ...", *TABLE, "  images: whole"]) == TABLE[:2]


def test_plain_ways_find_the_same() -> None:
    given = *draw_clouds(400), *draw_clouds(300, seed=1)
    assert bench_evaluation.classify_by_whole_rows(*given) == knn.classify_by_neighbours(*given)
    assert bench_evaluation.fit_with_scikit_learn(*given) == linear_probe.fit_linear_probe(*given).accuracy


def test_numbers_that_differ_are_listed() -> None:
    runs = {name: {"table": TABLE} for name in ("before", "baselines measured")}
    names = ("k-NN", "k-NN, whole rows", "linear probe", "linear probe, scikit-learn")
    parts = {name: {"accuracy": 0.5} for name in names}
    assert bench_evaluation.list_disagreements(runs, parts) == bench_evaluation.list_disagreements({}, {}) == []
    other = {**runs, "baselines read": {"table": TABLE[:1]}}
    found = bench_evaluation.list_disagreements(other, {**parts, "k-NN": {"accuracy": 0.51}})
    assert [text.partition(":")[0] for text in found] == ["the tables of the runs", "k-NN"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_processor_seconds_of_a_process() -> None:
    used = sum(os.times()[:2])
    assert used - 0.1 < bench_evaluation.read_processor_seconds(os.getpid()) < used + 1
