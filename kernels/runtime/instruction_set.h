// The instruction set that the kernels use on this processor.
//
// Kernels are compiled once for each set, and one is chosen at run time. LOWLEVEL_SIMCLR_ISA = avx512, avx2 or
// baseline asks for a lower set than the processor has, for tests. If the processor lacks the set that was asked for,
// the best set that it has is used.
#pragma once

namespace lowlevel_simclr {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

InstructionSet instruction_set();
const char* instruction_set_name(InstructionSet set);

}  // namespace lowlevel_simclr
