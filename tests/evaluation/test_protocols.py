"""Tests that an interrupted evaluation continues: only classifiers without a stored accuracy are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lowlevel_simclr.evaluation import protocols
from lowlevel_simclr.evaluation.cache import ScoreStore
from lowlevel_simclr.evaluation.fine_tune import Trial


def test_an_evaluation_that_was_stopped_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    trials, trained = [Trial(0, 0.5), Trial(0), Trial(1, 0.5)], []
    store = ScoreStore(tmp_path, "finetune", {"recipe": {"steps": 3}})

    def stop_at_the_second(asked: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        for trial in asked:
            trained.append(trial)
            if len(trained) == 2:
                raise KeyboardInterrupt
            yield trial, trial.seed + trial.fraction / 3

    with pytest.raises(KeyboardInterrupt):
        protocols.measure_missing(store, trials, stop_at_the_second, str)
    found = protocols.measure_missing(store, trials, stop_at_the_second, str)
    assert found == {trial: trial.seed + trial.fraction / 3 for trial in trials}
    assert trained == [trials[0], *trials[1:2], *trials[1:]]
    other = ScoreStore(tmp_path, "finetune", {"recipe": {"steps": 4}})
    assert other.get(0, 0.5) is None and ScoreStore(tmp_path, "other", store.made_of).get(0, 0.5) is None
