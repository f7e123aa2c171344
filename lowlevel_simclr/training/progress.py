"""Checks, writes and shows the metrics of training steps after each host call (a call that makes several steps)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import Row
from lowlevel_simclr.runtime.progress_bar import start_clock_after
from lowlevel_simclr.training.loss import compute_chance_loss
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.step import Metrics, refuse_non_finite_loss

TOLD_AFTER = 3  # steps in a row whose loss is at the chance level, before the warning
CHANCE_ULPS = 4  # float32 spacings by which the mean of 2N equal losses may differ from the chance level


class Progress:
    """Writes the metrics of all steps of a run, and shows the metrics of the last step in the progress bar."""

    def __init__(
        self, plan: Plan, run: Run, bar: tqdm, watch: Callable[[Sequence[Row]], None] = lambda rows: None
    ) -> None:
        """Prepare the writer. Nothing is written yet.

        Args:
            plan: the plan of the run.
            run: the run folder.
            bar: the progress bar.
            watch: called with the rows of each host call after they are written.
        """
        self._run, self._bar, self._batch_size, self._watch = run, bar, plan.batch_size, watch
        self._chance = compute_chance_loss(plan.batch_size, plan.loss_reduction)
        self._latest_knn = math.nan
        self._told_chance = False
        self._compiled = False  # whether the first host call has ended, which compiles the step
        self._at_chance = 0  # latest steps in a row whose loss is at the chance level

    def record(self, done: int, metrics: Metrics, seconds: float, measured: Mapping[str, float]) -> None:
        """Write and show the steps of one host call.

        To read the metrics, this method waits for the device. The training loop does not wait. So on an asynchronous
        device `seconds` is the time to start the call. It approaches the run time once the queue of the device is full.

        Args:
            done: steps trained before the call.
            metrics: the metrics of the call, (k,) each.
            seconds: the duration of the call.
            measured: a dict from names to what a check-up measured after the last step. It is empty if no check-up was
                due.

        Raises:
            NonFiniteLoss: if the loss of a step is NaN or infinite.
            RunError: if the rows cannot be written.
        """
        columns = [np.asarray(value) for value in metrics]
        metrics = Metrics(*columns)
        refuse_non_finite_loss(metrics, done + 1)
        rate = round(self._batch_size * len(metrics.loss) / seconds, 2)
        rows: list[Row] = [
            {"step": done + 1 + place, **values, "pairs_per_second": rate}
            for place, values in enumerate(dict(zip(metrics._fields, map(float, row))) for row in zip(*columns))
        ]
        for row in rows:
            if math.isnan(row["gradient_norm"]):  # not measured at this step
                del row["gradient_norm"]
        self._tell_chance(rows)
        rows[-1].update(measured)
        self._latest_knn = measured.get("knn", self._latest_knn)
        self._run.append(rows)
        self._watch(rows)
        self._show(rows)

    def _tell_chance(self, rows: list[Row]) -> None:
        """Warn once when the loss has been exactly at the chance level for several steps in a row.

        The chance level is the loss of an encoder that cannot tell views apart. While an encoder learns, its loss may
        come near this level. It is exactly at the level only if all projections are equal, or if all are zero. One
        cause is an encoder that computes NaN, which ReLU turns into 0.
        """
        for row in rows:
            exact = abs(row["loss"] - self._chance) <= CHANCE_ULPS * np.spacing(np.float32(self._chance))
            self._at_chance = self._at_chance + 1 if exact else 0
            if self._at_chance == TOLD_AFTER and not self._told_chance:
                self._told_chance = True
                tqdm.write(
                    f"warning: The loss has been exactly the chance level ({self._chance:.3f}) since step "
                    f"{row['step'] - TOLD_AFTER + 1}, so all projections are equal. Check that the images vary and are "
                    "in range (--input-mean, --input-std), or use a lower --learning-rate."
                )

    def _show(self, rows: list[Row]) -> None:
        """Show the numbers of the last step.

        The rate and the time left ignore the first call, because it compiled the step.
        """
        last = rows[-1]
        knn = "" if math.isnan(self._latest_knn) else f", k-NN {self._latest_knn:.3f}"
        rate = f", {last['pairs_per_second']:.0f} images/s" if self._compiled else ""
        self._bar.set_postfix_str(
            f"loss {last['loss']:.3f} (chance {self._chance:.3f}), top-1 {last['top1']:.3f}{knn}{rate}", refresh=False
        )
        if self._compiled:
            self._bar.update(len(rows))
        else:
            start_clock_after(self._bar, len(rows))
        self._compiled = True
