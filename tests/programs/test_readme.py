"""Tests that every command on the pages of the documentation runs. Long commands get few images and few steps."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import threadpoolctl
from PIL import Image

from lowlevel_simclr import embed, evaluate, report, train
from lowlevel_simclr import export as export_program
from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.data.shapes import draw_shapes
from lowlevel_simclr.evaluation import export
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint as checkpoints
from lowlevel_simclr.runtime import keras
from tests.support import pages
from tests.support.finished_run import write_finished_run
from tests.support.record_files import write_parquet, write_pictures_as_records, write_tfds

ROOT = pages.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")
LITTLE = ["--steps", "2", "--batch-size", "16", "--projection-widths", "8", "--knn-every", "0"]
COMPLETION = "source <(lowlevel-simclr --print-completion bash)"
MAKE = {"make train": "python -m lowlevel_simclr.train", "make test": "python -m pytest"}
BLOCKS = [block for block in pages.list_all_blocks() if not block.reason]
COMMANDS = pages.list_distinct_commands(BLOCKS)
RUNS = ("shapes", "pictures", "kobak", "untrained")  # the folders in runs/ that commands on the pages use


def list_ours(name: str, commands: list[str] = COMMANDS) -> list[str]:
    """Return the flags of every command that starts the program `name` of this package, as the page shows them."""
    programs = [program for program in map(pages.parse_program, commands) if program]
    return list(dict.fromkeys(shlex.join(program.flags) for program in programs if program.name == name))


def forget_out(flags: str) -> str:
    """Return the flags without --out. If several commands differ only in --out, the tests run only one of them."""
    return re.sub(r" ?--out \S+", "", flags)


EVERY_TRAIN = list_ours("train", pages.list_distinct_commands(pages.list_all_blocks()))
TRAIN = list(dict.fromkeys(map(forget_out, list_ours("train"))))
IN_README = [*map(forget_out, list_ours("train", pages.list_distinct_commands(pages.list_blocks(pages.PAGES[0]))))]
SEVERAL = [flags for flags in TRAIN if "--devices" in flags]
WITHOUT_PRESET = [flags for flags in TRAIN if not {"--preset", "--devices", "--preview"} & {*flags.split()}]
ALONE = [flags for flags in TRAIN if "--devices" not in flags]


def test_no_command_is_forgotten_here() -> None:
    """Test that the tests below run every command. tests/verification/test_check.py runs check."""
    assert {command for command in COMMANDS if pages.parse_program(command) is None} == {*MAKE, COMPLETION}
    assert all(list_ours(name) for name in ("train", "evaluate", "embed", "report", "export")) and list_ours(
        "check"
    ) == [""]


def test_the_line_for_bash_completes_the_command(tmp_path: Path) -> None:
    program = tmp_path / "lowlevel-simclr"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lowlevel_simclr "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    line = ["bash", "-c", f"{COMPLETION}; complete -p lowlevel-simclr"]
    said = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
    assert "-F _shtab_lowlevel_simclr lowlevel-simclr" in said


@pytest.mark.parametrize("command", MAKE)
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_make_target_says_what_it_does(command: str) -> None:
    said = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert MAKE[command] in said.replace(".venv/bin/", "")


def write_cifar10(folder: Path) -> None:
    """Write the six files of CIFAR-10 in their original format, with few images in each."""
    random = np.random.default_rng(0)
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        batch = {b"data": random.integers(0, 256, (20, 3072), np.uint8), b"labels": [row % 10 for row in range(20)]}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch))


def write_pictures(folder: Path) -> None:
    """Write images of two classes into a folder."""
    random = np.random.default_rng(0)
    for number in range(40):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(path)


def write_other_forms(folder: Path) -> None:
    """Write further forms of data sets that commands name.

    These are a list of the files in PICTURES, tables with their labels and splits, and TFRecord files.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in (folder / "PICTURES").rglob("*.jpg"))
    (folder / "LIST.txt").write_text("\n".join(names))
    for table, words in (("LABELS.csv", "ab"), ("SPLITS.csv", ("train", "train", "test"))):
        lines = [f"{name},{words[place % len(words)]}\n" for place, name in enumerate(names)]
        (folder / table).write_text("".join(lines))
    for split, numbers in (("train", range(40)), ("test", range(40, 50))):
        write_pictures_as_records(folder / f"RECORDS/{split}.tfrecord", numbers)


def write_package_forms(folder: Path, flags: str) -> None:
    """Write the data set of a command that needs an optional package. Without the package, skip the test."""
    if "parquet:" in flags:
        pytest.importorskip("pyarrow")
        write_parquet(folder / "PARQUET/train.parquet", range(40))
    if "tfds:" in flags:
        pytest.importorskip("tensorflow_datasets")
        write_tfds(folder / "TFDS", train=range(40))


@pytest.fixture(scope="module", autouse=True)
def cheap_networks() -> Iterator[None]:
    """Give encoders a third of their layers. Their output h keeps the width that the pages state.

    Also give BLAS, which computes NumPy's matrix products, only one thread. The linear probe multiplies many small
    matrices. On busy cores, several threads waited for each other in each product, and the probe took 37 s, not 1 s.
    """
    with pytest.MonkeyPatch.context() as patch, threadpoolctl.threadpool_limits(1, "blas"):
        patch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 16, projects=False))
        yield


@pytest.fixture
def with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with small versions of all data sets that the commands name."""
    write_cifar10(tmp_path / "DIR")
    write_pictures(tmp_path / "PICTURES")
    images, labels = draw_shapes(60, seed=0)
    np.savez(tmp_path / "FILE.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    write_other_forms(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 40)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 20)
    return tmp_path


def shrink(command: str) -> list[str]:
    """Return the flags of a command, changed so that it trains few steps and writes into the folder `run`.

    The flags that choose the data set are kept.
    """
    flags = [flag for flag in shlex.split(command) if flag != "--profile"]
    if "--preset" in flags and "--data-dir" not in flags:
        flags += ["--data-dir", "DIR"]  # prevents a download
    if "--micro-batch" in flags:
        flags += ["--micro-batch", "8"]
    return [*flags, *LITTLE, "--out", "run"]


@pytest.mark.parametrize("flags", EVERY_TRAIN)
def test_a_training_command_is_understood(flags: str) -> None:
    """Test that the program accepts the flags of all training commands, also of commands that the tests do not run."""
    config, _ = parse_run(shlex.split(flags))
    assert config.train.batch_size >= 2


@pytest.mark.parametrize("flags", [flags for flags in ALONE if flags not in IN_README])
def test_a_training_command_reads_its_data_and_draws_its_views(flags: str, with_data: Path) -> None:
    write_package_forms(with_data, flags)
    assert train.main([*shrink(flags), "--preview"]) == 0
    assert (with_data / "run" / "plots" / "views.png").is_file()


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(each, marks=[] if each in IN_README else pytest.mark.slow)
        for each in ALONE
        if "--preset" not in each
    ],
)
def test_a_training_command_runs(flags: str, with_data: Path) -> None:
    """Run a training command that names no preset. test_presets.py trains with each preset."""
    write_package_forms(with_data, flags)
    size = "32" if "resnet50" in flags else "8"
    assert train.main([*shrink(flags), "--image-size", size]) == 0
    assert (with_data / "run" / "plots" / "embedding.png").is_file()
    assert evaluate.main(["run", "--protocol", "knn"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("flags", SEVERAL)
def test_a_command_for_several_devices_runs(flags: str, with_data: Path) -> None:
    """Run the command in a new process, because TensorFlow can make several virtual devices only when it starts."""
    program = (
        "import sys; from lowlevel_simclr import train; from lowlevel_simclr.data import catalog; "
        "catalog.SHAPES_TRAIN, catalog.SHAPES_TEST = 40, 20; sys.exit(train.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *shrink(flags), "--image-size", "8"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=with_data, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (with_data / "run" / "plots" / "embedding.png").is_file()


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the folder of a run with an untrained encoder."""
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
    """Write all that the commands on the pages read (the runs, and the folder IMAGES) into the working folder."""
    for name in RUNS:
        shutil.copytree(untrained, with_data / "runs" / name)
    shutil.copytree(with_data / "PICTURES", with_data / "IMAGES")
    shutil.copy(with_data / "PICTURES" / "a" / "0.jpg", with_data / "PHOTO.jpg")
    return with_data


@pytest.mark.parametrize("flags", list_ours("embed"))
def test_an_embedding_command_runs(flags: str, finished: Path) -> None:
    if ".parquet" in flags:
        pytest.importorskip("pyarrow")
    assert embed.main(shlex.split(flags)) == 0
    assert all(len(np.load(file)["paths"]) == 40 for file in finished.glob("[hz].npz"))


@pytest.mark.parametrize("flags", list_ours("evaluate"))
def test_an_evaluating_command_is_understood(flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test that the program accepts the flags. The folder has no run, and the error must be about this."""
    assert evaluate.main([str(tmp_path), *shlex.split(flags)[1:]]) == 1
    assert "not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [pytest.param(each, marks=pytest.mark.slow if number else []) for number, each in enumerate(list_ours("evaluate"))],
)
def test_an_evaluating_command_runs(flags: str, finished: Path) -> None:
    """Run the command with the fastest protocol, k-NN. test_evaluate.py tests all protocols."""
    folder, *others = shlex.split(flags)
    assert evaluate.main([folder, *others, "--protocol", "knn", "--seeds", "1"]) == 0
    assert "knn" in json.loads((finished / folder / "evaluation.json").read_text())


@pytest.mark.parametrize("flags", list_ours("report"))
def test_a_reporting_command_runs(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_finished_run(tmp_path / "runs" / "shapes")
    assert report.main(shlex.split(flags)) == 0
    assert Path(capsys.readouterr().out.removeprefix("Wrote ").strip()).is_file()


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, finished: Path) -> None:
    """Run the Python blocks of a page in their order.

    A block may read a file that an earlier command on the page writes. So run the `embed` and `export` commands too.
    """
    tf.random.set_seed(0)  # needed if an earlier test has turned on op determinism
    names: dict[str, Any] = {"images": draw_shapes(4, seed=0)[0]}
    for block in pages.list_blocks(page):
        if block.language == "sh" and not block.reason:
            programs = [program for program in map(pages.parse_program, pages.list_commands(block)) if program]
            assert not any(embed.main(program.flags) for program in programs if program.name == "embed")
            assert not any(export_program.main(program.flags) for program in programs if program.name == "export")
        if block.language == "python" and not block.reason:
            exec(compile(block.text, page.name, "exec"), names)


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
    """Test that a page has no line twice. A git merge once put a paragraph into two sections.

    The page docs/step.md is left out, because a program writes it.
    """
    prose = pages.FENCE.sub("", re.sub(r"<!-- (\S+) -->.*?<!-- /\1 -->", "", page.read_text("utf-8"), flags=re.DOTALL))
    lines = [line for line in prose.splitlines() if len(line) > 60 and not line.startswith("|")]
    assert sorted(lines) == sorted(set(lines))
