"""Builds lowlevel_simclr/_native.so from kernels/. Prints what it will build, then a line for each finished file.

The build needs a C++ compiler and the headers of an installed TensorFlow, which build_backend.py finds. One binary
works with every TensorFlow from 2.15 on. It uses TensorFlow's C API and XLA's foreign function interface (FFI), which
both have a stable ABI. The build links it against empty libraries that have the names of TensorFlow's libraries. So no
symbol of the binary is tied to one version of TensorFlow. Only TensorFlow 2.20 and later contain XLA's headers. With an
older TensorFlow, the library gets no XLA handlers (functions that XLA can call), and the build prints this.
kernels/glue/ffi_runtime.h explains how one binary works with the XLA of several versions.

The name of a source file below kernels/ decides how the build compiles it. A file *_tiles.cc is compiled once for each
instruction set. A file *_xla.cc is compiled only if XLA's headers are installed. The files *.cu, *_cuda_xla.cc and
*_cudart.cc are compiled only if the library gets CUDA kernels. The files *_test_driver.cc are not part of the library.
All other sources are always compiled, once each.

By default (LOWLEVEL_SIMCLR_CUDA=auto), CUDA kernels are built if this machine has an NVIDIA GPU and nvcc is found. The
build looks for nvcc in CUDACXX, PATH, CUDA_HOME/bin and /usr/local/cuda/bin. With LOWLEVEL_SIMCLR_CUDA=1 the build
fails if nvcc is not found. With LOWLEVEL_SIMCLR_CUDA=0 it leaves the CUDA kernels out. A library with CUDA kernels also
loads on a machine without a GPU or driver.

The kernels are written for Linux on x86-64 and on arm64. On other platforms, or with LOWLEVEL_SIMCLR_NATIVE=0, the
package is pure Python and uses stock TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, TextIO

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # in a build by pip, sys.path does not contain this folder
from build_backend import OLDEST, Headers, find_headers  # noqa: E402

KERNELS = ROOT / "kernels"
PACKAGE = Path("lowlevel_simclr")

FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi"]
# For each processor, the instruction sets to compile for, with the flags of the compiler. The processors have the names
# that `g++ -dumpmachine` and `platform.machine()` use.
INSTRUCTION_SETS: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
        "avx2": ["-mavx2", "-mfma"],
        "baseline": [],
    },
    "aarch64": {"neon": []},
}
# Machine code for GPUs like A100 (sm_80) and H100 (sm_90), and PTX code, which the driver of a newer GPU compiles.
CUDA_ARCHITECTURES = {"sm_80": "arch=compute_80,code=sm_80", "sm_90": "arch=compute_90,code=[sm_90,compute_90]"}
CUDA_FLAGS = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads", "0", "-Xptxas", "-v"]
# The C++ runtime is linked into the library, because the C++ runtime on the user's machine may be too old.
LINK = ["-shared", "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections", "-Wl,-s"]
EXPORTS = "{ global: lowlevel_simclr_*; local: *; };\n"  # symbols of the C++ runtime are not exported
BUILT_BY_PIP = {
    "_PYPROJECT_HOOKS_BUILD_BACKEND",
    "PEP517_BUILD_BACKEND",
}  # environment variables that newer and older versions of pip set during a build
STAND_INS = ["libtensorflow_framework.so.2", "libtensorflow_cc.so.2"]


class Cuda(NamedTuple):
    """The decision whether the library gets CUDA kernels.

    Attributes:
        nvcc: path of the compiler, or None if the library gets no CUDA kernels.
        reason: why the library gets no CUDA kernels. Empty if it gets them.
    """

    nvcc: str | None
    reason: str = ""


def open_terminal() -> TextIO | None:
    """Return the terminal of the person who waits for pip, or None.

    pip shows the output of a build only with --verbose or if the build fails. A build takes minutes, so its progress
    goes to the terminal.
    """
    hidden = not sys.stdout.isatty() and not BUILT_BY_PIP.isdisjoint(os.environ)
    with contextlib.suppress(OSError):
        return open("/dev/tty", "w", encoding="utf-8") if hidden else None
    return None


TERMINAL = open_terminal()


def say(line: str) -> None:
    """Print a progress line. If pip hides the standard output, print it on the terminal too."""
    print(line, flush=True)
    if TERMINAL is not None:
        TERMINAL.write(f"\n{line} ")  # pip draws its progress sign at the end of this line
        TERMINAL.flush()


def check_sources() -> None:
    """Raise SystemExit if sources are missing. Otherwise the build would succeed, and the library fail at first use."""
    ops = sorted(path.stem for path in (ROOT / PACKAGE / "ops").glob("[!_]*.py"))
    needed = [KERNELS / "glue" / "library.cc"]
    missing = [path for path in [*needed, *(KERNELS / op / f"{op}_op.cc" for op in ops)] if not path.is_file()]
    if missing:
        raise SystemExit(
            f"lowlevel_simclr: {missing[0].relative_to(ROOT)} is missing, so the native library cannot be built. Build "
            "from a clone or from a complete source distribution."
        )


def read_abi() -> int:
    """Return the ABI version of the native library, which ops/_library.py defines."""
    text = (ROOT / PACKAGE / "ops" / "_library.py").read_text(encoding="utf-8")
    found = re.search(r"^ABI = (\d+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit("lowlevel_simclr/ops/_library.py has no line 'ABI = <number>'. Restore that line.")
    return int(found.group(1))


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler (CXX, or g++ if CXX is not set), after checking that it runs."""
    command = shlex.split(os.environ.get("CXX", "g++"))
    try:
        subprocess.run([*command, "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"lowlevel_simclr: The C++ compiler {' '.join(command)!r} does not run ({error}). Install g++ 11 or later "
            "(Debian and Ubuntu: apt-get install g++), or set CXX to another compiler."
        ) from error
    return command


def find_processor() -> str:
    """Return the processor that the compiler makes code for: "x86_64" or "aarch64".

    This can differ from the processor of this machine, if CXX is a cross compiler such as aarch64-linux-gnu-g++.
    """
    command = find_compiler()
    said = subprocess.run([*command, "-dumpmachine"], check=True, capture_output=True, text=True).stdout.strip()
    processor = said.partition("-")[0]
    if processor not in INSTRUCTION_SETS:
        raise SystemExit(
            f"lowlevel_simclr: {shlex.join(command)} makes code for {said!r}, but the kernels are written for "
            f"{' and '.join(INSTRUCTION_SETS)}. Set LOWLEVEL_SIMCLR_NATIVE=0 to install without the library."
        )
    return processor


def builds_library() -> bool:
    """Return whether to build the library. Without it, the package is pure Python and uses stock TensorFlow.

    LOWLEVEL_SIMCLR_NATIVE=1 or =0 decides. If the variable is not set, the library is built on Linux on x86-64 and on
    arm64.
    """
    wanted = os.environ.get("LOWLEVEL_SIMCLR_NATIVE")
    if wanted not in (None, "", "0", "1"):
        raise SystemExit(f"lowlevel_simclr: LOWLEVEL_SIMCLR_NATIVE is {wanted!r}. Set it to 1 or 0, or unset it.")
    return wanted == "1" if wanted else sys.platform == "linux" and platform.machine() in INSTRUCTION_SETS


def find_tensorflow_headers() -> Headers:
    """Return TensorFlow's headers."""
    headers = find_headers()
    if headers is None:
        raise SystemExit(
            "lowlevel_simclr: TensorFlow is not installed for this Python, and its headers are needed to build. Run "
            "'pip install tensorflow', then the same command again."
        )
    return headers


def has_xla(include: Path) -> bool:
    """Return whether this include folder contains the headers of XLA's FFI."""
    return (include / "xla" / "ffi" / "api" / "ffi.h").exists()


def has_gpu() -> bool:
    """Return whether this machine has a device file of an NVIDIA GPU, or the driver's program nvidia-smi."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None


def choose_cuda() -> Cuda:
    """Decide whether to build CUDA kernels.

    LOWLEVEL_SIMCLR_CUDA=1 or =0 decides. With auto, CUDA kernels are built if this machine has a GPU and nvcc.
    """
    wanted = os.environ.get("LOWLEVEL_SIMCLR_CUDA") or "auto"
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"lowlevel_simclr: LOWLEVEL_SIMCLR_CUDA is {wanted!r}. Set it to 1, 0 or auto, or unset it.")
    if wanted == "0":
        return Cuda(None, "LOWLEVEL_SIMCLR_CUDA is 0")
    if wanted == "auto" and not has_gpu():
        return Cuda(None, "this machine has no NVIDIA GPU; LOWLEVEL_SIMCLR_CUDA=1 builds CUDA kernels all the same")
    nvcc = find_cuda_compiler()
    if nvcc is None and wanted == "1":
        raise SystemExit(
            "lowlevel_simclr: LOWLEVEL_SIMCLR_CUDA=1 needs nvcc, which was not found. Put it on PATH, or set "
            "CUDACXX to its path."
        )
    return Cuda(nvcc, "" if nvcc else "there is a GPU but no nvcc; put it on PATH, or set CUDACXX to its path")


def find_cuda_compiler() -> str | None:
    """Return the path of nvcc after checking that it runs, or None if nvcc is not found."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)])
    found = os.environ.get("CUDACXX") or shutil.which("nvcc", path=places)
    if found is None:
        return None
    try:
        subprocess.run([found, "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"lowlevel_simclr: The CUDA compiler {found!r} does not run ({error}). Repair it, or set "
            "LOWLEVEL_SIMCLR_CUDA=0 to build without CUDA."
        ) from error
    return found


def find_static_cuda_runtime(nvcc: str, folder: Path) -> Path:
    """Return the path of this nvcc's libcudart_static.a."""
    empty = folder / "empty.cu"
    empty.write_text("", encoding="utf-8")
    said = subprocess.run([nvcc, "--dryrun", "-c", str(empty)], capture_output=True, text=True, cwd=folder).stderr
    top = re.search(r"^#\$ TOP=(.*)$", said, re.MULTILINE)
    tops = [Path(top.group(1).strip())] if top else []
    for root in [*tops, Path(nvcc).resolve().parent.parent]:
        for below in ("lib64", "lib", "targets/x86_64-linux/lib", "lib/x86_64-linux-gnu"):
            if (root / below / "libcudart_static.a").exists():
                return (root / below / "libcudart_static.a").resolve()
    raise SystemExit(
        f"lowlevel_simclr: libcudart_static.a was not found near {nvcc!r}. Install the CUDA runtime's development "
        "files, or set LOWLEVEL_SIMCLR_CUDA=0 to build without CUDA."
    )


def needs_cuda(source: Path) -> bool:
    """Return whether this C++ source is compiled only if the library gets CUDA kernels."""
    return source.name.endswith(("_cuda_xla.cc", "_cudart.cc"))


def list_compilations(cxx: list[str], nvcc: str | None, include: Path, folder: Path) -> dict[Path, list[str]]:
    """Return a dict from each object file to the command that compiles it. The longest compilations come first."""
    found: dict[Path, list[str]] = {}
    for source in sorted(KERNELS.rglob("*.cu")) if nvcc else []:
        architectures = [word for value in CUDA_ARCHITECTURES.values() for word in ("-gencode", value)]
        found[folder / f"{source.stem}.cu.o"] = [nvcc or "", *CUDA_FLAGS, *architectures, "-c", str(source)]
    sources = [path for path in sorted(KERNELS.rglob("*.cc")) if not path.name.endswith("_test_driver.cc")]
    plain = [*cxx, *FLAGS, *WARNINGS]
    for source in sources:
        if source.name.endswith("_tiles.cc"):
            for name, flags in INSTRUCTION_SETS[find_processor()].items():
                command = [*plain, *flags, f"-DLOWLEVEL_SIMCLR_ISA={name}", "-c", str(source)]
                found[folder / f"{source.stem}_{name}.o"] = command
    for source in sources:
        left_out = source.name.endswith("_xla.cc") and not has_xla(include) or needs_cuda(source) and not nvcc
        if not source.name.endswith("_tiles.cc") and not left_out:
            command = [*plain, f"-isystem{include}", f"-DLOWLEVEL_SIMCLR_ABI={read_abi()}", "-c", str(source)]
            found[folder / f"{source.stem}.o"] = command
    return found


def run(command: list[str]) -> None:
    """Run a compiler. If it fails, show its output and the command."""
    done = subprocess.run(command, capture_output=True, text=True)
    is_cuda = Path(command[0]).name == "nvcc"
    if done.returncode != 0:
        remedy = " Set LOWLEVEL_SIMCLR_CUDA=0 to build without CUDA." if is_cuda else ""
        said = f"{done.stdout}{done.stderr}"
        raise SystemExit(
            f"{said}\nlowlevel_simclr: The compiler failed.{remedy} The command was: {shlex.join(command)}"
        )
    if is_cuda:  # keeps the output, in which ptxas reports registers and spilled bytes
        Path(command[-1]).with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    elif done.stderr:
        print(done.stderr, file=sys.stderr)


def build_stand_ins(cxx: list[str], folder: Path) -> None:
    """Build empty libraries with the names of TensorFlow's. Only the linker reads them; no program loads them."""
    empty = folder / "empty.cc"
    empty.write_text("", encoding="utf-8")
    for name in STAND_INS:
        run([*cxx, "-shared", "-fPIC", str(empty), "-o", str(folder / name), f"-Wl,-soname,{name}"])


def compile_all(jobs: dict[Path, list[str]]) -> None:
    """Run all compilations, several at a time. Print a line after each of them."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        started = {threads.submit(run, [*command, "-o", str(made)]): made for made, command in jobs.items()}
        for done, future in enumerate(as_completed(started), 1):
            if future.exception() is not None:
                threads.shutdown(cancel_futures=True)
            future.result()
            say(f"  compiled {done} of {len(jobs)}: {started[future].stem}")


def link(target: Path, cxx: list[str], nvcc: str | None, made: list[Path], folder: Path) -> None:
    """Link objects to `target`, with intermediate files in `folder`."""
    build_stand_ins(cxx, folder)
    # TensorFlow's libraries also export the functions of a CUDA runtime, but of another CUDA version. So the link
    # command names libcudart_static.a first, and the linker takes the functions from there.
    objects = [*map(str, made), *([str(find_static_cuda_runtime(nvcc, folder)), "-lrt", "-ldl"] if nvcc else [])]
    libraries = [f"-L{folder}", "-Wl,--no-as-needed", *(f"-l:{name}" for name in STAND_INS)]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".so.part")  # so an interrupted build leaves no half-written file named `target`
    exports = folder / "exports.map"
    exports.write_text(EXPORTS, encoding="utf-8")
    run([*cxx, *LINK, f"-Wl,--version-script={exports}", *objects, *libraries, "-o", str(part)])
    os.replace(part, target)


def build(target: Path, folder: Path, version: str) -> None:
    """Compile and link the library `target`. Write its description into a .json file beside it.

    The intermediate files are in `folder`.
    """
    started = time.perf_counter()
    check_sources()
    cuda, cxx, headers = choose_cuda(), find_compiler(), find_tensorflow_headers()
    compiler = subprocess.run([*cxx, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    folder.mkdir(parents=True, exist_ok=True)
    jobs = list_compilations(cxx, cuda.nvcc, headers.include, folder)
    say(f"lowlevel_simclr: building {target.name} from {len(jobs)} files with {compiler}")
    say(f"  CPU: {', '.join(INSTRUCTION_SETS[find_processor()])}")
    say(f"  CUDA: {', '.join(CUDA_ARCHITECTURES)} with {cuda.nvcc}" if cuda.nvcc else f"  CUDA: no ({cuda.reason})")
    older = f"no (TensorFlow {headers.version} has no headers of XLA's FFI; build with TensorFlow {OLDEST} or later)"
    say(f"  XLA: {'yes' if has_xla(headers.include) else older}")
    compile_all(jobs)
    link(target, cxx, cuda.nvcc, list(jobs), folder)
    write_description(target, cuda.nvcc, compiler, version, headers)
    say(f"lowlevel_simclr: built {target.name} in {time.perf_counter() - started:.0f} s")


def write_description(target: Path, nvcc: str | None, compiler: str, version: str, headers: Headers) -> None:
    """Write a description of the build into a .json file beside the library."""
    built = {
        "version": version,
        "abi": read_abi(),
        "cpu": list(INSTRUCTION_SETS[find_processor()]),
        "cuda": list(CUDA_ARCHITECTURES) if nvcc else False,
        "xla": has_xla(headers.include),
        "tensorflow": headers.version,
        "compiler": compiler,
    }
    target.with_suffix(".json").write_text(json.dumps(built, indent=2) + "\n", encoding="utf-8")


class BuildNative(build_ext):
    """The build command. It writes the library into the wheel or, for an editable install, into this checkout."""

    def run(self) -> None:
        """Compile and link the library. If `builds_library` returns False, only print that no library is built."""
        if not builds_library():
            say("lowlevel_simclr: no native library (LOWLEVEL_SIMCLR_NATIVE=0, or no kernels for this platform)")
            return
        self.native = (ROOT if self.inplace or self.editable_mode else Path(self.build_lib)) / PACKAGE / "_native.so"
        folder = Path(self.build_temp) / f"native-{sysconfig.get_platform()}"
        build(self.native, folder, self.distribution.get_version())

    def get_outputs(self) -> list[str]:
        """Return the files that this command writes."""
        library = Path(self.build_lib) / PACKAGE / "_native.so"
        return [str(library), str(library.with_suffix(".json"))]

    def get_output_mapping(self) -> dict[str, str]:
        """Return an empty dict: after an editable build no file must be mapped, because the library is in place."""
        return {}


class AnyPythonWheel(bdist_wheel):
    """The wheel command. The wheel is for every Python 3, because the library does not call Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag of the wheel, such as py3-none-linux_x86_64. Without the library, the tag is py3-none-any."""
        return "py3", "none", f"linux_{find_processor()}" if builds_library() else "any"


class WithLibrary(Distribution):
    """A distribution that is not pure Python, unless it is built without the native library."""

    def has_ext_modules(self) -> bool:
        """Return whether the distribution contains the native library."""
        return builds_library()


COMMANDS: dict[str, type[Command]] = {"build_ext": BuildNative, "bdist_wheel": AnyPythonWheel}

setup(distclass=WithLibrary, cmdclass=COMMANDS)
