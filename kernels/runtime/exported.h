// LOWLEVEL_SIMCLR_EXPORT: makes a function visible outside the library, to Python and to tests.
//
// Its name must begin with lowlevel_simclr_: the linker hides every other one (EXPORTS in setup.py).
#pragma once

#define LOWLEVEL_SIMCLR_EXPORT extern "C" __attribute__((visibility("default")))
