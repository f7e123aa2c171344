"""Tests which number type (float32, bfloat16, float16) training uses: the fastest one of the CPU or GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from lowlevel_simclr.runtime.precision import choose_fast_precision, has_bfloat16, set_precision


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="no precision 'int8'"):
        set_precision("int8")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((7, 0), "float16"), ((6, 1), "float32")],
)
def test_the_fast_precision_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert choose_fast_precision() == precision
    assert has_bfloat16() == (precision == "bfloat16")


@pytest.mark.parametrize(
    ("vendor", "flags", "precision"),
    [
        ("GenuineIntel", "fma avx2 avx512f", "float32"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bfloat16"),  # Zen 4
        ("AuthenticAMD", "avx512f avx512_bf16 avx512_fp16", "bfloat16"),
        ("GenuineIntel", "avx512f avx512_bf16", "bfloat16"),  # Cooper Lake, before AMX
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", "bfloat16"),
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "float32"),  # has AMX, but the virtual machine hides it
    ],
)
def test_the_fast_precision_of_a_processor(
    monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, precision: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "exists", lambda path: True)
    text = f"processor : 0\nvendor_id : {vendor}\nflags : fpu {flags}\n"
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert choose_fast_precision() == precision
    assert has_bfloat16() == ("bf16" in flags)


def test_a_system_without_cpuinfo_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert choose_fast_precision() == "float32"
    assert not has_bfloat16()
