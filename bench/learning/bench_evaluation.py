"""Times the evaluation at the end of a run, and its parts: python -m bench.learning.bench_evaluation --data-dir DIR.

The bench has two halves: whole training runs, and parts of the evaluation.

For the first half, the bench runs the training command twice. Both runs share a cache folder, which is empty at first.
The first run measures the baselines (the accuracies of the untrained encoder and of raw pixels) and stores them in this
folder. The second run reads them. The bench measures the time between two lines of the output: the line that announces
the evaluation, and the table of accuracies. With `--before FOLDER`, an older version of this package in FOLDER runs the
same command first. All tables must be equal to the last digit. Otherwise the exit code is 1.

For the second half, the bench times three parts of the evaluation. The first part computes h, the output of the
encoder, in float32 and in bfloat16. The result has the difference between these two h. The other parts are a
k-nearest-neighbour classifier (k-NN) and a linear classifier (linear probe) on h. Each is compared with a simple
implementation (`argpartition` of whole rows for k-NN, scikit-learn for the probe), which must give the same accuracy.

If the machine has other work, compare the processor seconds. Wall seconds can be compared only on an idle machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import hardware, harness

NAME = "evaluation.json"
BEGINS, TABLE, ENDS = "evaluating the trained encoder", "accuracy, 0 to 1", "  k-NN k:"


# Whole runs


def time_run(checkout: Path, flags: Sequence[str], cache: Path) -> dict[str, Any]:
    """Run the training command. Return the seconds of its evaluation, and the lines of its table.

    Args:
        checkout: the folder of the version of this package that runs.
        flags: the flags of the training command, without `--out`.
        cache: the folder for caches.

    Raises:
        SystemExit: if the command failed.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-u", "-m", "lowlevel_simclr.train", "--out", f"{out}/run", *flags]
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        marks, lines = {}, []
        for line in process.stdout:
            lines.append(line.rstrip())
            for mark in (BEGINS, TABLE):
                if line.startswith(mark):
                    marks[mark] = time.perf_counter(), read_processor_seconds(process.pid)
        if process.wait() or set(marks) != {BEGINS, TABLE}:
            raise SystemExit(f"bench_evaluation: {' '.join(command)} failed. Its last lines: {lines[-5:]}")
    wall, processor = (float(end - begin) for begin, end in zip(marks[BEGINS], marks[TABLE]))
    return {"wall": wall, "processor": processor, "table": find_table(lines)}


def read_processor_seconds(process: int) -> float:
    """Return the processor seconds that another process has used, on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


def find_table(lines: Sequence[str]) -> list[str]:
    """Return the lines of the table in the output of a run."""
    first = next(number for number, line in enumerate(lines) if line.startswith(TABLE))
    last = next(number for number, line in enumerate(lines) if number > first and line.startswith(ENDS))
    return list(lines[first:last])


def time_runs(before: Path | None, flags: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a dict from the name of each run to its times and its table."""
    here = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as cache:
        older = {"before": time_run(before, flags, Path(cache) / "before")} if before else {}
        return older | {name: time_run(here, flags, Path(cache)) for name in ("baselines measured", "baselines read")}


# Parts


def time_part(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the result of a call, and its wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def classify_by_whole_rows(
    train_h: np.ndarray, train_labels: np.ndarray, test_h: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Return the accuracies of k-NN as earlier versions computed them: by `argpartition` of whole rows."""
    from lowlevel_simclr.evaluation import knn

    train, test = (h / np.linalg.norm(h, axis=1, keepdims=True) for h in (train_h, test_h))
    most, parts = min(max(knn.KNN_COUNTS), len(train)), []
    for first in range(0, len(test), 335):
        similarity = test[first : first + 335] @ train.T
        index = np.argpartition(similarity, -most, axis=1)[:, -most:]
        values = np.take_along_axis(similarity, index, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        parts.append((np.take_along_axis(index, order, axis=1), np.take_along_axis(values, order, axis=1)))
    index, values = (np.concatenate(column) for column in zip(*parts))
    labels, weights = train_labels[index], np.exp(values.astype(np.float64) / knn.KNN_TEMPERATURE)
    return {str(k): knn._vote(labels[:, :k], weights[:, :k], test_labels) for k in knn.KNN_COUNTS}


def fit_with_scikit_learn(
    train_h: np.ndarray, train_labels: np.ndarray, test_h: np.ndarray, test_labels: np.ndarray
) -> float:
    """Return the accuracy of the linear probe, computed by scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from lowlevel_simclr.evaluation import linear_probe as ours

    scaler = StandardScaler().fit(train_h)
    probe = LogisticRegression(C=ours.PROBE_C, tol=ours.PROBE_TOLERANCE, max_iter=ours.PROBE_ITERATIONS)
    return float(probe.fit(scaler.transform(train_h), train_labels).score(scaler.transform(test_h), test_labels))


def time_parts(dataset: str, data_dir: str | None, encoder: str, stem: str, size: int) -> dict[str, Any]:
    """Return the times and results of each part, for an encoder with random weights."""
    from lowlevel_simclr.data.catalog import load_dataset
    from lowlevel_simclr.evaluation import knn, linear_probe, represent
    from lowlevel_simclr.model.encoder import build_encoder
    from lowlevel_simclr.runtime.precision import set_precision

    images, found, h = load_dataset(dataset, data_dir), {}, {}
    for precision in ("float32", "bfloat16"):
        set_precision(precision)
        f = build_encoder(encoder, stem, size, images.train.images.shape[-1])
        represent.compute_h(f, images.test.images[: represent.BATCH_SIZE])  # TensorFlow compiles
        h[precision], found[f"h, {precision}"] = time_part(functools.partial(represent.represent_splits, f, images))
    given, rounded = ((rows.train, images.train.labels, rows.test, images.test.labels) for rows in h.values())
    for name, work in {
        "k-NN, whole rows": lambda: classify_by_whole_rows(*given),
        "k-NN": lambda: knn.classify_by_neighbours(*given),
        "linear probe, scikit-learn": lambda: fit_with_scikit_learn(*given),
        "linear probe": lambda: linear_probe.fit_linear_probe(*given).accuracy,
        "k-NN of h in bfloat16": lambda: knn.classify_by_neighbours(*rounded),
        "linear probe of h in bfloat16": lambda: linear_probe.fit_linear_probe(*rounded).accuracy,
    }.items():
        accuracy, seconds = time_part(work)
        found[name] = {**seconds, "accuracy": accuracy}
    apart = np.linalg.norm(rounded[2] - given[2]) / np.linalg.norm(given[2])
    found["h, bfloat16"]["relative_difference"] = float(apart)
    return found


def list_disagreements(runs: dict[str, dict[str, Any]], parts: dict[str, Any]) -> list[str]:
    """Return one text for each set of results that should be equal and are not."""
    tables = {name: run["table"] for name, run in runs.items()}
    wrong = (
        [f"the tables of the runs: {tables}"] if any(each != [*tables.values()][0] for each in tables.values()) else []
    )
    for one, other in (("k-NN", "k-NN, whole rows"), ("linear probe", "linear probe, scikit-learn")):
        values = [json.dumps(parts[name]["accuracy"]) for name in (one, other)] if parts else ["", ""]
        wrong += [f"{one}: {values}"] if values[0] != values[1] else []
    return wrong


def format_result(result: dict[str, Any]) -> str:
    """Return the result as text to print."""
    lines = [f"{'':<36}{'wall s':>9}{'cpu s':>9}  accuracy"]
    for name, row in {**result["runs"], **result["parts"]}.items():
        shown = json.dumps(row["accuracy"]) if "accuracy" in row else ""
        lines.append(f"{name:<36}{row['wall']:>9.2f}{row['processor']:>9.2f}  {shown}".rstrip())
    return "\n".join([*lines, *[line for run in list(result["runs"].values())[-1:] for line in run["table"]]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result. Return 1 if numbers differ that must be the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10", help="as in the training command")
    parser.add_argument("--data-dir", help="as in the training command")
    parser.add_argument("--encoder", default="resnet18", help="as in the training command")
    parser.add_argument("--stem", default="imagenet", help="as in the training command")
    parser.add_argument("--image-size", type=int, default=32, help="as in the training command")
    parser.add_argument("--epochs", type=int, default=1, help="as in the training command")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a built checkout of an older version")
    parser.add_argument("--only", choices=("runs", "parts"), help="measure only the whole runs, or only the parts")
    parser.add_argument("--json", type=Path, default=harness.choose_result_path(NAME), help="the file for the result")
    chosen = parser.parse_args(arguments)
    task = (chosen.dataset, chosen.data_dir, chosen.encoder, chosen.stem, chosen.image_size)
    names = ("--dataset", "--data-dir", "--encoder", "--stem", "--image-size", "--epochs")
    flags = [word for name, value in zip(names, (*task, chosen.epochs)) if value for word in (name, str(value))]
    runs = time_runs(chosen.before, flags) if chosen.only != "parts" else {}
    parts = time_parts(*task) if chosen.only != "runs" else {}
    result = {
        "benchmark": "evaluation",
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "flags": ["DIR" if word == chosen.data_dir else word for word in flags],
        "runs": runs,
        "parts": parts,
    }
    harness.write_result(chosen.json, result)
    print(format_result(result))
    wrong = list_disagreements(runs, parts)
    for text in wrong:
        print(f"bench_evaluation: These numbers must be the same: {text}.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
