"""Tests the package on platforms for which it has no compiled C++ code (native library), for example macOS.

On such a platform, the wheel without compiled code must train, evaluate and embed, with TensorFlow's own ops (stock).
Each test starts a process that imitates another platform (see tests/support/fake_platform.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.other_process import ROOT

PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
from tests.support.fake_platform import pretend
pretend(*sys.argv[1:3])
import numpy as np
import lowlevel_simclr as ls
from lowlevel_simclr import __main__ as programs, reference
from lowlevel_simclr.model import encoder
encoder.BASIC["resnet20"] = encoder.Basic((1, 1, 1), 8, projects=False)  # so that a run takes seconds

def call(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = programs.main(list(words))
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

small = "--dataset npz:small.npz --image-size 8 --batch-size 8 --steps 6 --checkpoint-every 3 --warmup-epochs 0".split()
found = {"file": ls.__file__}
found["train"] = call("train", "--out", "run", *small)
found["native"] = call("train", "--out", "other", "--ops", "native", *small)
found["evaluate"] = call("evaluate", "run")
found["embed"] = call("embed", "run", "pictures", "--out", "h.npz")
Path("run/config.json").write_text(Path("run/config.json").read_text().replace('"ops": "stock"', '"ops": "native"'))
found["resume"] = call("train", "--out", "run", *small)
z = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
found["losses"] = [ls.nt_xent(z, 0.5).numpy().tolist(), reference.nt_xent(z, 0.5).tolist()]
found["mean"] = float(ls.NTXent(0.5)(np.zeros(8), z))
pixels = np.zeros((2, 9, 9, 3), np.uint8)
found["views"] = [ls.make_views(pixels, seed=1, size=8).shape.as_list(), ls.SimCLRViews(8)(pixels).shape.as_list()]
if "check" in sys.argv:
    found["check"] = call("check")
Path("found.json").write_text(json.dumps(found))
"""
WITH_CHECK = pytest.param("darwin", "arm64", "macOS on arm64", True, marks=pytest.mark.slow)
ARM64 = pytest.param("linux", "aarch64", "Linux on aarch64", False, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a wheel without the native library, and unpack it. Return the folder with its content."""
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is missing (make installs it)")
    folder = tmp_path_factory.mktemp("wheel")
    places = ["egg_info", "--egg-base", folder, "build", "--build-base", folder / "build"]
    subprocess.run(
        [sys.executable, "setup.py", "-q", *places, "bdist_wheel", "--dist-dir", folder],
        cwd=ROOT,
        env={**os.environ, "LOWLEVEL_SIMCLR_NATIVE": "0"},
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    assert not list((folder / "site").rglob("*.so"))
    assert "Root-Is-Purelib: true" in next((folder / "site").glob("*.dist-info/WHEEL")).read_text()
    return folder / "site"


def run_on(system: str, machine: str, site: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Run the programs in a process that imitates a platform. Return the exit code and the output of each program."""
    random = np.random.default_rng(0)
    images, few = (random.integers(0, 256, (count, 10, 10, 3), np.uint8) for count in (40, 12))
    np.savez(folder / "small.npz", x_train=images, y_train=np.arange(40) % 4, x_test=few, y_test=np.arange(12) % 4)
    (folder / "pictures").mkdir()
    from PIL import Image

    for number in range(3):
        Image.fromarray(images[number]).save(folder / "pictures" / f"{number}.png")
    path = os.pathsep.join([str(site), str(ROOT)])
    variables = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", PROGRAM, system, machine, *more]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    ("system", "machine", "words", "checked"), [("win32", "AMD64", "Windows on AMD64", False), WITH_CHECK, ARM64]
)
def test_a_platform_without_the_library_uses_stock_ops(
    system: str, machine: str, words: str, checked: bool, pure: Path, tmp_path: Path
) -> None:
    found = run_on(system, machine, pure, tmp_path, *["check"] * checked)
    assert Path(found["file"]).parents[1] == pure
    assert found["train"]["code"] == 0, found["train"]
    assert f"stock ops (TensorFlow's, because there is no native library for {words})" in found["train"]["out"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and all(np.isfinite(row["loss"]) for row in rows)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["implementation"] == "stock"
    assert (environment["peak_memory_bytes"]["host"] is None) == (system == "win32")
    assert found["evaluate"]["code"] == 0 and "linear" in found["evaluate"]["out"], found["evaluate"]
    assert found["embed"]["code"] == 0 and np.load(tmp_path / "h.npz")["h"].shape[0] == 3, found["embed"]
    np.testing.assert_allclose(*found["losses"], rtol=1e-5)
    assert found["mean"] == pytest.approx(np.mean(found["losses"][1]), rel=1e-5)
    assert found["views"] == [[4, 8, 8, 3], [4, 8, 8, 3]]
    sentence = f"which does not exist for {words}. Use --ops auto or --ops stock."
    assert found["native"]["code"] == 1 and sentence in found["native"]["err"], found["native"]
    assert found["resume"]["code"] == 1 and "ops: native -> stock" in found["resume"]["err"], found["resume"]
    if checked:
        assert found["check"]["code"] == 0 and "comparisons passed." in found["check"]["out"], found["check"]
        assert f"none for {words}, so the stock ops are checked" in found["check"]["out"]
