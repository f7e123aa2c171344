"""Writes kernels/glue/ffi_releases.h from wheels of TensorFlow: python -m bench.report.ffi_releases WHEEL ...

The native library is one binary for several releases of TensorFlow. So the structures of XLA's C interface must have
the same memory layout in all of them. For each wheel, this program compiles kernels/glue/ffi_layout.h with the headers
in the wheel, and records the sizes of the structures and the offsets of their fields. The build of the library compares
these numbers with those of the headers that it uses. Give the program one wheel of each release, from 2.18 on. This
command downloads one:

    pip download --no-deps --dest wheels tensorflow-cpu==2.21.0
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

GLUE = Path(__file__).resolve().parents[2] / "kernels" / "glue"
TARGET = GLUE / "ffi_releases.h"
HEADERS = "tensorflow/include/xla/ffi/api/"
PROGRAM = """
#include <cstdio>
#include "ffi_layout.h"
using namespace lowlevel_simclr;
int main(int, char** given) {
  std::printf("    {\\"%s\\", %d, %d, %zu, %zu, %zu, %zu, {", given[1], XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR,
              size_t{XLA_FFI_Api_STRUCT_SIZE}, kFfiRegisterArgsSize, kFfiMessageArgsSize, sizeof(XLA_FFI_Metadata));
  for (size_t i = 0; i < kFfiLayoutCount; ++i) std::printf("%s%zu", i ? ", " : "", kFfiLayout[i]);
  std::puts("}},");
}
"""
TEXT = """\
// The numbers that ffi_layout.h has in each release of TensorFlow. bench.report.ffi_releases wrote this file from the
// headers in the wheels; do not edit it.
#pragma once

#include "ffi_layout.h"

namespace lowlevel_simclr {{

// clang-format off
constexpr FfiRelease kFfiReleases[] = {{
{rows}
}};
// clang-format on

}}  // namespace lowlevel_simclr
"""


def read_release(wheel: Path) -> str:
    """Return the table row of one release.

    Args:
        wheel: a wheel of tensorflow or tensorflow-cpu, version 2.18 or later.

    Raises:
        SystemExit: if the wheel has no headers of XLA's foreign function interface, or if they do not compile.
    """
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as made, zipfile.ZipFile(wheel) as packed:
        folder = Path(made)
        headers = [name for name in packed.namelist() if name.startswith(HEADERS)]
        if not headers:
            raise SystemExit(f"{wheel.name} has no {HEADERS}. Give a wheel of TensorFlow 2.18 or later.")
        packed.extractall(folder, headers)
        (folder / "print.cc").write_text(PROGRAM, encoding="utf-8")
        include = folder / "tensorflow" / "include"
        command = ["g++", "-std=c++17", f"-I{GLUE}", f"-I{include}", "print.cc", "-o", "print"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{done.stderr}\nkernels/glue/ffi_layout.h does not compile with {wheel.name}.")
        return subprocess.run([folder / "print", version], check=True, capture_output=True, text=True).stdout.rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table from the wheels that the command line names. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    wheels = parser.parse_args(argv).wheels
    rows = sorted({wheel.name.split("-")[1]: read_release(wheel) for wheel in wheels}.items())
    TARGET.write_text(TEXT.format(rows="\n".join(row for _, row in rows)), encoding="utf-8")
    print(f"wrote {TARGET.name}: {', '.join(version for version, _ in rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
