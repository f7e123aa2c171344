"""Tests environment.json, in which training records versions, the processor, the git commit and the peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.run import environment

# environment.json


def test_the_environment_tells_versions_machine_and_what_was_chosen(run):
    import tensorflow as tf

    run.write_environment({"precision": "bfloat16", "ops": "stock"})
    found = json.loads((run.folder / "environment.json").read_text())
    assert (found["precision"], found["ops"], found["earlier"]) == ("bfloat16", "stock", [])
    assert found["tensorflow"] == tf.__version__ and found["numpy"] == np.__version__
    assert found["keras"].split(".")[0] in ("2", "3") and found["python"] == sys.version.split()[0]
    assert found["cpu"]["cores"] >= 1 and found["cpu"]["model"] and isinstance(found["gpus"], list)
    assert Path(sys.executable).name in found["command"]


def test_sessions_before_this_one_are_kept_in_order(run):
    for precision in ("float32", "bfloat16", "float16"):
        run.write_environment({"precision": precision})
    found = json.loads((run.folder / "environment.json").read_text())
    assert found["precision"] == "float16"
    assert [session["precision"] for session in found["earlier"]] == ["float32", "bfloat16"]
    assert all("earlier" not in session for session in found["earlier"])


def test_only_variables_that_matter_are_recorded(run, monkeypatch):
    monkeypatch.setenv("TF_SOMETHING", "1")
    monkeypatch.setenv("MY_TOKEN", "secret")
    run.write_environment({})
    text = (run.folder / "environment.json").read_text()
    assert json.loads(text)["variables"]["TF_SOMETHING"] == "1" and "secret" not in text


# What the operating system and git report


def test_the_processor_is_read_as_linux_lists_it(tmp_path):
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 fma amx_bf16 avx512f_not\n")
    assert {**environment._describe_cpu(listed), "cores": 0} == {
        "model": "Fast 9000",
        "cores": 0,
        "flags": ["amx_bf16", "avx2", "fma"],
    }
    listed.write_text("processor\t: 0\nFeatures\t: fp asimd sve\n")
    assert environment._describe_cpu(listed)["flags"] == ["asimd", "sve"] and environment._describe_cpu(listed)["model"]
    assert environment._describe_cpu(tmp_path / "none")["flags"] == []


def test_the_commit_is_that_of_the_repository_that_tracks_the_file(tmp_path):
    def git(*arguments: str) -> str:
        name = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    module, other = tmp_path / "module.py", tmp_path / "other.py"
    module.write_text("1")
    if environment._ask_git(tmp_path, "--version") is None:
        pytest.skip("git is not installed")
    assert environment._find_git_commit(module) is None  # the folder is not a repository yet
    git("init")
    git("add", "module.py")
    git("commit", "--message", "first")
    other.write_text("not tracked, as an installed package is not")
    assert (
        environment._find_git_commit(module) == git("rev-parse", "HEAD") and environment._find_git_commit(other) is None
    )
    module.write_text("2")
    assert environment._find_git_commit(module) == git("rev-parse", "HEAD") + "+changes"


def test_a_package_that_is_not_installed_has_no_version():
    assert (
        environment._find_version("no-such-package-as-this") is None
        and environment._find_version("numpy") == np.__version__
    )


# Peak memory


def test_the_peak_of_memory_is_this_processs_own() -> None:
    """Test the peak memory of a small process that is started by this process, which holds 300 MB more.

    The memory of the parent must not count.
    """
    held = np.ones(300 * 2**20 // 8)
    script = "from lowlevel_simclr.run import environment; print(environment.measure_peak_resident())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert held.all() and 2**20 < int(done.stdout) < environment.measure_peak_resident() - 200 * 2**20


@pytest.mark.parametrize("told", [None, "VmPeak:\t 12 kB\n"])
def test_where_linux_does_not_tell_the_peak_the_process_is_asked(tmp_path: Path, told: str | None) -> None:
    status = tmp_path / "status"
    if told:
        status.write_text(told)
    assert environment.measure_peak_resident(status) >= environment.measure_peak_resident() > 2**20
    status.write_text("VmPeak:\t 12 kB\nVmHWM:\t 34 kB\n")
    assert environment.measure_peak_resident(status) == 34 * 1024
