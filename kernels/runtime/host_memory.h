// Host memory that lives as long as one call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "workspace.h"

namespace lowlevel_simclr {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using HostMemory = std::unique_ptr<void, Free>;

// Returns memory aligned to kHostAlignment, or null if the host has no memory left.
inline HostMemory host_memory(int64_t bytes) {
  return HostMemory(std::aligned_alloc(kHostAlignment, round_up(bytes, kHostAlignment)));
}

}  // namespace lowlevel_simclr
