"""Every command of the README and of the site runs: in this process and on little data where it would take minutes."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lowlevel_simclr import check, embed, evaluate, train
from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.data.shapes import draw_shapes
from lowlevel_simclr.evaluation import export
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint as checkpoints
from lowlevel_simclr.runtime import keras
from tests.support import pages

ROOT = pages.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")
LITTLE = ["--steps", "2", "--batch-size", "16", "--projection-widths", "8", "--knn-every", "0"]
MAKE = {"make train": "python -m lowlevel_simclr.train", "make test": "python -m pytest"}
INSTALL = {
    "python3 -m venv .venv && . .venv/bin/activate",
    "pip install -r requirements.txt",
    "pip install --no-build-isolation -e .",
    "pip install tensorflow==2.15.1 && pip install --no-build-isolation -e '.[addons]'",
    "python -m pytest",
}
ON_A_GPU = {
    "nvidia-smi && nvcc --version",
    "LOWLEVEL_SIMCLR_CUDA=1 pip install --no-build-isolation -e .",
    "make test-kernels-gpu",
}
OURS, BENCH = "python -m lowlevel_simclr.", "python -m bench."
COMMANDS = pages.list_all_commands()
RUNS = ("shapes", "pictures", "kobak")  # folders in runs/ that pages evaluate


def list_ours(program: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(OURS + program)]


def forget_out(command: str) -> str:
    """Return the command without --out: two that differ in nothing else do the same."""
    return re.sub(r" --out \S+", "", command)


IN_README = [forget_out(command) for command in list_ours("train") if command in README]
TRAIN = [command for command in dict.fromkeys(map(forget_out, list_ours("train"))) if "--devices" not in command]


def test_no_command_is_forgotten_here() -> None:
    others = [line for line in COMMANDS if not line.startswith((OURS, BENCH, "export TF_CONFIG="))]
    assert set(others) == {*MAKE, *INSTALL, *ON_A_GPU}
    programs = {line.removeprefix(OURS).split()[0] for line in COMMANDS if line.startswith(OURS)}
    assert programs == {"train", "evaluate", "embed", "check"}


@pytest.mark.parametrize("command", MAKE)
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_make_target_says_what_it_does(command: str) -> None:
    said = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert MAKE[command] in said.replace(".venv/bin/", "")


def test_what_is_installed_is_in_the_checkout() -> None:
    assert all((ROOT / name).is_file() for name in ("requirements.txt", "setup.py", "pyproject.toml"))


def test_the_hosts_of_the_page_are_json() -> None:
    (line,) = [command for command in COMMANDS if command.startswith("export TF_CONFIG=")]
    hosts = json.loads(shlex.split(line)[1].removeprefix("TF_CONFIG="))
    assert hosts["task"]["index"] == 0 and len(hosts["cluster"]["worker"]) == 2


def write_cifar10(folder: Path) -> None:
    """Six small batches in the layout of the original."""
    random = np.random.default_rng(0)
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        batch = {b"data": random.integers(0, 256, (20, 3072), np.uint8), b"labels": [row % 10 for row in range(20)]}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch))


def write_pictures(folder: Path) -> None:
    """Images of two classes."""
    random = np.random.default_rng(0)
    for number in range(40):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(path)


@pytest.fixture
def with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with little of all data that commands name."""
    write_cifar10(tmp_path / "DIR")
    write_pictures(tmp_path / "PICTURES")
    images, labels = draw_shapes(60, seed=0)
    np.savez(tmp_path / "FILE.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 40)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 20)
    return tmp_path


def shrink(command: str) -> list[str]:
    """Return the flags of a command with its data but with few steps, in the folder `run`."""
    flags = [flag for flag in shlex.split(command)[3:] if flag != "--profile"]
    if "--preset" in flags and "--data-dir" not in flags:
        flags += ["--data-dir", "DIR"]  # instead of a download
    if "--micro-batch" in flags:
        flags += ["--micro-batch", "8"]
    return [*flags, *LITTLE, "--out", "run"]


@pytest.mark.parametrize("command", list_ours("train"))
def test_a_training_command_is_understood(command: str) -> None:
    config, _ = parse_run(shlex.split(command)[3:])
    assert config.train.batch_size >= 2


@pytest.mark.parametrize("command", [command for command in TRAIN if command not in IN_README])
def test_a_training_command_reads_its_data_and_draws_its_views(command: str, with_data: Path) -> None:
    assert train.main([*shrink(command), "--preview"]) == 0
    assert (with_data / "run" / "plots" / "views.png").is_file()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(each, marks=[] if each in IN_README else pytest.mark.slow)
        for each in TRAIN
        if "--preset" not in each
    ],
)
def test_a_training_command_runs(command: str, with_data: Path) -> None:
    """Those with a preset train in test_presets.py."""
    if "--preview" in command:
        return test_a_training_command_reads_its_data_and_draws_its_views(command, with_data)
    size = "32" if "resnet50" in command else "8"
    assert train.main([*shrink(command), "--image-size", size]) == 0
    assert (with_data / "run" / "plots" / "embedding.png").is_file()
    assert evaluate.main(["run", "--protocol", "knn"]) == 0


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder without its training."""
    run = tmp_path_factory.mktemp("finished") / "run"
    f, g = encoder.build_encoder("resnet20", "cifar", 8), projection.build_projection_head(64, (8,))
    variables = {**keras.name_variables("encoder", f), **keras.name_variables("projection", g)}
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    checkpoints.save(run / "checkpoints", 1, arrays, {}, keep=1)
    written = identity.replace(presets.load_preset("shapes"), image_size=8, projection_widths=(8,))
    (run / "config.json").write_text(json.dumps(identity.to_dict(written)))
    (run / "data.json").write_text(json.dumps({"shape": [32, 32, 3]}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 5.0}) + "\n")
    export.save_encoder(run, export.add_preprocessing(f))
    return run


@pytest.fixture
def finished(untrained: Path, with_data: Path) -> Path:
    """A working folder with the runs that pages name, and with IMAGES."""
    for name in RUNS:
        shutil.copytree(untrained, with_data / "runs" / name)
    shutil.copytree(with_data / "PICTURES", with_data / "IMAGES")
    return with_data


@pytest.mark.parametrize("command", list_ours("embed"))
def test_an_embedding_command_runs(command: str, finished: Path) -> None:
    assert embed.main(shlex.split(command)[3:]) == 0
    assert all(len(np.load(file)["paths"]) == 40 for file in finished.glob("[hz].npz"))


@pytest.mark.parametrize("command", list_ours("evaluate"))
def test_an_evaluating_command_runs(command: str, finished: Path) -> None:
    """Each as it stands is understood; what it measures is one protocol here, all of them in test_evaluate.py."""
    flags = shlex.split(command)[3:]
    assert evaluate.main([*flags, "--protocol", "knn", "--seeds", "1"]) == 0
    assert "knn" in json.loads((finished / flags[0] / "evaluation.json").read_text())


def test_the_check_proves_the_ops_here() -> None:
    assert OURS + "check" in COMMANDS
    assert check.main([]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(BENCH)])
def test_a_bench_has_the_flags_that_a_page_gives_it(command: str) -> None:
    module, *rest = shlex.split(command)[2:]
    said = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [flag for flag in rest if flag.startswith("--") and " " not in flag and flag not in said.stdout] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, finished: Path) -> None:
    """In the order of the page, with the commands between that write what the Python reads."""
    tf.random.set_seed(0)  # another test may have asked for deterministic ops, which want a seed
    names: dict[str, Any] = {"images": draw_shapes(4, seed=0)[0]}
    for block in pages.list_blocks(page):
        if block.language == "sh":
            embeddings = [command for command in pages.list_commands(block) if command.startswith(OURS + "embed")]
            assert [embed.main(shlex.split(command)[3:]) for command in embeddings] == [0] * len(embeddings)
        if block.language == "python":
            exec(compile(block.text, f"{page.name}", "exec"), names)
    assert set(block.language for block in pages.list_blocks(page)) <= {
        "sh",
        "python",
        "text",
        "{toctree}",
        "{include}",
        "{eval-rst}",
    }


def test_pictures_and_tables_are_there() -> None:
    pictures = [line.split("(")[1].split(")")[0] for line in README.splitlines() if line.startswith("![")]
    assert pictures and all((ROOT / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    text = "".join(page.read_text(encoding="utf-8") for page in pages.PAGES)
    for name in ("accuracy_shapes", "accuracy_cifar10-resnet20", "nt_xent", "nt_xent_shapes", "make_views", "step"):
        table = text.split(f"<!-- bench:{name} -->\n")[1].split(f"<!-- /bench:{name} -->")[0]
        assert table.count("|") > 10, f"the table {name} is empty: python -m bench.report.tables FILE --write"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", [page for page in pages.PAGES if page.stem != "step"], ids=lambda page: page.stem)
def test_no_line_of_prose_stands_twice(page: Path) -> None:
    """A merge once put a paragraph of one section in the place of another. A program writes the page of steps."""
    prose = pages.FENCE.sub("", re.sub(r"<!-- (\S+) -->.*?<!-- /\1 -->", "", page.read_text("utf-8"), flags=re.DOTALL))
    lines = [line for line in prose.splitlines() if len(line) > 60 and not line.startswith("|")]
    assert sorted(lines) == sorted(set(lines))
