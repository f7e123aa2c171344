// The instruction set that the kernels use on this processor.
//
// Kernels are compiled once for each instruction set, and one of them is chosen at run time. For tests, the environment
// variable LOWLEVEL_SIMCLR_ISA (avx512, avx2 or baseline) asks for a lower set than the processor has. If the processor
// lacks the set that was asked for, the kernels use the best set that it has.
#pragma once

namespace lowlevel_simclr {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

InstructionSet instruction_set();
const char* instruction_set_name(InstructionSet set);

}  // namespace lowlevel_simclr
