// Chooses the instruction set of the kernels. See instruction_set.h.
#include "instruction_set.h"

#include <cstdlib>
#include <cstring>

namespace lowlevel_simclr {
namespace {

#if defined(__aarch64__)
constexpr InstructionSet kAll[] = {InstructionSet::kNeon};

bool processor_has(InstructionSet) { return true; }
#else
constexpr InstructionSet kAll[] = {InstructionSet::kAvx512, InstructionSet::kAvx2, InstructionSet::kBaseline};

bool processor_has(InstructionSet set) {
  __builtin_cpu_init();
  switch (set) {
    case InstructionSet::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("fma");
    case InstructionSet::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::kBaseline:
      return true;
  }
  return false;
}
#endif

InstructionSet choose() {
  const char* asked = std::getenv("LOWLEVEL_SIMCLR_ISA");
  bool allowed = asked == nullptr;
  for (InstructionSet set : kAll) {
    allowed = allowed || std::strcmp(asked, instruction_set_name(set)) == 0;
    if (allowed && processor_has(set)) return set;
  }
  return kAll[sizeof kAll / sizeof *kAll - 1];
}

}  // namespace

InstructionSet instruction_set() {
  static const InstructionSet chosen = choose();
  return chosen;
}

const char* instruction_set_name(InstructionSet set) {
  switch (set) {
#if defined(__aarch64__)
    case InstructionSet::kNeon:
      return "neon";
#else
    case InstructionSet::kAvx512:
      return "avx512";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kBaseline:
      return "baseline";
#endif
  }
  return "unknown";
}

}  // namespace lowlevel_simclr
