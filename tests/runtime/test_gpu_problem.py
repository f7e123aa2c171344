"""Tests how the package detects an NVIDIA GPU, and the message that says why TensorFlow does not use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowlevel_simclr.runtime import gpu_problem

PREFIX = "E0000 00:00:1796032084.745037   17231 cuda_platform.cc:52] "
CUINIT = f"{PREFIX}failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: "
DLOPEN = (
    "W0000 00:00:1796032084.7   17231 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure the "
    "missing libraries mentioned above are installed properly if you would like to use GPU."
)
PIP = "pip install 'tensorflow[and-cuda]'"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (f"{CUINIT}CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
        (f"{CUINIT}CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: forward compatibility", "driver is too old"),
        (f"{PREFIX}kernel version 535.1.0 does not match DSO version 550.2.0", "Restart the machine"),
        (DLOPEN, PIP),
        ("I0000 00:00:1 1 cudart_stub.cc:31] Could not find cuda drivers on your machine\n" + CUINIT + "(303)", PIP),
        (f"{CUINIT}CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected", "CUDA_VISIBLE_DEVICES"),
        (f"{CUINIT}UNKNOWN ERROR (100)", "driver does not start"),
        ("I0000 00:00:1 1 gpu.cc:1] Ignoring visible gpu device (device: 0)", "too old or has too few"),
        (f"{PREFIX}something new.", "TensorFlow says: something new. Check"),
        ("", "gives no reason"),
    ],
)
def test_the_sentence_names_the_reason_that_tensorflow_gave(lines: str, reason: str) -> None:
    sentence = gpu_problem.explain(lines)
    assert sentence.startswith("This machine has an NVIDIA GPU, but TensorFlow sees none") and reason in sentence
    assert "\n" not in sentence


def test_a_tensorflow_without_cuda_is_the_reason_itself() -> None:
    assert "was built without CUDA" in gpu_problem.explain(DLOPEN, built_with_cuda=False)


def test_a_device_file_or_the_program_of_the_driver_is_a_sign_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_problem, "DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidiactl").touch()
    assert not gpu_problem.has_nvidia_gpu()
    (tmp_path / "nvidia-smi").touch(0o755)
    assert gpu_problem.has_nvidia_gpu()
    (tmp_path / "nvidia-smi").unlink()
    (tmp_path / "nvidia0").touch()
    assert gpu_problem.has_nvidia_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # with this setting, a user hides the GPUs
    assert not gpu_problem.has_nvidia_gpu()


@pytest.mark.slow  # tests/programs/test_first_line.py asks in the same way, in a program
def test_another_process_says_what_this_one_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    assert "oneDNN custom operations are on" in gpu_problem.ask_for_reason()
