// LOWLEVEL_SIMCLR_EXPORT makes a function visible outside the library, to Python and to tests.
//
// The name of the function must begin with lowlevel_simclr_. The linker hides all other names (EXPORTS in setup.py).
#pragma once

#define LOWLEVEL_SIMCLR_EXPORT extern "C" __attribute__((visibility("default")))
