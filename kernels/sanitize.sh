#!/bin/sh
# Builds the kernels and their test drivers with a sanitizer and runs each driver:
#     kernels/sanitize.sh address|undefined|thread|none [seconds] [seed] [instruction set]
# `none` uses no sanitizer, so the random inputs (cases) run at full speed. With clang++, `fuzzer` chooses the inputs by
# code coverage:
#     CXX=clang++ kernels/sanitize.sh fuzzer [seconds]
# If CXX is a cross compiler, RUNNER must be the command of an emulator, see cross_arm64.sh.
# If DRIVER is set, it names the op whose driver is to run. Otherwise all drivers run.
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
  *) echo "The sanitizer '$kind' does not exist. Use address, undefined, thread, none or fuzzer." >&2; exit 2 ;;
esac
common="-std=c++17 -ffp-contract=fast -fno-math-errno -Wall -Wextra -Wno-psabi -pthread"
case $($cxx -dumpmachine) in
  aarch64-*) sets="neon" ;;
  *) sets="avx2 baseline avx512" ;;
esac
export LOWLEVEL_SIMCLR_THREADS=${LOWLEVEL_SIMCLR_THREADS:-4}
[ $# -lt 4 ] || export LOWLEVEL_SIMCLR_ISA=$4

compile() { $cxx $common $flags "$@"; }

flags_of_set() {
  case $1 in
    avx2) echo "-mavx2 -mfma" ;;
    avx512) echo "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma" ;;
  esac
}

# Builds and runs the test driver of the op in $1. All further arguments are other ops whose CPU code the driver needs.
drive() {
  op=$1
  mkdir -p "$out/$op"
  tiles="$here/$op/${op}_tiles.cc"
  for set in $sets; do
    compile -DLOWLEVEL_SIMCLR_ISA="$set" $(flags_of_set "$set") -c "$tiles" -o "$out/$op/$set.o" &
  done
  for part in "$here/$op/${op}_test_driver" "$here/runtime/thread_pool" "$here/runtime/instruction_set"; do
    compile -c "$part.cc" -o "$out/$op/$(basename "$part").o"
  done
  for part in "$@"; do compile -c "$here/$part/${part}_cpu.cc" -o "$out/$op/${part}_cpu.o"; done
  wait
  compile "$out/$op"/*.o -o "$out/$op/driver"
  echo "$op:"
  if [ "$kind" = fuzzer ]; then
    "$out/$op/driver" -max_len=28 -max_total_time="$seconds"
  else
    ${RUNNER:-} "$out/$op/driver" "$seconds" "$seed"
  fi
}

for op in ${DRIVER:-nt_xent lars_update make_views resize}; do
  case $op in
    make_views) drive make_views draw_view_params ;;
    *) drive "$op" ;;
  esac
done
