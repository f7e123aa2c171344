// Marks a function that the library shows to Python and to tests: its name must begin with lowlevel_simclr_.
#pragma once

#define LOWLEVEL_SIMCLR_EXPORT extern "C" __attribute__((visibility("default")))
