"""Every command of the README runs: in this process and on little data where it would take minutes."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr import check, embed, evaluate, train
from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint as checkpoints
from lowlevel_simclr.runtime import keras

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LITTLE = ["--steps", "2", "--batch-size", "16", "--projection-widths", "8", "--knn-every", "0"]
MAKE = ["make train", "make test"]
INSTALL = [
    "python3 -m venv .venv && . .venv/bin/activate",
    "pip install -r requirements.txt",
    "pip install --no-build-isolation -e .",
    "pip install tensorflow==2.15.1 && pip install --no-build-isolation -e '.[addons]'",
]
OURS = "python -m lowlevel_simclr."


def commands() -> list[str]:
    """The indented lines that start with a program, without what a comment says of them."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    lines = [line.split("    #")[0].split("  #")[0].strip() for line in lines]
    return [line for line in lines if line.split(" ")[0] in ("make", "pip", "python", "python3")]


def test_no_command_is_forgotten_here() -> None:
    unknown = [line for line in commands() if line not in MAKE + INSTALL + ["python -m pytest"]]
    assert unknown and all(line.startswith(OURS) for line in unknown)
    assert set(MAKE + INSTALL) <= {line.split("    ")[0] for line in commands()}


@pytest.mark.parametrize("command", MAKE)
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_make_target_says_what_it_does(command: str) -> None:
    said = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {"make train": "python -m lowlevel_simclr.train", "make test": "python -m pytest"}[command]
    assert wanted in said.replace(".venv/bin/", "")


def test_what_is_installed_is_in_the_checkout() -> None:
    assert all((ROOT / name).is_file() for name in ("requirements.txt", "setup.py", "pyproject.toml"))


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


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith(OURS + "train")])
def test_a_training_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "DIR")
    write_pictures(tmp_path / "PICTURES")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 40)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 20)
    flags = shlex.split(command)[3:]
    parse_run(flags)  # as it stands
    size = "32" if "resnet50" in flags else "8"
    if "--preset" in flags:  # its data and views here, its encoder and its steps in test_presets.py
        assert train.main([*flags, *LITTLE, "--preview", "--out", "run"]) == 0
        assert (tmp_path / "run" / "plots" / "views.png").is_file()
        return
    assert train.main([*flags, *LITTLE, "--image-size", size, "--out", "run"]) == 0
    assert (tmp_path / "run" / "plots" / "embedding.png").is_file()
    if OURS + "evaluate runs/shapes" in commands() and "--data-dir" not in flags:
        assert evaluate.main(["run"]) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/shapes, without its training, and IMAGES."""
    folder = tmp_path_factory.mktemp("finished")
    f, g = encoder.build_encoder("resnet20", "cifar", 8), projection.build_projection_head(64, (8,))
    variables = {**keras.name_variables("encoder", f), **keras.name_variables("projection", g)}
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    checkpoints.save(folder / "runs" / "shapes" / "checkpoints", 1, arrays, {}, keep=1)
    written = identity.replace(presets.load_preset("shapes"), image_size=8, projection_widths=(8,))
    (folder / "runs" / "shapes" / "config.json").write_text(json.dumps(identity.to_dict(written)))
    (folder / "runs" / "shapes" / "data.json").write_text(json.dumps({"shape": [32, 32, 3]}))
    (folder / "IMAGES").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "IMAGES" / "black.png")
    return folder


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith(OURS + "embed")])
def test_an_embedding_command_runs(command: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    assert embed.main(shlex.split(command)[3:]) == 0
    assert all(len(np.load(file)["paths"]) == 1 for file in finished.glob("*.npz"))


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith(OURS + "evaluate")])
def test_an_evaluating_command_runs(command: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as it stands is understood; what it measures is one protocol here, all of them in test_evaluate.py."""
    monkeypatch.chdir(finished)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 40)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 20)
    assert evaluate.main([*shlex.split(command)[3:], "--protocol", "knn", "--seeds", "1"]) == 0
    assert "knn" in json.loads((finished / "runs" / "shapes" / "evaluation.json").read_text())


def test_the_check_proves_the_ops_here() -> None:
    assert OURS + "check" in commands()
    assert check.main([]) == 0


def test_pictures_and_tables_are_there() -> None:
    pictures = [line.split("(")[1].split(")")[0] for line in README.splitlines() if line.startswith("![")]
    assert pictures and all((ROOT / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    for name in ("accuracy_shapes", "accuracy_cifar10-resnet20", "nt_xent", "nt_xent_shapes", "make_views", "step"):
        table = README.split(f"<!-- bench:{name} -->\n")[1].split(f"<!-- /bench:{name} -->")[0]
        assert table.count("|") > 10, f"the table {name} is empty: python -m bench.report.tables FILE --readme"


def test_no_line_of_prose_stands_twice() -> None:
    """A merge once put a paragraph of one section in the place of another."""
    prose = re.sub(r"<!-- bench:(\S+) -->.*?<!-- /bench:\1 -->", "", README, flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if len(line) > 60]
    assert sorted(lines) == sorted(set(lines))
