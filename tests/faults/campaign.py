"""Tests how training, evaluation and embedding end after a fault (a kill, a full disk, a damaged file, a signal, ...).

    python -m tests.faults.campaign [--changes N] [--kills N] ...

A campaign is many such tests (trials), made with a tiny network. It has six parts:

    changes      when training changes a file for the n-th time, the process is killed or the disk fails
    kills        training is killed at random moments
    corruptions  a file of a finished training is replaced by one of fourteen wrong things, and then a program runs
    signals      a program receives a signal at a random moment
    inputs       images, npz files, pickles and archives with random damage are read
    memory       training makes many steps, and its memory is measured

What must happen:

    changes, kills  The program ends without a traceback. The same command is then started again. It must end with the
                    same weights, bit by bit, as training without a fault.
    corruptions     The program ends within a minute, either successfully or with an error message of one sentence. If
                    training succeeds, it ends with the same weights as training without a fault.
    signals         The program ends within five seconds with the exit code of the signal. The same command then
                    succeeds.
    inputs          The input is read, or refused with one of this package's own errors.
    memory          The memory does not grow in the second half of the training.

The campaign prints every wrong outcome. Its exit code is 1 if there is one. Trials of the different parts alternate.
The JSON file of --out has the counts of each part so far. If a campaign was stopped, the same command continues it. It
first repeats the trials with wrong outcomes. Those that now end correctly are listed under "mended".
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from tests.faults import damage, growth, trials
from tests.faults.record import Record, add_version
from tests.faults.trials import SMALL, Stop, read_final_state, run_trial

RUN = "run"
TRAIN = [*SMALL, "--out", RUN]
PROGRAMS = {
    "train": TRAIN,
    "evaluate": [RUN, "--protocol", "knn"],
    "embed": [RUN, "photos", "--out", "h.npz"],
}
KILL = 1  # the number that tells the library of shim.c to kill the process at a change of a file
KINDS = {KILL: "killed", errno.ENOSPC: "disk full", errno.EIO: "input/output error"}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MOST_GROWTH = 16 * 2**20  # the memory of a long training may grow in its second half by at most this number of bytes


class Campaign:
    """The trials of a campaign. In a trial, one program runs, and one fault happens.

    A method with the single argument `number` makes the trial of this number.
    """

    def __init__(self, folder: Path, seed: int, records: dict[str, Record]) -> None:
        """Train once without a fault. The trials compare their weights with the weights of this run."""
        self.folder, self.seed, self.records = folder, seed, records
        whole = self.make_place(finished=False)
        ended = run_trial("train", TRAIN, whole, fault=(whole / RUN, 10**9, 0))
        state = read_final_state(whole / RUN)
        assert ended.code == 0 and state is not None, ended.said
        self.whole, self.state, self.changes, self.processor = whole, state, ended.changes, ended.processor
        self.times = {"train": ended.processor}  # see `measure_processor`
        self.killed_again: Path | None = None  # the run that `kill_at_random` kills repeatedly

    def draw(self, part: str, number: int) -> random.Random:
        """Return the random number generator of one trial of a part."""
        return random.Random(f"{self.seed} {part} {number}")

    def make_place(self, finished: bool) -> Path:
        """Return a new working folder. If `finished`, it has a copy of the run without a fault, and three pictures."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        if finished:
            shutil.copytree(self.whole / RUN, place / RUN)
            damage.draw_photos(place / "photos")
        return place

    def compare(self, record: Record, kind: str, what: str, run: Path) -> None:
        """Record a wrong outcome if the final weights of `run` differ from those of the run without a fault."""
        state = read_final_state(run)
        if state != self.state:
            record.note(kind, f"{what}: the weights differ" if state else f"{what}: there is no last checkpoint")

    def resume(self, record: Record, kind: str, what: str, place: Path) -> None:
        """Start the training of a trial again, and compare its final weights with those of the run without a fault."""
        if record.judge(kind + ", resumed", what, run_trial("train", TRAIN, place), (0,)):
            self.compare(record, kind, what, place / RUN)

    @cached_property
    def faults(self) -> list[tuple[int, int]]:
        """Return the faults of the part `changes`, in the order of the trials: pairs (number of the change, kind).

        There are three kinds: a kill, a full disk, and an input/output error. The list begins with one of the two disk
        faults for each change of a file, and a kill for every third change. All other pairs follow.
        """
        numbers = list(range(1, self.changes + 1))
        self.draw("faults", 0).shuffle(numbers)
        first, rest = [], []
        for place, number in enumerate(numbers):
            now, later = (errno.ENOSPC, errno.EIO)[:: 1 if place % 2 else -1]
            first.append((number, now))
            rest.append((number, later))
            (rest if place % 3 else first).append((number, KILL))
        return first + rest

    def fault_change(self, number: int) -> None:
        """Train. At one change of a file, kill the process or let the disk fail. Then train again."""
        record = self.records["changes"]
        change, fault = self.faults[number]
        record.facts |= {"changes_of_a_run": self.changes, "every_fault": len(self.faults)}
        record.facts["changes_tried"] = len({change for change, _ in self.faults[: number + 1]})
        place = self.make_place(finished=False)
        what = f"{KINDS[fault]} at change {change} of {self.changes}"
        ended = run_trial("train", TRAIN, place, fault=(place / RUN, change, fault))
        if record.judge(KINDS[fault], what, ended, (-9,) if fault == KILL else (0, 1)):
            self.resume(record, KINDS[fault], what, place)
        shutil.rmtree(place)

    def kill_at_random(self, number: int) -> None:
        """Start or resume a training, and kill it at a random moment. The next trial resumes the same training.

        If the training ends before the kill, compare its weights, begin a new training, and kill that one.
        """
        record, chance = self.records["kills"], self.draw("kills", number)
        code = 0
        while code == 0:
            # A training that was killed before has fewer steps left, so it needs less processor time.
            last = 1.1 * self.processor if self.killed_again is None else 0.6 * self.processor
            moment = Stop(chance.uniform(0.0, last), signal.SIGKILL)
            place = self.killed_again = self.killed_again or self.make_place(finished=False)
            ended = run_trial("train", TRAIN, place, stop=moment)
            kind = "killed" if ended.code else "killed, resumed"
            if not record.judge(kind, f"after {moment.after:.2f} seconds", ended, (0, -9)):
                return
            if ended.code == 0:
                self.compare(record, "killed", f"before trial {number}", place / RUN)
                shutil.rmtree(place)
                self.killed_again = None
            code = ended.code

    @cached_property
    def combinations(self) -> list[tuple[Path, str, str]]:
        """Return all triples (file of a run, wrong thing in its place, program), in random order."""
        run = self.whole / RUN
        files = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
        found = list(itertools.product(files, damage.WRONG_THINGS, PROGRAMS))
        self.draw("combinations", 0).shuffle(found)
        return found

    def corrupt(self, number: int) -> None:
        """Replace or damage a file in the folder of a finished training, and start a program that reads the folder."""
        record = self.records["corruptions"]
        every = self.combinations
        file, how, program = every[number % len(every)]
        record.facts |= {"files": len({file for file, _, _ in every}), "wrong_things": len(damage.WRONG_THINGS)}
        record.facts |= {"combinations": len(every), "combinations_tried": min(number + 1, len(every))}
        place = self.make_place(finished=True)
        target = place / RUN / file
        before = target.read_bytes()
        target.unlink()
        damage.WRONG_THINGS[how](target, before, self.draw("corruptions", number))
        what = f"{program} with {how} in place of {file}"
        ended = run_trial(program, PROGRAMS[program], place)
        right = record.judge(program, what, ended, (0, 1))
        # A training that refuses the damaged file leaves it as it is. As this may be the last checkpoint, the weights
        # are compared only if the training succeeded.
        if right and program == "train" and ended.code == 0 and read_final_state(place / RUN) != self.state:
            record.note(program, f"{what}: other weights")
        shutil.rmtree(place, ignore_errors=True)

    def send_signal(self, number: int) -> None:
        """Send a signal to a program at a random moment, and then start the program again."""
        record = self.records["signals"]
        program = list(PROGRAMS)[number % len(PROGRAMS)]
        sent = SIGNALS[number // len(PROGRAMS) % len(SIGNALS)]
        needed = self.measure_processor(program)
        after = self.draw("signals", number).uniform(0.0, needed)
        place = self.make_place(finished=program != "train")
        what = f"{program}, {sent.name} after {after:.2f} of {needed:.2f} seconds of processor time"
        ended = run_trial(program, PROGRAMS[program], place, stop=Stop(after, sent))
        kind = f"{program}, {sent.name}" if ended.code else f"{program}, ended before the signal"
        if record.judge(kind, what, ended, (0, 128 + sent)) and ended.code:
            if program == "train":
                self.resume(record, kind, what, place)
            else:
                record.judge(kind + ", run again", what, run_trial(program, PROGRAMS[program], place), (0,))
        shutil.rmtree(place)

    def measure_processor(self, program: str) -> float:
        """Return the processor time that a program needs without a signal, in seconds.

        The time of the training is that of the run without a fault. The other programs run once, for their first trial.
        """
        if program not in self.times:
            place = self.make_place(finished=True)
            ended = run_trial(program, PROGRAMS[program], place)
            assert ended.code == 0, ended.said
            self.times[program] = ended.processor
            shutil.rmtree(place)
        return self.times[program]

    def read_input(self, number: int) -> None:
        """Read an image, an npz file, a pickle or an archive with random damage in this process."""
        record = self.records["inputs"]
        reader = damage.READERS[number % len(damage.READERS)]
        started, before = time.monotonic(), time.process_time()
        problem = reader(self.draw("inputs", number), self.folder)
        seconds, processor = time.monotonic() - started, time.process_time() - before
        kind = reader.__name__.removeprefix("read_damaged_")
        record.count(kind, seconds, processor)
        if problem or processor > trials.LIMIT:
            record.note(kind, problem or f"{processor:.0f} seconds of processor time")

    def watch_memory(self, number: int) -> None:
        """Train for many steps, and compare the memory soon after the middle of the training with that at its end."""
        record = self.records["memory"]
        steps = record.asked["steps"]
        place = self.make_place(finished=False)
        ended, grown = growth.watch_growth(steps, place)
        record.facts |= {"grown_bytes": grown, "most_bytes": MOST_GROWTH}
        # A training of many steps may take longer than LIMIT, so its time is not judged.
        if record.judge("long run", f"{steps} steps", ended._replace(seconds=0.0), (0,)) and grown > MOST_GROWTH:
            record.note("long run", f"the memory grew by {grown} bytes in the second half of {steps} steps")
        shutil.rmtree(place)


PARTS: dict[str, Callable[[Campaign, int], None]] = {
    "changes": Campaign.fault_change,
    "kills": Campaign.kill_at_random,
    "corruptions": Campaign.corrupt,
    "signals": Campaign.send_signal,
    "inputs": Campaign.read_input,
    "memory": Campaign.watch_memory,
}


def run_parts(campaign: Campaign, parts: Sequence[str]) -> int:
    """Repeat the trials with wrong outcomes. Then make trials of all parts, alternately, until all are done.

    Returns:
        The number of wrong outcomes.
    """
    for part in parts:
        record = campaign.records[part]
        for number, text in record.take_wrong():
            wrong = len(record.wrong)
            record.begin(number)
            PARTS[part](campaign, number)
            if len(record.wrong) == wrong:
                record.mended.append((number, text))
    while left := [each for each in (campaign.records[part] for part in parts) if each.done < each.asked["trials"]]:
        record = min(left, key=lambda each: each.done / each.asked["trials"])
        record.begin(record.done)
        PARTS[record.part](campaign, record.done)
        record.done += 1
        if record.done == record.asked["trials"]:
            record.write()
            print(f"{record.part}: {record.counts} {record.facts}, {len(record.wrong)} wrong", flush=True)
    for part in parts:
        campaign.records[part].write()
    return sum(len(campaign.records[part].wrong) for part in parts)


def build_shim(folder: Path) -> Path:
    """Compile shim.c, a library that kills the process at a chosen change of a file, or makes the change fail."""
    path = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(path), str(source), "-ldl"], check=True)
    return path


def main() -> int:
    """Run the campaign, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=1000, help="number of faults at changes of files")
    parser.add_argument("--kills", type=int, default=500, help="number of kills at random moments")
    parser.add_argument("--corruptions", type=int, default=1000, help="number of files that are replaced")
    parser.add_argument("--signals", type=int, default=180, help="number of signals")
    parser.add_argument("--inputs", type=int, default=10000, help="number of damaged inputs")
    parser.add_argument("--memory", type=int, default=2000, help="number of steps for the part `memory`")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "FAULT_SHIM" not in os.environ:  # start this program again, with the library of shim.c loaded from the start
            shim = build_shim(Path(folder))
            more = {"LD_PRELOAD": str(shim), "FAULT_SHIM": str(shim), "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, "-m", "tests.faults.campaign", *sys.argv[1:]]
            return subprocess.run(command, env={**os.environ, **more}).returncode
        trials.load_programs()
        return _run(Path(folder), given)


def _run(folder: Path, given: argparse.Namespace) -> int:
    """Make all trials that the command asks for, and return the exit code."""
    records = {}
    for part in PARTS:
        if number := getattr(given, part):
            asked = {"trials": 1, "steps": number} if part == "memory" else {"trials": number}
            records[part] = Record(part, {**asked, "seed": given.seed}, given.out)
    if given.out:
        add_version(given.out)
    wrong = run_parts(Campaign(folder, given.seed, records), list(records))
    print(f"{sum(sum(record.counts.values()) for record in records.values())} trials, {wrong} wrong outcomes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
