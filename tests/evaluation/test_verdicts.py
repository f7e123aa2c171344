"""Tests the warnings (verdicts) about training, for example that the encoder has collapsed or learns too slowly.

Made-up measures must cause each warning, and a healthy training must cause none. The measure top-1 is the share of
views (augmented images) for which the most similar other view in the batch shows the same image. The chance level is
the value of the loss or of top-1 if all similarities are equal.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.config import presets
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.evaluation import verdicts
from lowlevel_simclr.evaluation.verdicts import Facts, History, judge
from lowlevel_simclr.run.checkup import Verdict

STORED_RUNS = sorted((Path(__file__).parent / "stored_runs").glob("*.jsonl"))
CHANCE = math.log(127)
FACTS = Facts(
    steps=600,
    warmup_steps=40,
    batch_size=64,
    temperature=0.2,
    loss_factor=1.0,
    chance=CHANCE,
    warmup_epochs=1.0,
    learning_rate=3e-3,
    width_z=64,
    rows=1024,
    knn_images=1000,
    recipe=ViewRecipe(),
)
HEALTHY = {
    "alignment": 0.4,
    "uniformity": -3.0,
    "rank_h": 20.0,
    "rank_z": 30.0,
    "std_z": 0.1,
    "dead_h": 0.0,
    "gradient_norm": 1.0,
    "update_ratio": 1e-3,
}
Curve = Callable[[int], float]


def fall(step: int) -> float:
    """Return the loss of a healthy training at a step. It falls from the chance level to 1.2."""
    return 1.2 + (CHANCE - 1.2) * math.exp(-step / 80)


def rise(step: int) -> float:
    """Return the top-1 of a healthy training at a step. It rises from the chance level to 0.9."""
    return 0.9 - 0.892 * math.exp(-step / 80)


def make_history(
    loss: Curve,
    top1: Curve,
    steps: int = 600,
    measured: Mapping[str, Curve | float] = HEALTHY,
    every: int = 100,
) -> History:
    """Return the history of a training. It was measured after step 1, after every `every` steps, and at its end."""
    rows = []
    for step in range(1, steps + 1):
        row: dict[str, Any] = {"step": step, "loss": loss(step), "top1": top1(step), "learning_rate": 1e-3}
        if every and (step == 1 or step % every == 0 or step == steps):
            row |= {name: value(step) if callable(value) else value for name, value in measured.items()}
        rows.append(row)
    history = History()
    history.add(rows[:7])
    history.add(rows[7:])
    return history


def list_kinds(history: History, facts: Facts = FACTS) -> list[str]:
    return [verdict.kind for verdict in judge(history, facts)]


def find_one(history: History, kind: str, facts: Facts = FACTS) -> Verdict:
    """Return the only verdict about a training. Assert that it has this kind, and that its advice names flags."""
    found = judge(history, facts)
    assert [verdict.kind for verdict in found] == [kind]
    assert_advice_names_flags(found[0])
    assert found[0].step == history.done and found[0].holds
    return found[0]


def assert_advice_names_flags(verdict: Verdict) -> None:
    """Assert that the two pieces of advice are sentences with flags, and that the command line accepts these flags."""
    assert len(verdict.advice) == 2 and all(text.endswith(".") for text in verdict.advice)
    for text in verdict.advice:
        words = text.rstrip(".").replace(",", "").replace("(", "").replace(")", "").split()
        flags = [place for place, word in enumerate(words) if word.startswith("--")]
        assert flags, text
        for place in flags:
            given = [words[place]]
            for word in words[place + 1 :]:
                if word.startswith("--") or word in ("or", "with", "it", "and"):
                    break
                given.append(word)
            if len(given) > 1:
                parse_run(given)


def at_chance(step: int) -> float:
    return CHANCE - 0.01 * math.sin(step)


def chance_top1(step: int) -> float:
    return 1 / 127 + (0.004 if step % 3 == 0 else -0.002)


# A healthy training has no verdict


@pytest.mark.parametrize("steps", [1, 30, 60, 139, 140, 300, 600])
@pytest.mark.parametrize("every", [0, 1, 100])
def test_a_healthy_run_has_no_verdict_at_any_time(steps: int, every: int) -> None:
    knn = {**HEALTHY, "knn": lambda step: 0.4 + 0.5 * step / 600}
    assert list_kinds(make_history(fall, rise, steps, knn, every)) == []
    assert list_kinds(make_history(fall, rise, steps, {**HEALTHY, "knn": 0.39}, every)) == []


def test_a_run_without_rows_has_no_verdict() -> None:
    assert list_kinds(History()) == []


def test_a_long_warm_up_is_not_a_loss_that_is_stuck() -> None:
    facts = dataclasses.replace(FACTS, warmup_steps=400)
    assert list_kinds(make_history(at_chance, chance_top1, 400), facts) == []
    assert list_kinds(make_history(at_chance, chance_top1, 500), facts) == ["stuck"]


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_high_temperature_leaves_less_to_fall(factor: float) -> None:
    """Test that the rules compare the loss with the lowest possible loss, which depends on temperature and factor."""
    chance = factor * CHANCE
    facts = dataclasses.replace(FACTS, temperature=10.0, loss_factor=factor, chance=chance)
    assert facts.lowest / chance == pytest.approx(0.979, abs=1e-3)
    halfway = (facts.lowest + chance) / 2
    assert list_kinds(make_history(lambda step: halfway, rise), facts) == []
    assert list_kinds(make_history(lambda step: chance, chance_top1), facts) == ["stuck"]


# Each verdict, caused by made-up measures


COLLAPSED = {
    **HEALTHY,
    "rank_h": lambda step: 12.0 if step == 1 else 1.02,
    "rank_z": lambda step: 8.0 if step == 1 else 1.01,
    "std_z": lambda step: 0.05 if step == 1 else 1e-5,
    "alignment": lambda step: 0.3 if step == 1 else 1e-8,
}


def test_an_encoder_that_collapsed_before_it_learned() -> None:
    found = find_one(make_history(at_chance, lambda step: 0.0, 200, COLLAPSED), "collapsed")
    assert "rank of h is 1.02 and that of z 1.01" in found.evidence and "chance 4.844" in found.evidence


def test_an_encoder_that_collapsed_after_it_learned_trained_too_fast() -> None:
    def loss(step: int) -> float:
        return fall(step) if step < 200 else CHANCE

    found = judge(make_history(loss, rise, 600, COLLAPSED), FACTS)
    assert [verdict.kind for verdict in found] == ["collapsed", "rate"]
    assert "The loss fell to 1.6" in found[1].evidence and "is now 4.844" in found[1].evidence


def test_similar_z_of_an_encoder_that_has_not_begun_to_learn_is_no_collapse() -> None:
    same = {**COLLAPSED, "std_z": 0.002, "alignment": 1e-4}
    assert list_kinds(make_history(at_chance, chance_top1, 200, same)) == ["stuck"]


def test_a_loss_that_came_back_before_the_next_check_up() -> None:
    def loss(step: int) -> float:
        return fall(step) if step < 300 else CHANCE + 0.5

    find_one(make_history(loss, rise, 390, {**HEALTHY, "update_ratio": 0.02}), "rate")
    find_one(make_history(loss, rise, 390, every=0), "rate")
    assert list_kinds(make_history(loss, rise, 310)) == []  # the loss was high for only ten steps


def test_large_steps_and_a_loss_that_never_fell() -> None:
    found = find_one(make_history(at_chance, chance_top1, 200, {**HEALTHY, "update_ratio": 0.3}), "rate")
    assert "changed the weights by up to 30 %" in found.evidence and "--learning-rate 0.001" in found.advice[0]


def test_large_steps_and_a_loss_that_hardly_fell() -> None:
    slow = make_history(
        lambda step: CHANCE - 0.4 - 0.3 * step / 200, chance_top1, 200, {**HEALTHY, "update_ratio": 0.02}
    )
    find_one(slow, "rate")
    first = {**HEALTHY, "update_ratio": lambda step: 0.1 if step == 1 else 1e-6}  # with Adam, the first step is large
    assert list_kinds(make_history(at_chance, chance_top1, 200, first)) == ["stuck"]


def test_a_stuck_loss() -> None:
    found = find_one(make_history(at_chance, chance_top1, 200, {**HEALTHY, "update_ratio": 1e-6}), "stuck")
    assert "and is 4.84" in found.evidence and "after 200" in found.evidence and "0.0001 %" in found.evidence
    assert "--learning-rate 0.009, or 0.001" in found.advice[0]


def test_a_loss_that_stays_where_an_untrained_encoder_has_it() -> None:
    found = find_one(make_history(lambda step: CHANCE - 0.4, lambda step: 0.1, 200), "stuck")
    assert found.title == "The loss does not fall."
    assert list_kinds(make_history(lambda step: CHANCE - 1.4, lambda step: 0.4, 200)) == []  # far below chance


def test_a_stuck_loss_without_measures() -> None:
    assert list_kinds(make_history(at_chance, chance_top1, 139, every=0)) == []
    find_one(make_history(at_chance, chance_top1, 140, every=0), "stuck")


def test_a_stuck_loss_waits_for_a_check_up_but_not_for_ever() -> None:
    assert list_kinds(make_early_checkup(639)) == []
    assert list_kinds(make_early_checkup(640)) == ["stuck"]


def make_early_checkup(steps: int) -> History:
    """Return the history of a training whose loss never falls. It was measured only after the first step."""
    history = History()
    row = {"loss": CHANCE, "top1": 0.008}
    history.add([{"step": step, **row, **(HEALTHY if step == 1 else {})} for step in range(1, steps + 1)])
    return history


HARD = {**HEALTHY, "alignment": 1.25, "std_z": 0.1}  # random z, 64 numbers wide: alignment is 2 * 64 * 0.1^2 = 1.28


def test_views_that_are_too_hard() -> None:
    found = find_one(make_history(at_chance, chance_top1, 200, HARD), "hard")
    late = {**HARD, "update_ratio": lambda step: 1e-3 if step < 500 else 1e-9}  # the learning rate falls to 0
    assert list_kinds(make_history(at_chance, chance_top1, 600, late)) == ["hard"]
    assert "98% as far apart" in found.evidence and "chance 0.00787" in found.evidence


def test_top1_that_left_the_chance_level_is_not_too_hard() -> None:
    assert list_kinds(make_history(at_chance, lambda step: 0.03, 200, HARD)) == ["stuck"]
    assert list_kinds(make_history(at_chance, chance_top1, 200, {**HARD, "alignment": 0.3})) == ["stuck"]


def easy_top1(step: int) -> float:
    return 0.97 if step > 50 else 0.3


def test_views_that_are_too_easy_make_knn_fall() -> None:
    facts = dataclasses.replace(FACTS, recipe=presets.day29().views)
    worse = {**HEALTHY, "knn": lambda step: 0.396 if step == 1 else 0.224}
    found = find_one(make_history(fall, easy_top1, 200, worse), "easy", facts)
    assert "k-NN fell from 0.396 at step 1 to 0.224" in found.evidence
    assert "top-1 is 0.970, above 0.9 since step 95 of 600" in found.evidence
    reason = "All crops have nearly one size, no view changes hue or saturation and no view is grey, so the colours"
    assert reason in found.evidence


def test_views_that_are_too_easy_are_found_without_labels() -> None:
    worse = {**HEALTHY, "rank_h": lambda step: 20.0 if step == 1 else 7.0}
    found = find_one(make_history(fall, easy_top1, 200, worse), "easy")
    assert "the effective rank of h fell from 20 at step 1 to 7" in found.evidence
    assert "views.png" in found.evidence  # the default recipe changes sizes and colours
    # In this history, the loss has fallen by a third of the largest possible fall.
    learning = make_history(lambda step: CHANCE - 1.4, lambda step: 0.2, 200, worse)
    assert "top-1 is 0.200, while" in find_one(learning, "easy").evidence
    assert "easy" not in list_kinds(make_history(lambda step: CHANCE - 1.2, lambda step: 0.2, 200, worse))


def test_a_single_low_knn_is_no_verdict_before_the_end() -> None:
    once = {**HEALTHY, "knn": lambda step: 0.2 if step == 200 else 0.4}
    assert list_kinds(make_history(fall, easy_top1, 200, once)) == []
    assert list_kinds(make_history(fall, easy_top1, 200, once), dataclasses.replace(FACTS, steps=200)) == ["easy"]
    again = {**HEALTHY, "knn": lambda step: 0.2 if step >= 200 else 0.4}
    assert list_kinds(make_history(fall, easy_top1, 300, again)) == ["easy"]


def test_a_small_loss_of_knn_is_noise() -> None:
    def history(last: float) -> History:
        return make_history(fall, easy_top1, 200, {**HEALTHY, "knn": lambda step: 0.4 if step == 1 else last})

    assert list_kinds(history(0.36)) == [] and list_kinds(history(0.35)) == ["easy"]
    few = dataclasses.replace(FACTS, knn_images=20)
    assert list_kinds(history(0.15), few) == [] and list_kinds(history(0.05), few) == ["easy"]


def test_an_encoder_that_partly_collapsed() -> None:
    found = find_one(make_history(fall, rise, 300, {**HEALTHY, "rank_z": 2.5}), "partly collapsed")
    assert "effective rank of z is 2.5 of 64" in found.evidence
    found = find_one(make_history(fall, rise, 300, {**HEALTHY, "dead_h": 0.75}), "partly collapsed")
    assert "75% of the entries of h are 0" in found.evidence


@pytest.mark.parametrize(
    ("scales", "kinds"),
    [
        ([2.0**15, 2.0**12, 2.0**10, 2.0**10, 2.0**11, 2.0**12], []),
        ([2.0**15, 2.0**14, 2.0**13, 2.0**12, 2.0**11, 2.0**10], []),  # the scale falls, but stays large enough
        ([2.0**15, 2.0**12, 2.0**9, 2.0**7, 2.0**6, 2.0**5], ["float16"]),
        ([2.0**15, 2.0**10, 2.0**5, 2.0**2, 1.0, 1.0], ["float16"]),
    ],
)
def test_a_loss_scale_that_keeps_falling(scales: Sequence[float], kinds: list[str]) -> None:
    steps = {1: 0, 100: 1, 200: 2, 300: 3, 400: 4, 500: 5}
    history = make_history(fall, rise, 500, {**HEALTHY, "loss_scale": lambda step: scales[steps[step]]})
    assert list_kinds(history) == kinds


# What the rules look at


def test_rows_that_were_read_again_give_the_same_verdicts() -> None:
    """Test that null in metrics.jsonl counts as NaN. JSON has no NaN, so the package writes NaN as null."""
    values = {**COLLAPSED, "gradient_norm": math.nan, "knn": 0.4}
    live = make_history(at_chance, lambda step: 0.0, 200, values)
    read = History()
    for step in range(1, 201):
        row = {"step": step, "loss": at_chance(step), "top1": 0.0}
        if step in (1, 100, 200):
            row |= {name: value(step) if callable(value) else value for name, value in values.items()}
        text = json.dumps({name: None if value != value else value for name, value in row.items()})
        read.add([json.loads(text)])
    assert judge(read, FACTS) == judge(live, FACTS) != []
    assert read.get_last("gradient_norm") != read.get_last("gradient_norm")


def test_every_rule_is_in_the_list() -> None:
    rules = {value for name, value in vars(verdicts).items() if name.startswith("find_")}
    assert rules == set(verdicts.RULES)


@pytest.mark.parametrize("path", STORED_RUNS, ids=lambda path: path.stem)
def test_stored_runs_have_their_verdicts(path: Path) -> None:
    """Test the metrics of real trainings. The first line of each file has the preset, the facts and the right verdicts.

    `day29-textures` is the start of a training as in `tests/programs/test_verdicts.py`, with a larger encoder. Its
    outputs h become worse. With the same augmentation, h becomes better on the data set shapes (`day29-shapes`),
    because an untrained encoder knows little about shapes.
    """
    first, *lines = path.read_text().splitlines()
    known = json.loads(first)
    facts = Facts(**known["facts"], recipe=presets.load_preset(known["preset"]).views)
    history, found = History(), set()
    for line in lines:
        row = json.loads(line)
        history.add([row])
        if "update_ratio" in row or row["step"] % 100 == 0:
            found |= {verdict.kind for verdict in judge(history, facts)}
    assert sorted(found) == known["verdicts"]
