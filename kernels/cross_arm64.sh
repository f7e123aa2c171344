#!/bin/sh
# Builds the kernels for Linux on arm64 with Debian's cross compiler, and runs their test drivers under emulation:
#     kernels/cross_arm64.sh drivers [seconds] [seed]
# Builds the wheel for arm64 in a folder, with the Python in PYTHON:
#     kernels/cross_arm64.sh wheel [folder]
# The script does not run the library in this wheel, because the emulator has no TensorFlow.
# Needs: apt-get install g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export CXX=${CXX:-aarch64-linux-gnu-g++}
case ${1:-} in
  drivers)
    shift
    RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" exec "$here/sanitize.sh" none "$@"
    ;;
  wheel)
    cd "$here/.."
    folder=${2:-build/arm64}
    export LOWLEVEL_SIMCLR_CUDA=0 LOWLEVEL_SIMCLR_NATIVE=1
    exec "${PYTHON:-python3}" setup.py -q build --build-base "$folder/build" bdist_wheel --dist-dir "$folder"
    ;;
  *) echo "The first argument must be drivers or wheel." >&2; exit 2 ;;
esac
