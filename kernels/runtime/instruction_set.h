// Which of the compiled instruction sets this processor runs.
//
// Kernels are compiled once for each set and chosen here at run time. LOWLEVEL_SIMCLR_ISA = avx512, avx2 or
// baseline asks for a lower set than the processor has (for tests); asking for one that it has not gives the
// best it has.
#pragma once

namespace lowlevel_simclr {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

InstructionSet instruction_set();
const char* instruction_set_name(InstructionSet set);

}  // namespace lowlevel_simclr
