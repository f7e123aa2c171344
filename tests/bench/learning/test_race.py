"""Tests the benchmark race, in which several programs (contestants) train for the same time.

The tests imitate the training. The race must have the right contestants, continue after an interruption, and measure
nothing twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.learning import race
from bench.learning.race import Contestant, Race
from lowlevel_simclr.config import command_line, recipes
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.config.recipes import get_setting

RACE = Race("data", Path("runs"), 600.0, None, Path("python"))


def make_result(knn: float) -> dict[str, Any]:
    return {"steps": 10, "seconds": 600.0, "pairs": 2560, "knn": knn, "linear": knn + 0.01}


def test_with_a_number_of_steps_only_our_recipe_races() -> None:
    names = [each.name for each in race.list_contestants(None)]
    assert len(names) == len(set(names)) == 6 and names[0] == "ours"
    assert all(each.recipe is race.OURS for each in race.list_contestants(100))


def test_a_race_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def run_ours(_: Race, seed: int) -> dict[str, Any]:
        made.append(("ours", seed))
        return make_result(0.5 + seed / 10)

    def run_other(_: Race, contestant: Contestant, seed: int, workers: int) -> dict[str, Any]:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append((contestant.name, seed))
        return make_result(0.4)

    monkeypatch.setattr(race, "run_ours", run_ours)
    monkeypatch.setattr(race, "run_other", run_other)
    monkeypatch.setattr(race, "find_best_workers", lambda *_: 2)
    path = tmp_path / "race.json"
    with pytest.raises(KeyboardInterrupt):
        race.run_all(RACE, [0, 1, 2], path)
    assert len(json.loads(path.read_text())["runs"]) == 4
    monkeypatch.setattr(race, "run_other", lambda *_: make_result(0.4))
    stored = race.run_all(RACE, [0, 1, 2], path)
    assert len(stored["runs"]) == 18 and made.count(("ours", 0)) == 1
    assert "20-NN 60.0%  linear 61.0%" in race.format_summary(stored).splitlines()[0]
    assert json.loads(path.read_text()) == stored


def test_the_fastest_number_of_workers_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run_program(_: Race, __: Contestant, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request["workers"])
        return {"pairs_per_second": 100.0 if request["workers"] else 50.0}

    monkeypatch.setattr(race, "_run_program", run_program)
    monkeypatch.setattr(race, "write_images", lambda _: Path("images.npz"))
    stored: dict[str, Any] = {"speeds": {}}
    lightly = next(each for each in race.list_contestants(None) if each.program == "lightly")
    assert race.find_best_workers(RACE, lightly, stored) > 0
    assert race.find_best_workers(RACE, lightly, stored) > 0 and len(asked) == 3
    assert race.find_best_workers(RACE, Contestant("plain", "plain", race.OURS), stored) == 0


def test_the_table_has_the_median_and_the_spread_of_each_contestant() -> None:
    runs = [
        {"name": name, "time": f"2026-12-0{day}T00:00:00+0000", **make_result(knn)}
        for name, day, knn in (("ours", 1, 0.5), ("ours", 1, 0.7), ("ours", 2, 0.6), ("plain", 2, 0.4))
    ]
    lines = race.format_table({"device": "a CPU", "runs": runs}).splitlines()
    assert lines[2] == "| ours | 3 | 10 | 2,560 | 60.0% | 50.0% to 70.0% | 61.0% |"
    assert lines[3].startswith("| plain | 1 |") and lines[-1] == "a CPU, 2026-12-01 to 2026-12-02."


def test_a_run_with_a_number_of_steps_has_the_settings_of_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def stop(command: list[str], check: bool) -> None:
        commands.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(race.subprocess, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        race.run_ours(RACE._replace(steps=100), seed=0)
    config, _ = command_line.parse_run(commands[0][3:])
    assert {name: get_setting(config, name) for name in recipes.ON_CPU} == recipes.ON_CPU
    usual = load_preset("cifar10-resnet20")  # a budget keeps these two settings of the preset
    assert config.train.batch_size == usual.train.batch_size == race.OURS["batch_size"]
    widths = config.model.projection_widths
    assert widths == usual.model.projection_widths == tuple(race.OURS["projection_widths"])
