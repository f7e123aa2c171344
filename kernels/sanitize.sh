#!/bin/sh
# Builds the kernels and their test driver with a sanitizer and runs it:
#     kernels/sanitize.sh address|undefined|thread|none [seconds] [seed] [instruction set]
# `none` is the property fuzzer at full speed. With clang++: CXX=clang++ kernels/sanitize.sh fuzzer [seconds]
set -eu
kind=$1 seconds=${2:-20} seed=${3:-0}
here=$(cd "$(dirname "$0")" && pwd)
cxx=${CXX:-g++}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
case $kind in
  none) flags="-O2" ;;
  undefined) flags="-O1 -g -fsanitize=undefined -fno-sanitize-recover=all" ;;
  fuzzer) flags="-O1 -g -fsanitize=fuzzer,address -DLOWLEVEL_SIMCLR_FUZZER" ;;
  address | thread) flags="-O1 -g -fsanitize=$kind" ;;
  *) echo "unknown sanitizer '$kind': use address, undefined, thread, none or fuzzer" >&2; exit 2 ;;
esac
common="-std=c++17 -ffp-contract=fast -fno-math-errno -Wall -Wextra -Wno-psabi -pthread"
tiles="$here/nt_xent/nt_xent_tiles.cc"
$cxx $common $flags -DLOWLEVEL_SIMCLR_ISA=avx2 -mavx2 -mfma -c "$tiles" -o "$out/avx2.o" &
$cxx $common $flags -DLOWLEVEL_SIMCLR_ISA=baseline -c "$tiles" -o "$out/baseline.o" &
$cxx $common $flags -DLOWLEVEL_SIMCLR_ISA=avx512 -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -c "$tiles" -o "$out/avx512.o" &
$cxx $common $flags -c "$here/nt_xent/nt_xent_cpu.cc" -o "$out/cpu.o"
$cxx $common $flags -c "$here/nt_xent/nt_xent_test_driver.cc" -o "$out/driver.o"
$cxx $common $flags -c "$here/thread_pool.cc" -o "$out/pool.o"
$cxx $common $flags -c "$here/instruction_set.cc" -o "$out/set.o"
wait
$cxx $flags -pthread "$out"/*.o -o "$out/driver"
export LOWLEVEL_SIMCLR_THREADS=${LOWLEVEL_SIMCLR_THREADS:-4}
[ $# -lt 4 ] || export LOWLEVEL_SIMCLR_ISA=$4
if [ "$kind" = fuzzer ]; then "$out/driver" -max_len=28 -max_total_time="$seconds"; else "$out/driver" "$seconds" "$seed"; fi
