"""Shows the progress of long work, with its rate and the time left.

On a terminal or in a notebook, the progress is a bar. A file or a pipe would receive hundreds of copies of the bar. So
if standard error is a file or a pipe, a line is printed instead, at most every 12 seconds. Work that takes
less time prints no line while it runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import auto, tqdm

Item = TypeVar("Item")

BAR_AFTER = 1.0  # seconds; shorter work shows no bar
LINE_EVERY = 12.0  # seconds


def open_bar(title: str, total: int | None, unit: str, done: int = 0, keep: bool = False, scale: bool = False) -> tqdm:
    """Return a tqdm bar. Use it as a context manager, and report progress with `update(count)`.

    Args:
        title: a description of the work. Without a title, nothing is shown.
        total: the number of items, or None if it is not known.
        unit: the items in the plural, such as "images".
        done: the number of items that were done before.
        keep: whether to show the work from its start, and to leave the last state on the screen. Otherwise only long
            work is shown, and the bar vanishes at the end.
        scale: whether to shorten counts, as in 1.2G.

    Example:
        >>> with open_bar("reading images", total=2, unit="images") as bar:  # too short to be shown
        ...     _ = bar.update(2)
        >>> bar.n
        2
    """
    kind = auto.tqdm if _is_notebook() or _is_terminal() else ProgressLines
    return kind(
        desc=title,
        total=total,
        initial=done,
        unit=unit if scale else f" {unit}",
        unit_scale=scale,
        leave=keep,
        delay=0 if keep else BAR_AFTER,
        dynamic_ncols=True,
        disable=not title,
    )


def track(items: Iterable[Item], title: str, total: int, unit: str, compiles: bool = False) -> Iterator[Item]:
    """Yield the items, and show progress.

    Args:
        items: the items to work on.
        title: see `open_bar`.
        total: the number of items.
        unit: see `open_bar`.
        compiles: whether the first item takes longer because TensorFlow compiles. The rate then ignores this item.
    """
    with open_bar(title, total, unit) as bar:
        for place, item in enumerate(items):
            yield item
            if place == 0 and compiles:
                start_clock_after(bar, 1)
            else:
                bar.update(1)


def start_clock_after(bar: tqdm, count: int) -> None:
    """Count some items as done, and start the clock of the bar after them.

    The rate and the time left then describe later items. The first step of training, for example, takes longer because
    it is compiled.

    Args:
        bar: a bar that was not updated yet.
        count: the number of items that are done.
    """
    bar.n += count
    bar.initial = bar.last_print_n = bar.n
    bar.unpause()
    bar.refresh()


def _is_notebook() -> bool:
    """Return whether tqdm shows its bars as widgets of a notebook."""
    return any(kind.__module__ == "tqdm.notebook" for kind in auto.tqdm.__mro__)


def _is_terminal() -> bool:
    """Return whether standard error is a terminal with room for a bar. In some containers, a terminal has 0 columns."""
    if not (sys.stderr and sys.stderr.isatty()):
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except OSError:  # the terminal does not tell its size
        return True


class ProgressLines(tqdm):
    """A bar for a standard error that is not a terminal: it prints lines, at most one every 12 seconds."""

    disable: bool  # an attribute of tqdm, which has no type annotations

    def __init__(self, **options: Any) -> None:
        """Accept the options of tqdm."""
        self._printed, self._count_printed = time.monotonic(), -1
        super().__init__(**options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print a line if the last one is at least 12 seconds old. tqdm calls this method to redraw its bar."""
        if time.monotonic() - self._printed >= LINE_EVERY:
            self._print_line()
        return False

    def clear(self, nolock: bool = False) -> None:
        """Do nothing, because there is no bar to remove from the screen."""

    def close(self) -> None:
        """Print the last state, if the bar was opened with `keep`."""
        if self.disable:
            return
        self.disable = True
        self._decr_instances(self)
        if self.leave and self.n != self._count_printed:
            self._print_line()

    def _print_line(self) -> None:
        self._printed, self._count_printed = time.monotonic(), self.n
        print(self._format_line(), file=self.fp, flush=True)

    def _format_line(self) -> str:
        """Return a line: what is done, how much of it, the rate, the time left, and the text of `set_postfix_str`."""
        state = self.format_dict
        count, total, unit = state["n"], state["total"], state["unit"]
        rate = (count - state["initial"]) / max(state["elapsed"], 1e-9)
        shown, whole, speed = (
            self.format_sizeof(number or 0) if state["unit_scale"] else _format_number(number or 0)
            for number in (count, total, rate)
        )
        parts = [f"{state['prefix']}: {shown}{f' of {whole}' if total else ''}{unit}"]
        if rate:
            parts.append(f"{speed}{unit}/s")
            if total and count < total:
                parts.append(f"{self.format_interval((total - count) / rate)} left")
        return ", ".join([*parts, *([state["postfix"]] if state["postfix"] else [])])


def _format_number(number: float) -> str:
    """Return a number with separators between thousands, and with two digits below 10."""
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"
