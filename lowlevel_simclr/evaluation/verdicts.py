"""Explains the measures of a run in words: each verdict has the numbers that show it and two things to try.

h is the output of the encoder, and z that of the projection head. Top-1 is the share of views whose most similar other
view in the batch shows the same image. The chance level of the loss or of top-1 is its value for an encoder that cannot
tell views apart. A check-up measures h and z of held-out images during training.

A rule looks at the history of a run and returns a verdict, or None. The rules look only at metrics.jsonl and the
configuration. So a resumed run gets the same verdicts as a run that was not interrupted.

To add a verdict, write a rule, and add it to `RULES`. `docs/checkup.md` lists the verdicts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.run.checkup import MEASURES, Verdict

PATIENCE = 100  # for this many steps after the warm-up, no verdict says that the loss does not fall
WINDOW = 50  # steps over which loss and top-1 are averaged, because single steps scatter too much
STUCK = 0.03  # progress (see `measure_progress`) below which a loss counts as at chance
BEGUN = 0.05  # progress since the first steps; with less, a loss has not begun to fall
BEGUN_AT_LARGE_STEPS = 0.1  # the same for a run whose steps change the weights a lot
FAR = 0.3  # progress of an encoder that has learned its task
LEARNED, LOST = 0.15, 0.3  # least progress of a loss that fell; if less than this share is left, the loss rose again
COLLAPSED_RANK = 1.5  # effective rank of h or z; below it, the encoder has collapsed
FEW_DIRECTIONS, MANY_DEAD = 0.05, 0.5  # effective rank of z / largest possible rank; share of dead units of h
HARD_TOP1, EASY_TOP1 = 3, 0.9  # top-1: multiple of the chance level; share of the views
APART = 0.5  # mean squared distance of two views of an image / that of any two views
SMALL_UPDATE, LARGE_UPDATE = 1e-5, 0.01  # length of a step's change of the weights / length of the weights
LEAST_LOSS, RANK_LOST = 0.03, 0.5  # least drop of the k-NN accuracy; share of h's effective rank that is left
FALLS = 4  # check-ups in a row at which the loss scale fell

Row = Mapping[str, Any]
Numbers = np.ndarray  # float64


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the rules need to know about a run.

    Attributes:
        steps: the number of steps of the whole run.
        warmup_steps: the number of steps of the warm-up.
        batch_size: N, the images in a batch.
        temperature: tau.
        loss_factor: the factor of the loss, see `loss.LOSS_FACTORS`.
        chance: the loss of an encoder that cannot tell views apart.
        warmup_epochs: the setting --warmup-epochs.
        learning_rate: the setting --learning-rate.
        width_z: the width of z.
        rows: the number of views that a check-up measures (2n).
        knn_images: the number of images that k-NN classifies; 0 without labels.
        recipe: how the random views are drawn.
    """

    steps: int
    warmup_steps: int
    batch_size: int
    temperature: float
    loss_factor: float
    chance: float
    warmup_epochs: float
    learning_rate: float
    width_z: int
    rows: int
    knn_images: int
    recipe: ViewRecipe

    @property
    def settled(self) -> int:
        """The first step at which a loss at the chance level gives a verdict."""
        return self.warmup_steps + PATIENCE

    @property
    def chance_top1(self) -> float:
        """The top-1 of an encoder that cannot tell views apart: 1 / (2N - 1)."""
        return 1 / (2 * self.batch_size - 1)

    @property
    def lowest(self) -> float:
        """The loss if the views of an image have the same z and the z of different images are orthogonal.

        Few runs come below it. It depends on the temperature. So the rules judge a loss by its place between the
        chance level and this number.
        """
        return self.loss_factor * math.log1p((2 * self.batch_size - 2) * math.exp(-1 / self.temperature))

    def measure_progress(self, loss: Numbers) -> Numbers:
        """Return the progress of losses: their positions between the chance level (0) and the lowest loss (1)."""
        return (self.chance - loss) / (self.chance - self.lowest)


class History:
    """The rows of a run so far: the loss and the top-1 of every step, and all measures of the check-ups."""

    def __init__(self) -> None:
        self._loss: list[float] = []
        self._top1: list[float] = []
        self.steps: list[int] = []
        self.checkups: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows of metrics.jsonl, in the order of the steps."""
        for row in rows:
            self.steps.append(row["step"])
            self._loss.append(_to_number(row.get("loss")))
            self._top1.append(_to_number(row.get("top1")))
            if any(name in row for name in MEASURES):
                self.checkups.append(row)

    @property
    def done(self) -> int:
        """The last step, or 0 if the history is empty."""
        return self.steps[-1] if self.steps else 0

    def smooth(self, name: str, window: int = WINDOW) -> Numbers:
        """Return the means of "loss" or "top1" over `window` steps, (steps - window + 1,). It may be empty."""
        values = np.array(self._loss if name == "loss" else self._top1, np.float64)
        if len(values) < window:
            return np.empty(0)
        return np.convolve(values, np.full(window, 1 / window), "valid")

    def list_values(self, name: str) -> tuple[list[int], Numbers]:
        """Return the steps at which a measure, or "knn", has a finite value, and these values."""
        taken = [(row["step"], _to_number(row.get(name))) for row in self.checkups]
        taken = [(step, value) for step, value in taken if math.isfinite(value)]
        return [step for step, _ in taken], np.array([value for _, value in taken], np.float64)

    def get_last(self, name: str) -> float:
        """Return the last finite value of a measure, or NaN if it has no value."""
        values = self.list_values(name)[1]
        return float(values[-1]) if len(values) else math.nan


def _to_number(value: Any) -> float:
    return math.nan if value is None else float(value)


def judge(history: History, facts: Facts) -> list[Verdict]:
    """Return the verdicts that the rules find in a run so far.

    Args:
        history: the rows of the run.
        facts: the numbers that the rules need to know about the run.
    """
    found = (rule(history, facts) for rule in RULES)
    return [verdict for verdict in found if verdict is not None]


# A loss that does not fall


def find_collapse(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if all images have nearly the same z or h, and the loss is still at the chance level."""
    if not _is_stuck(history, facts) or not history.checkups:
        return None
    rank_h, rank_z = history.get_last("rank_h"), history.get_last("rank_z")
    spread = history.list_values("std_z")[1]
    if not (rank_h < COLLAPSED_RANK or rank_z < COLLAPSED_RANK) or not len(spread):
        return None
    learned = facts.measure_progress(history.smooth("loss")).max() >= LEARNED
    if not learned and spread[-1] > spread[0] / 2:
        return None  # an encoder that has not begun to learn gives similar z too
    return Verdict(
        "collapsed",
        history.done,
        "The encoder has collapsed: it gives all images nearly the same representation.",
        f"The effective rank of h is {rank_h:.3g} and that of z {rank_z:.3g} (1: all alike), and the loss is "
        f"{history.smooth('loss')[-1]:.3f} (chance {facts.chance:.3f}).",
        (
            f"Try --learning-rate {facts.learning_rate / 3:.2g} with a longer --warmup-epochs.",
            "Or try --projection-batch-norm hidden.",
        ),
    )


def find_high_rate(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if the loss fell and rose again, or never fell although each step changes the weights a lot."""
    progress = facts.measure_progress(history.smooth("loss"))
    if len(progress) <= WINDOW:
        return None
    best, ratio = int(progress.argmax()), _find_largest_update(history)
    if progress[best] >= LEARNED and progress[-1] < LOST * progress[best]:
        losses = history.smooth("loss")
        shown = (
            f"The loss fell to {losses[best]:.3f} at step {history.steps[best + WINDOW - 1]} and is now "
            f"{losses[-1]:.3f} (chance {facts.chance:.3f})"
        )
    elif ratio >= LARGE_UPDATE and _is_stuck(history, facts, BEGUN_AT_LARGE_STEPS):
        shown = f"The loss is {history.smooth('loss')[-1]:.3f} (chance {facts.chance:.3f})"
    else:
        return None
    changed = f", and a step changed the weights by up to {100 * ratio:.2g} % of their length" if ratio else ""
    return Verdict(
        "rate",
        history.done,
        "The learning rate is too high.",
        f"{shown}{changed}.",
        (
            f"Try --learning-rate {facts.learning_rate / 3:.2g}.",
            f"Or try a longer warm-up: --warmup-epochs {_suggest_warmup(facts)}.",
        ),
    )


def find_hard_views(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if top-1 stays at the chance level, although images differ in z and the weights change."""
    if not _is_stuck(history, facts) or find_collapse(history, facts) or find_high_rate(history, facts):
        return None
    top1, share = history.smooth("top1").max(), _compare_pairs(history, facts)
    moves = _find_largest_update(history) > SMALL_UPDATE
    if not (top1 < HARD_TOP1 * facts.chance_top1 and share >= APART and moves):
        return None
    return Verdict(
        "hard",
        history.done,
        "The views are too hard: the two views of an image cannot be matched.",
        f"Top-1 never rose above {top1:.3g} (chance {facts.chance_top1:.3g}), and in z the two views of an image are "
        f"{share:.0%} as far apart as views of different images.",
        (
            f"Try larger crops: --crop-area {max(0.3, 2 * facts.recipe.crop_area[0]):.2g} 1.",
            "Or try weaker colours: --jitter-strength 0.3.",
        ),
    )


def find_stuck_loss(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if the loss has not left the chance level, and no other rule says why."""
    others = (find_collapse, find_high_rate, find_hard_views)
    if not _is_stuck(history, facts) or any(rule(history, facts) for rule in others):
        return None
    loss, ratio = history.smooth("loss"), _find_largest_update(history)
    changed = f" A step changed the weights by up to {100 * ratio:.2g} % of their length." if ratio else ""
    at_chance = facts.measure_progress(loss)[-1] < STUCK
    return Verdict(
        "stuck",
        history.done,
        "The loss does not leave the chance level, log(2N - 1)." if at_chance else "The loss does not fall.",
        f"It was {loss[0]:.3f} in the first {WINDOW} steps and is {loss[-1]:.3f} after {history.done} "
        f"(chance {facts.chance:.3f}).{changed}",
        (
            f"Try --learning-rate {3 * facts.learning_rate:.2g}, or {facts.learning_rate / 3:.2g}.",
            "Or look at the views (--preview), and at the range of the pixels (--input-mean, --input-std).",
        ),
    )


def _is_stuck(history: History, facts: Facts, least: float = BEGUN) -> bool:
    """Return whether the loss, PATIENCE steps after the warm-up, is still at the chance level or where it began.

    An untrained encoder can have a loss below chance, because both views of an image often have similar colours. If the
    run has check-ups, the function first waits for a check-up after these steps, because the check-up shows the cause.
    It waits for at most 5 x PATIENCE more steps.
    """
    if history.done < facts.settled:
        return False
    late = history.done >= facts.settled + 5 * PATIENCE
    if history.checkups and history.checkups[-1]["step"] < facts.settled and not late:
        return False
    progress = facts.measure_progress(history.smooth("loss"))
    if not len(progress):
        return False
    begun = progress.max() - progress[0] >= least or progress[-1] >= FAR
    return bool(progress[-1] < STUCK) or not begun


def _compare_pairs(history: History, facts: Facts) -> float:
    """Return the mean squared distance of two views of an image, divided by that of any two views, in normalised z.

    The mean squared distance of any two rows is twice the sum of the variances of the columns. If a measure is missing,
    the result is NaN.
    """
    spread = history.get_last("std_z")
    return history.get_last("alignment") / (2 * facts.width_z * spread**2) if spread > 0 else math.nan


def _find_largest_update(history: History) -> float:
    """Return the largest update ratio that a check-up measured after the first step, or 0 if none did.

    The update ratio is the length of a step's change of the weights, divided by the length of the weights. The first
    step does not count, because Adam's first step is always as large as its learning rate allows. Towards the end the
    ratio falls with the learning rate, so the largest value counts, not the last.
    """
    steps, ratio = history.list_values("update_ratio")
    return float(ratio[np.array(steps, np.int64) > 1].max(initial=0.0))


def _suggest_warmup(facts: Facts) -> str:
    """Return three times the warm-up in epochs, or one epoch for a run without warm-up."""
    return f"{3 * facts.warmup_epochs:.2g}" if facts.warmup_epochs else "1"


# A loss that falls while h does not improve


def find_partial_collapse(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if h or z uses only a few of its directions, although the loss has fallen."""
    learned = facts.measure_progress(history.smooth("loss"))
    if not len(learned) or learned[-1] < LEARNED or history.done < facts.settled:
        return None
    rank_h, rank_z, dead = (history.get_last(name) for name in ("rank_h", "rank_z", "dead_h"))
    most = min(facts.width_z, facts.rows)
    if not (rank_z < FEW_DIRECTIONS * most or dead >= MANY_DEAD):
        return None
    return Verdict(
        "partly collapsed",
        history.done,
        "The encoder has partly collapsed: h or z uses few of its directions.",
        f"The effective rank of z is {rank_z:.3g} of {most}, that of h is {rank_h:.3g}, and {dead:.0%} of the entries "
        "of h are 0 for every image.",
        (
            f"Try --learning-rate {facts.learning_rate / 3:.2g}.",
            f"Or try another --temperature (it is {facts.temperature:g}), or --projection-batch-norm hidden.",
        ),
    )


def find_easy_views(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if the encoder learns its task while h becomes worse than before training."""
    loss, top1 = history.smooth("loss"), history.smooth("top1")
    if not len(loss) or not (facts.measure_progress(loss)[-1] >= FAR or top1[-1] >= EASY_TOP1):
        return None
    worse = _describe_loss_of_h(history, facts)
    if not worse:
        return None
    near = np.flatnonzero(top1 >= EASY_TOP1)
    early = history.steps[near[0] + WINDOW - 1] if len(near) else 0
    since = f", above {EASY_TOP1:g} since step {early} of {facts.steps}" if early else ""
    return Verdict(
        "easy",
        history.done,
        "The views are too easy: the encoder learns its task, but h becomes worse.",
        f"The loss fell to {loss[-1]:.3f} (chance {facts.chance:.3f}) and top-1 is {top1[-1]:.3f}{since}, while "
        f"{worse}. {_explain_ease(facts.recipe)}",
        (
            "Try crops of many sizes: --crop-area 0.2 1.",
            "Or try stronger colours: --jitter-strength 0.5 --grey-probability 0.2.",
        ),
    )


def _describe_loss_of_h(history: History, facts: Facts) -> str:
    """Return in words how h became worse since the first step, or "" if it did not.

    If k-NN was measured, its accuracy decides. Otherwise the effective rank of h decides.
    """
    knn, rank = (history.list_values(name) for name in ("knn", "rank_h"))
    name, (steps, values) = ("k-NN", knn) if len(knn[1]) else ("the effective rank of h", rank)
    if len(values) < 2 or steps[0] != 1:
        return ""
    first, last = float(values[0]), float(values[-1])
    if len(knn[1]):
        noise = 2 * math.sqrt(2 * first * (1 - first) / max(1, facts.knn_images))  # two standard errors of a difference
        bound = first - max(LEAST_LOSS, noise)
    else:
        bound = RANK_LOST * first
    # A healthy run can dip once. So two check-ups must agree, unless the run ends.
    agree = len(values) > 2 and values[-2] < bound
    if not (last < bound and (agree or history.done == facts.steps)):
        return ""
    return f"{name} fell from {first:.3g} at step 1 to {last:.3g}"


def _explain_ease(recipe: ViewRecipe) -> str:
    """Return a sentence about what the two views of an image have in common."""
    coloured = recipe.jitter_probability * (recipe.hue[1] - recipe.hue[0] + recipe.saturation[1] - recipe.saturation[0])
    same = ["all crops have nearly one size"] if recipe.crop_area[1] - recipe.crop_area[0] < 0.2 else []
    same += ["no view changes hue or saturation"] if coloured == 0 else []
    same += ["no view is grey"] if recipe.grey_probability == 0 else []
    if len(same) == 0:
        return "Look at plots/views.png: what do both views of an image share?"
    listed = same[0] if len(same) == 1 else f"{', '.join(same[:-1])} and {same[-1]}"
    return f"{listed.capitalize()}, so the colours of an image are enough to find its other view."


# float16


def find_falling_scale(history: History, facts: Facts) -> Verdict | None:
    """Return a verdict if the loss scale of float16 is 1, or if it fell at each of the last FALLS check-ups."""
    steps, scale = history.list_values("loss_scale")
    falls = len(scale) > FALLS and bool((np.diff(scale[-FALLS - 1 :]) < 0).all()) and scale[-1] <= scale[0] / 256
    if not len(scale) or not (falls or scale[-1] <= 1):
        return None
    return Verdict(
        "float16",
        history.done,
        "The loss scale of float16 keeps falling: gradients overflow, and those steps are skipped.",
        f"It was {scale[0]:g} at step {steps[0]} and is {scale[-1]:g} at step {steps[-1]}.",
        ("Try --precision bfloat16, or float32.", f"Or try --learning-rate {facts.learning_rate / 3:.2g}."),
    )


RULES: tuple[Callable[[History, Facts], Verdict | None], ...] = (
    find_collapse,
    find_high_rate,
    find_hard_views,
    find_stuck_loss,
    find_partial_collapse,
    find_easy_views,
    find_falling_scale,
)
