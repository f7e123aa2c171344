"""Tries faults on tiny runs and counts every wrong outcome: python -m tests.faults.campaign [--changes N] ...

    changes      the process is killed, or the disk fails, at the n-th change of a file of the run, for many n
    kills        the process is killed at random moments
    corruptions  a file of a finished run is replaced by something else, or a bit of it is flipped
    inputs       images, npz files and pickles with random damage

After a fault of the first two kinds, the program must end without a traceback. The same command must then end in the
same weights, bit by bit, as a run without a fault. After a corruption, each program must end within a minute, with
success or with one sentence, and training that succeeds must have the same weights. An input must be read, or refused
with this package's own error. The program prints every wrong outcome, and its exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults import damage, trials
from tests.faults.trials import SMALL, Ended, read_final_state, run_trial

RUN = "run"
TRAIN = [*SMALL, "--out", RUN]
KILL = 1  # what the shim does at a change, see shim.c
KINDS = {"killed": KILL, "disk full": errno.ENOSPC, "input/output error": errno.EIO}


class Campaign:
    """The trials, their counts and the wrong outcomes."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Make one run without a fault, to compare with."""
        self.folder, self.random = folder, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        whole = folder / "whole"
        whole.mkdir()
        ended = run_trial("train", TRAIN, whole, fault=(whole / RUN, 10**9, 0))
        state = read_final_state(whole / RUN)
        assert ended.code == 0 and state is not None, ended.said
        self.whole, self.state, self.changes = whole, state, ended.changes

    def judge(self, kind: str, what: str, ended: Ended, allowed: tuple[int, ...]) -> bool:
        """Count a trial, and note it if it ended wrongly. Return whether it ended rightly."""
        self.counts[kind] += 1
        reasons = []
        if ended.code not in allowed:
            reasons.append(f"exit code {ended.code}")
        if "Traceback (most recent call last)" in ended.said:
            reasons.append("a traceback")
        if ended.seconds > trials.LIMIT:
            reasons.append(f"{ended.seconds:.0f} seconds")
        if reasons:
            self.note(kind, f"{what}: {', '.join(reasons)}: {ended.said[-600:]}")
        return not reasons

    def note(self, kind: str, text: str) -> None:
        """Print and keep a wrong outcome."""
        self.wrong.append(f"{kind}: {text}")
        print(f"WRONG {self.wrong[-1]}", flush=True)

    def compare(self, kind: str, what: str, run: Path) -> None:
        """Note a run whose last weights are not those of the run without a fault."""
        state = read_final_state(run)
        if state != self.state:
            self.note(kind, f"{what}: the weights differ" if state else f"{what}: there is no last checkpoint")

    def resume(self, kind: str, what: str, place: Path) -> None:
        """Run the same command again, and compare its end."""
        if self.judge(kind + ", resumed", what, run_trial("train", TRAIN, place), (0,)):
            self.compare(kind, what, place / RUN)

    def fault_changes(self, most: int) -> None:
        """Kill or fail at changes of files, spread over the whole run."""
        for name, kind in KINDS.items():
            count = min(most, self.changes)
            for number in sorted(self.random.sample(range(1, self.changes + 1), count)):
                place = Path(tempfile.mkdtemp(dir=self.folder))
                what = f"{name} at change {number} of {self.changes}"
                ended = run_trial("train", TRAIN, place, fault=(place / RUN, number, kind))
                if self.judge(name, what, ended, (-9,) if kind == KILL else (0, 1)):
                    self.resume(name, what, place)
                shutil.rmtree(place)

    def kill_at_random(self, count: int) -> None:
        """Kill at random moments, again and again in the same run, until it ends by itself."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        for number in range(count):
            ended = run_trial("train", TRAIN, place, stop_after=lambda: self.random.uniform(0.5, 8.0))
            if ended.code == 0:
                self.compare("random kill", f"kill {number}", place / RUN)
                shutil.rmtree(place)
                place = Path(tempfile.mkdtemp(dir=self.folder))
            self.judge("random kill", f"kill {number}", ended, (0, -9))
        self.resume("random kill", "after the last kill", place)

    def corrupt(self, count: int) -> None:
        """Replace or damage a file of a finished run, and run a program on it."""
        files = sorted(path.relative_to(self.whole / RUN) for path in (self.whole / RUN).rglob("*") if path.is_file())
        programs = {
            "train": TRAIN,
            "evaluate": [RUN, "--protocol", "knn"],
            "embed": [RUN, "photos", "--out", "h.npz"],
        }
        for _ in range(count):
            place = Path(tempfile.mkdtemp(dir=self.folder))
            shutil.copytree(self.whole / RUN, place / RUN)
            damage.draw_photos(place / "photos")
            file = self.random.choice(files)
            how, make = self.random.choice(list(damage.WRONG_THINGS.items()))
            program = self.random.choice(list(programs))
            target = place / RUN / file
            before = target.read_bytes()
            target.unlink()
            make(target, before, self.random)
            what = f"{program} with {how} in place of {file}"
            if self.judge("corruption", what, run_trial(program, programs[program], place), (0, 1)):
                if program == "train" and read_final_state(place / RUN) not in (None, self.state):
                    self.note("corruption", f"{what}: other weights")
            shutil.rmtree(place, ignore_errors=True)

    def fuzz_inputs(self, count: int) -> None:
        """Read images, npz files and pickles with random damage in this process."""
        for reader in damage.READERS:
            for number in range(count):
                started = time.monotonic()
                problem = reader(self.random, self.folder)
                self.counts[reader.__name__] += 1
                if problem:
                    self.note(reader.__name__, f"input {number}: {problem}")
                if time.monotonic() - started > trials.LIMIT:
                    self.note(reader.__name__, f"input {number}: {time.monotonic() - started:.0f} seconds")


def build_shim(folder: Path) -> Path:
    """Compile the library that fails or kills at changes of files."""
    path = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(path), str(source), "-ldl"], check=True)
    return path


def main() -> int:
    """Run the campaign, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=1000, help="faults of each kind at changes of files, at most")
    parser.add_argument("--kills", type=int, default=500, help="kills at random moments")
    parser.add_argument("--corruptions", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=3000, help="damaged inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "FAULT_SHIM" not in os.environ:  # the shim must be there before Python opens a file
            shim = build_shim(Path(folder))
            more = {"LD_PRELOAD": str(shim), "FAULT_SHIM": str(shim), "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, "-m", "tests.faults.campaign", *sys.argv[1:]]
            return subprocess.run(command, env={**os.environ, **more}).returncode
        trials.load_programs()
        return _run(Campaign(Path(folder), given.seed), given)


def _run(campaign: Campaign, given: argparse.Namespace) -> int:
    """Do every part, print and write the counts, and return the exit code."""
    started = time.monotonic()
    parts: dict[str, Callable[[], None]] = {
        "changes": lambda: campaign.fault_changes(given.changes),
        "kills": lambda: campaign.kill_at_random(given.kills),
        "corruptions": lambda: campaign.corrupt(given.corruptions),
        "inputs": lambda: campaign.fuzz_inputs(given.inputs),
    }
    for name, act in parts.items():
        if getattr(given, name):
            act()
            print(f"{name}: {dict(campaign.counts)}, {len(campaign.wrong)} wrong", flush=True)
    found = {
        "changes_of_a_run": campaign.changes,
        "counts": dict(campaign.counts),
        "wrong": campaign.wrong,
        "seconds": round(time.monotonic() - started),
    }
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{sum(campaign.counts.values())} trials, {len(campaign.wrong)} wrong outcomes")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
