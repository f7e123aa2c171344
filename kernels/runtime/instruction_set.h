// The instruction set that the kernels use on this processor.
//
// Kernels are compiled once for each instruction set, and one of these versions is chosen at run time. For tests, the
// environment variable LOWLEVEL_SIMCLR_ISA (avx512, avx2 or baseline) asks for a set below the best one of the
// processor. If the processor does not have the set that was asked for, the kernels use the best one that it has. On
// arm64 there is only one set, neon, which every such processor has.
#pragma once

namespace lowlevel_simclr {

#if defined(__aarch64__)
enum class InstructionSet { kNeon };

// The body of a function that returns the tiles (functions that do the arithmetic) of the chosen instruction set. Here
// it calls, for example, lars_tiles_neon().
#define LOWLEVEL_SIMCLR_RETURN_TILES(name) return name##_neon()
#else
enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

// The body of a function that returns the tiles (functions that do the arithmetic) of the chosen instruction set. It
// calls, for example, lars_tiles_avx2().
#define LOWLEVEL_SIMCLR_RETURN_TILES(name) \
  switch (instruction_set()) {             \
    case InstructionSet::kAvx512:          \
      return name##_avx512();              \
    case InstructionSet::kAvx2:            \
      return name##_avx2();                \
    case InstructionSet::kBaseline:        \
      break;                               \
  }                                        \
  return name##_baseline()
#endif

InstructionSet instruction_set();
const char* instruction_set_name(InstructionSet set);

}  // namespace lowlevel_simclr
