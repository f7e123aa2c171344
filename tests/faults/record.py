"""Counts the tests of tests/faults/campaign.py (trials) and their wrong outcomes, and stores the counts in a JSON file.

A campaign that was stopped continues from this file. A campaign has several parts, and each part has numbered trials.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.trials import Ended

FOLDERS = re.compile(r"(?:/[\w.-]+)*/(?=[\w.-]+\.py\b)")  # the path of a Python file without its name
EVERY = 2.0  # seconds between two writes of the file


class Record:
    """The counts and the wrong outcomes of one part of a campaign.

    Attributes:
        done: the number of finished trials. Trial n is the same in every campaign with the same seed.
        counts: for each kind of fault, how often a program was started or an input was read.
        wrong: the wrong outcomes, as pairs (number of the trial, text).
        mended: wrong outcomes of an earlier session of the campaign, whose trials end correctly now.
        facts: other numbers that the part records, by name.
    """

    def __init__(self, part: str, asked: dict[str, int], out: Path | None) -> None:
        """Begin a part, or continue it if the JSON file has it.

        Args:
            part: the name of the part.
            asked: what the command asks for: the number of trials (`trials`) and the seed.
            out: the JSON file, or None. The other parts of the campaign in this file are kept.
        """
        self.part, self.asked, self.out = part, asked, out
        before = self._read_parts().get(part, {})
        if before.get("asked", asked) != asked:
            raise SystemExit(f"{out} has a part {part} with {before['asked']} instead of {asked}. Give another --out.")
        self.done: int = before.get("done", 0)
        self.counts: dict[str, int] = before.get("counts", {})
        self.wrong: list[tuple[int, str]] = [(trial, text) for trial, text in before.get("wrong", [])]
        self.mended: list[tuple[int, str]] = [(trial, text) for trial, text in before.get("mended", [])]
        self.facts: dict[str, Any] = before.get("facts", {})
        self.longest: float = before.get("longest_trial_seconds", 0.0)
        self.processor: float = before.get("processor_seconds", 0.0)
        self.trial = 0
        self._written = time.monotonic()

    def begin(self, trial: int) -> None:
        """Note which trial begins. If the JSON file was last written more than EVERY seconds ago, write it."""
        self.trial = trial
        if time.monotonic() - self._written > EVERY:
            self.write()

    def count(self, kind: str, seconds: float, processor: float = 0.0) -> None:
        """Count one program that ran, or one input that was read."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.longest = max(self.longest, round(seconds, 1))
        self.processor = round(self.processor + processor, 3)

    def judge(self, kind: str, what: str, ended: Ended, allowed: tuple[int, ...]) -> bool:
        """Count a program that ran. If its outcome is wrong, record it. Return whether the outcome is right."""
        self.count(kind, ended.seconds, ended.processor)
        reasons = []
        if ended.code not in allowed:
            reasons.append(f"exit code {ended.code}")
        if "Traceback (most recent call last)" in ended.said:
            reasons.append("a traceback")
        if ended.seconds > trials.LIMIT:
            reasons.append(f"{ended.seconds:.0f} seconds")
        if ended.after_signal > trials.SIGNAL_LIMIT:
            reasons.append(f"{ended.after_signal:.1f} seconds after the signal")
        elif ended.code == 0 and ended.after_signal > trials.LAST_MOMENT:
            reasons.append(f"ignored the signal, and ended {ended.after_signal:.1f} seconds after it")
        if reasons:
            self.note(kind, f"{what}: {', '.join(reasons)}: {ended.said[-600:]}")
        return not reasons

    def note(self, kind: str, text: str) -> None:
        """Print and record a wrong outcome. The folders of this machine are removed from a traceback."""
        text = FOLDERS.sub("", text)
        self.wrong.append((self.trial, f"{kind}: {text}"))
        print(f"WRONG {self.part} {self.trial} {kind}: {text}", flush=True)

    def take_wrong(self) -> list[tuple[int, str]]:
        """Return the wrong outcomes so far, and remove them. The caller repeats their trials."""
        found, self.wrong = self.wrong, []
        return found

    def write(self) -> None:
        """Write the counts so far into the JSON file."""
        self._written = time.monotonic()
        if self.out is None:
            return
        found = {
            "asked": self.asked,
            "done": self.done,
            "counts": self.counts,
            "facts": self.facts,
            "longest_trial_seconds": self.longest,
            "processor_seconds": self.processor,
            "wrong": self.wrong,
            "mended": self.mended,
        }
        whole = read_whole(self.out)
        write_whole(self.out, {**whole, "parts": {**whole["parts"], self.part: found}})

    def _read_parts(self) -> dict[str, Any]:
        """Return the parts in the JSON file."""
        return {} if self.out is None else read_whole(self.out)["parts"]


def read_whole(out: Path) -> dict[str, Any]:
    """Return the content of a campaign's JSON file. If there is no file, return the content for a new campaign."""
    return json.loads(out.read_text()) if out.exists() else {"versions": [], "parts": {}}


def write_whole(out: Path, whole: dict[str, Any]) -> None:
    """Replace the JSON file of a campaign. Another process sees either the old file or the new one."""
    partial = out.with_suffix(".part")
    partial.write_text(json.dumps(whole, indent=2) + "\n")
    partial.replace(out)


def add_version(out: Path) -> None:
    """Add the versions that this session tests to the JSON file, unless it has them already."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    version = {
        "commit": commit,
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version("tensorflow"),
    }
    whole = read_whole(out)
    if version not in whole["versions"]:
        write_whole(out, {**whole, "versions": [*whole["versions"], version]})
