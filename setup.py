"""The build of lowlevel_simclr/_native.so from kernels/. It prints what it built, or fails with a message.

One binary serves every TensorFlow from 2.15 on. It uses TensorFlow's C API and XLA's FFI, which both have a stable ABI.
It is linked against empty stand-ins for TensorFlow's libraries, so that no symbol asks for one version. Only TensorFlow
2.20 and later ship XLA's headers. A library that is built beside an older one has no XLA handlers, and the build prints
this. kernels/glue/ffi_runtime.h says how one binary serves the XLA of several versions.

Sources are found by name. kernels/*/X_tiles.cc is compiled once for each instruction set. X_xla.cc is compiled only if
XLA's headers are there. *.cu, X_cuda_xla.cc and *_cudart.cc are compiled only if nvcc is there. Everything else is
compiled once. kernels/**/*_test_driver.cc is not part of the library.

CUDA kernels are built if nvcc is found: in CUDACXX, PATH, CUDA_HOME/bin or /usr/local/cuda/bin. LOWLEVEL_SIMCLR_CUDA=1
requires them, and =0 leaves them out. A library with CUDA kernels also loads on a machine without a GPU or driver.

The kernels are written for Linux on x86-64 and on arm64. Elsewhere, or with LOWLEVEL_SIMCLR_NATIVE=0, the package is
pure Python and uses stock TensorFlow.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

VERSION = "0.1.0"
ROOT = Path(__file__).resolve().parent
KERNELS = ROOT / "kernels"
PACKAGE = Path("lowlevel_simclr")

FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi"]
# The instruction sets of each processor that the kernels are written for, as the compiler and Python name it.
INSTRUCTION_SETS: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
        "avx2": ["-mavx2", "-mfma"],
        "baseline": [],
    },
    "aarch64": {"neon": []},
}
# Machine code for the generations of A100 and H100, and PTX that a driver compiles for newer GPUs.
CUDA_ARCHITECTURES = {"sm_80": "arch=compute_80,code=sm_80", "sm_90": "arch=compute_90,code=[sm_90,compute_90]"}
CUDA_FLAGS = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads", "0", "-Xptxas", "-v"]
# The library contains the C++ runtime, because the user's may be older.
LINK = ["-shared", "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections", "-Wl,-s"]
EXPORTS = "{ global: lowlevel_simclr_*; local: *; };\n"  # symbols of the C++ runtime are not exported
STAND_INS = ["libtensorflow_framework.so.2", "libtensorflow_cc.so.2"]


def read_abi() -> int:
    """Return the number of the contract between library and Python, which is kept in _library.py."""
    text = (ROOT / PACKAGE / "ops" / "_library.py").read_text(encoding="utf-8")
    found = re.search(r"^ABI = (\d+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit("lowlevel_simclr/ops/_library.py has no line 'ABI = <number>'. Restore that line.")
    return int(found.group(1))


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler, from CXX or g++, after checking that it runs."""
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

    A cross compiler in CXX, such as aarch64-linux-gnu-g++, makes code for another processor than this machine's.
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
    """Return whether to build the library. Without it the package is pure Python, and `--ops auto` uses stock ops.

    LOWLEVEL_SIMCLR_NATIVE=1 or =0 decides. Without it, the library is built on Linux on x86-64 and on arm64.
    """
    wanted = os.environ.get("LOWLEVEL_SIMCLR_NATIVE")
    if wanted not in (None, "", "0", "1"):
        raise SystemExit(f"lowlevel_simclr: LOWLEVEL_SIMCLR_NATIVE is {wanted!r}. Set it to 1 or 0, or unset it.")
    return wanted == "1" if wanted else sys.platform == "linux" and platform.machine() in INSTRUCTION_SETS


def find_tensorflow_headers() -> Path:
    """Return the folder of TensorFlow's headers, without importing TensorFlow."""
    spec = importlib.util.find_spec("tensorflow")
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations or not (Path(locations[0]) / "include" / "tensorflow" / "c" / "ops.h").exists():
        raise SystemExit(
            "lowlevel_simclr: TensorFlow is not installed for this Python, and its headers are needed to build. Run "
            "'pip install tensorflow', then 'pip install --no-build-isolation -e .'."
        )
    return Path(locations[0]) / "include"


def find_tensorflow_version() -> str:
    """Return the version of the TensorFlow whose headers are used."""
    for name in ("tensorflow", "tensorflow-cpu", "tf-nightly"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def find_cuda_compiler() -> str | None:
    """Return the path of nvcc after checking that it runs. Return None without nvcc, or if CUDA is switched off."""
    wanted = os.environ.get("LOWLEVEL_SIMCLR_CUDA")
    if wanted not in (None, "", "0", "1"):
        raise SystemExit(f"lowlevel_simclr: LOWLEVEL_SIMCLR_CUDA is {wanted!r}. Set it to 1 or 0, or unset it.")
    if wanted == "0":
        return None
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)])
    named = os.environ.get("CUDACXX")
    found = named or shutil.which("nvcc", path=places)
    if found is None:
        if wanted == "1":
            raise SystemExit(
                "lowlevel_simclr: LOWLEVEL_SIMCLR_CUDA=1 needs nvcc, which was not found. Put it on PATH, or set "
                "CUDACXX to its path."
            )
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


def has_xla(include: Path) -> bool:
    """Return whether this TensorFlow ships the headers of XLA's FFI."""
    return (include / "xla" / "ffi" / "api" / "ffi.h").exists()


def needs_cuda(source: Path) -> bool:
    """Return whether only a library with CUDA kernels contains this C++ source."""
    return source.name.endswith(("_cuda_xla.cc", "_cudart.cc"))


def list_compilations(include: Path, cxx: list[str], nvcc: str | None, folder: Path) -> dict[Path, list[str]]:
    """Return the command for every object to compile. The longest compilations come first."""
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
    if is_cuda:  # ptxas reports registers and spills
        Path(command[-1]).with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    elif done.stderr:
        print(done.stderr, file=sys.stderr)


def build_stand_ins(cxx: list[str], folder: Path) -> None:
    """Build empty libraries with the names of TensorFlow's. They are linked against and never loaded."""
    empty = folder / "empty.cc"
    empty.write_text("", encoding="utf-8")
    for name in STAND_INS:
        run([*cxx, "-shared", "-fPIC", str(empty), "-o", str(folder / name), f"-Wl,-soname,{name}"])


def build(target: Path, folder: Path) -> None:
    """Compile and link `target`, with intermediate files in `folder`. Write a .json file beside the target."""
    started = time.perf_counter()
    cxx, include = find_compiler(), find_tensorflow_headers()
    folder.mkdir(parents=True, exist_ok=True)
    nvcc = find_cuda_compiler()
    jobs = list_compilations(include, cxx, nvcc, folder)
    commands = [[*command, "-o", str(made)] for made, command in jobs.items()]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(run, commands))
    build_stand_ins(cxx, folder)
    # TensorFlow's libraries export stand-ins for CUDA functions of another version, so the real ones come first.
    objects = [*map(str, jobs), *([str(find_static_cuda_runtime(nvcc, folder)), "-lrt", "-ldl"] if nvcc else [])]
    libraries = [f"-L{folder}", "-Wl,--no-as-needed", *(f"-l:{name}" for name in STAND_INS)]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".so.part")  # so that no half-written library has the real name
    exports = folder / "exports.map"
    exports.write_text(EXPORTS, encoding="utf-8")
    run([*cxx, *LINK, f"-Wl,--version-script={exports}", *objects, *libraries, "-o", str(part)])
    os.replace(part, target)
    write_description(target, cxx, nvcc, include, time.perf_counter() - started)


def write_description(target: Path, cxx: list[str], nvcc: str | None, include: Path, seconds: float) -> None:
    """Write what was built into the .json file beside the library, and print it."""
    version = subprocess.run([*cxx, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    built = {
        "version": VERSION,
        "abi": read_abi(),
        "cpu": list(INSTRUCTION_SETS[find_processor()]),
        "cuda": list(CUDA_ARCHITECTURES) if nvcc else False,
        "xla": has_xla(include),
        "tensorflow": find_tensorflow_version(),
        "compiler": version,
    }
    target.with_suffix(".json").write_text(json.dumps(built, indent=2) + "\n", encoding="utf-8")
    xla = "yes" if built["xla"] else "no (this TensorFlow has no XLA FFI headers; build with TensorFlow 2.20 or later)"
    print(f"lowlevel_simclr: built {target.name} in {seconds:.0f} s")
    cuda = ", ".join([*CUDA_ARCHITECTURES, "PTX"]) if nvcc else "no (no nvcc, or LOWLEVEL_SIMCLR_CUDA=0)"
    print(f"  cpu: {', '.join(built['cpu'])}\n  cuda: {cuda}\n  xla: {xla}")
    print(f"  tensorflow: {built['tensorflow']} (runs with 2.15 and later)")
    print(f"  compiler: {version}", flush=True)


class BuildNative(build_ext):
    """The build of the one library: in place for an editable install, otherwise into the wheel."""

    def run(self) -> None:
        """Compile and link, unless the package is to be pure Python."""
        if not builds_library():
            print("lowlevel_simclr: no native library (LOWLEVEL_SIMCLR_NATIVE=0, or no kernels for this platform)")
            return
        self.native = (ROOT if self.inplace or self.editable_mode else Path(self.build_lib)) / PACKAGE / "_native.so"
        build(self.native, Path(self.build_temp) / f"native-{sysconfig.get_platform()}")

    def get_outputs(self) -> list[str]:
        """Return the files that this command writes."""
        library = Path(self.build_lib) / PACKAGE / "_native.so"
        return [str(library), str(library.with_suffix(".json"))]

    def get_output_mapping(self) -> dict[str, str]:
        """Return no links, because an editable build writes in place."""
        return {}


class AnyPythonWheel(bdist_wheel):
    """A wheel for every Python 3, because the library does not call Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag of the wheel, such as py3-none-linux_x86_64. Without the library, it is py3-none-any."""
        return "py3", "none", f"linux_{find_processor()}" if builds_library() else "any"


class WithLibrary(Distribution):
    """A distribution that is not pure Python, unless it is built without the native library."""

    def has_ext_modules(self) -> bool:
        """Return whether there is the native library."""
        return builds_library()


COMMANDS: dict[str, type[Command]] = {"build_ext": BuildNative, "bdist_wheel": AnyPythonWheel}

setup(
    name="lowlevel_simclr",
    version=VERSION,
    description="SimCLR in TensorFlow with its own kernels",
    packages=find_packages(include=["lowlevel_simclr", "lowlevel_simclr.*"]),
    package_data={"lowlevel_simclr": ["py.typed"]},
    entry_points={"console_scripts": ["lowlevel-simclr = lowlevel_simclr.__main__:main"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.15",
        "numpy",
        "matplotlib",
        "scikit-learn",
        "pillow",
        "tqdm",
        "tensorboard",
        "shtab",
    ],
    extras_require={
        "onnx": ["tf2onnx", "onnx", "onnxruntime"],
        "litert": ["ai-edge-litert"],
        "pytorch": ["torch", "safetensors"],
        "addons": ["tensorflow-addons==0.23.0", "tensorflow<2.16"],
        "test": ["pytest", "pytest-xdist", "hypothesis", "scipy"],
    },
    distclass=WithLibrary,
    cmdclass=COMMANDS,
    zip_safe=False,
)
