"""Tests the C++ kernels for arm64 processors on any machine, with a cross compiler and an emulator.

C++ code for one kind of processor must be inside an #if with a macro of this processor. The test drivers (C++ programs
that test the kernels) are compiled with Debian's cross compiler and must pass under emulation. The library for arm64
must import and export the same names as the library for x86-64.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lowlevel_simclr.ops import _library
from tests.support.other_process import ROOT

KERNELS = ROOT / "kernels"
COMPILER, EMULATOR, READER = "aarch64-linux-gnu-g++", "qemu-aarch64", "aarch64-linux-gnu-readelf"
SCRIPT = KERNELS / "cross_arm64.sh"

# For each processor: a pattern of names that exist only there, and the macros whose #if may contain such names.
ONLY_ON = {
    "x86-64": (
        r"__builtin_ia32_|\b_mm\d*_|\b__m(128|256|512)|[a-z]mmintrin\.h|__builtin_cpu_|-mavx|k(Avx\d+|Baseline)\b",
        r"__x86_64__|__SSE2__|__AVX2__|__AVX512F__",
    ),
    "arm64": (r"__builtin_aarch64_|\bv\w+q_[fsu]\d+\b|arm_neon\.h|\"yield\"|kNeon\b", r"__aarch64__"),
}
OTHER = {"x86-64": "arm64", "arm64": "x86-64"}


def find_unguarded(text: str) -> list[str]:
    """Return the lines of C++ code that need one kind of processor, but are not inside an #if for this kind.

    Such a line may also be in the #else of an #if for the other kind.
    """
    found, opened = [], []  # opened: for each #if around the line, its present condition, and its earlier conditions
    for line in text.splitlines():
        word, _, rest = line.strip().lstrip("#").strip().partition(" ")
        if line.lstrip().startswith("#") and word in ("if", "ifdef", "ifndef"):
            opened.append((rest, ""))
        elif line.lstrip().startswith("#") and word in ("elif", "else"):
            now, earlier = opened.pop()
            opened.append((rest, earlier + now))
        elif line.lstrip().startswith("#") and word == "endif":
            opened.pop()
        code = line.partition("//")[0]
        for processor, (pattern, macros) in ONLY_ON.items():
            guarded = any(
                re.search(macros, now) or (not now and re.search(ONLY_ON[OTHER[processor]][1], earlier))
                for now, earlier in opened
            )
            if re.search(pattern, code) and not guarded:
                found.append(line.strip())
    return found


def test_an_instruction_of_one_processor_is_found_outside_its_macro() -> None:
    inside = "#if defined(__SSE2__)\n_mm_getcsr();\n#elif defined(__aarch64__)\nkNeon;\n#endif\n"
    assert find_unguarded(inside) == []
    assert find_unguarded(inside + "_mm_sfence();  // after its macro") == ["_mm_sfence();  // after its macro"]
    assert find_unguarded("#if defined(__aarch64__)\nkNeon;\n#else\nkAvx2;\n#endif") == []
    assert find_unguarded("#if defined(__aarch64__)\nkAvx2;\n#else\nkNeon;\n#endif") == ["kAvx2;", "kNeon;"]
    assert find_unguarded("#if defined(__GLIBC__)\nvmlaq_f32(a);\n#else\nkAvx2;\n#endif") == ["vmlaq_f32(a);", "kAvx2;"]


def test_instructions_of_one_processor_stand_behind_its_macro() -> None:
    sources = [path for end in ("*.cc", "*.h") for path in sorted(KERNELS.rglob(end))]
    assert len(sources) > 40
    wrong = {str(path.relative_to(KERNELS)): lines for path in sources if (lines := find_unguarded(path.read_text()))}
    assert wrong == {}


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install g++-aarch64-linux-gnu qemu-user")


FLUSHES = """
#include "runtime/float_mode.h"
#include <cstdio>
#include <cstring>
__attribute__((noinline)) unsigned multiply(volatile float* a, volatile float* b) {
  const float product = *a * *b;
  unsigned bits;
  std::memcpy(&bits, &product, sizeof bits);
  return bits;
}
int main() {
  volatile float tiny = 1e-30f, small = 1e-10f;
  const unsigned before = multiply(&tiny, &small);
  unsigned inside;
  { lowlevel_simclr::FloatMode mode; inside = multiply(&tiny, &small); }
  std::printf("%d %d %d", before != 0, inside != 0, multiply(&tiny, &small) != 0);
}
"""


@pytest.mark.parametrize("compiler", ["g++", COMPILER])
def test_subnormal_products_are_zero_in_the_mode_of_the_kernels_and_nowhere_else(compiler: str, tmp_path: Path) -> None:
    emulator = [EMULATOR, "-L", "/usr/aarch64-linux-gnu"] if compiler == COMPILER else []
    need(compiler, *emulator[:1])
    (tmp_path / "flushes.cc").write_text(FLUSHES)
    build = [compiler, "-O2", "-std=c++17", f"-I{KERNELS}", tmp_path / "flushes.cc", "-o", tmp_path / "flushes"]
    subprocess.run(build, check=True)
    said = subprocess.run([*emulator, tmp_path / "flushes"], check=True, capture_output=True, text=True).stdout
    assert said == "1 0 1"


@pytest.mark.slow
def test_the_test_drivers_pass_under_emulation() -> None:
    need(COMPILER, EMULATOR)
    done = subprocess.run([SCRIPT, "drivers", "20", "1"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    counts = re.findall(r"^(\d+) cases, (\d+) wrong$", done.stdout, re.MULTILINE)
    assert len(counts) == len(list(KERNELS.rglob("*_test_driver.cc"))) - 1  # all drivers but the one that needs XLA
    assert all(int(cases) > 20 and wrong == "0" for cases, wrong in counts), done.stdout


def read_symbols(library: Path) -> tuple[set[str], set[str]]:
    """Return the names of TensorFlow's functions that a library needs, and the names that it exports."""
    said = subprocess.run([READER, "-W", "--dyn-syms", library], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines() if re.match(r"\s+\d+: ", line)]
    named = [(row[6], row[7].partition("@")[0]) for row in rows if len(row) > 7]
    needed = {name for section, name in named if section == "UND" and not name.startswith("_ITM")}
    of_tensorflow = {name for name in needed if name.startswith("TF_") or "xla" in name.lower()}
    return of_tensorflow, {name for section, name in named if section != "UND" and name.startswith("lowlevel_")}


@pytest.mark.slow
def test_a_wheel_for_arm64_has_the_symbols_of_the_one_for_x86(tmp_path: Path) -> None:
    need(COMPILER, READER)
    build = subprocess.run(
        [SCRIPT, "wheel", str(tmp_path)], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout[-2000:] + build.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-linux_aarch64.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "content")
    library = tmp_path / "content" / "lowlevel_simclr" / "_native.so"
    assert _library.read_build_information(library)["cpu"] == ["neon"]
    header = subprocess.run([READER, "-h", library], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Machine:\s+AArch64", header)
    needed, exported = read_symbols(library)
    of_x86, exported_by_x86 = read_symbols(_library.PATH)
    assert len(needed) > 20 and needed == of_x86
    # A library for x86-64 with CUDA also exports the launchers of the CUDA kernels. The wheel for arm64 has no CUDA.
    assert "lowlevel_simclr_abi" in exported and exported <= exported_by_x86
    assert exported == exported_by_x86 or _library.read_build_information()["cuda"]
