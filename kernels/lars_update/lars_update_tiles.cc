// LARS on the CPU: the passes over memory, one source, compiled once for each instruction set.
//
// What. `sums` reads w and g and adds up w^2 and u^2 in double; `move` reads w, g and v and writes w' and v'.
//
// Bytes and operations. 8 bytes read in the first pass, 12 read and 8 written in the second, for some 15 operations: the
// memory is the limit. A variable of ResNet-50 has at most 9.4 MB: where w and g still lie in the last cache for the
// second pass, five passes over the weights are all that reaches memory. v' lies in new memory, which would be read
// before it is written, a sixth pass, if it did not go past the caches.
#include "lars_update_tiles.h"

#include "../vectors.h"

#ifndef LOWLEVEL_SIMCLR_ISA
#error "compile with -DLOWLEVEL_SIMCLR_ISA=avx512, avx2 or baseline"
#endif

namespace lowlevel_simclr {
namespace {

using Floats = Vector<float>;
constexpr int64_t kLanes = Lanes<float>::kCount;

LarsSums sums(const float* weight, const float* gradient, int64_t count, float weight_decay) {
  SquareSum<float> of_weight, of_update;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats w = load(weight + i);
    of_weight.add(w);
    of_update.add(load(gradient + i) + weight_decay * w);
  }
  LarsSums found = {of_weight.total(), of_update.total()};
  for (; i < count; ++i) {
    const double w = weight[i], u = gradient[i] + weight_decay * weight[i];
    found.weight += w * w;
    found.update += u * u;
  }
  return found;
}

template <bool kStreamed>
void move(const float* weight, const float* gradient, const float* velocity, int64_t count,
          float weight_decay, float momentum, float scale, float* new_weight, float* new_velocity) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats w = load(weight + i);
    const Floats v = momentum * load(velocity + i) + scale * (load(gradient + i) + weight_decay * w);
    if (kStreamed) {
      stream(new_velocity + i, v);
    } else {
      store(new_velocity + i, v);
    }
    store(new_weight + i, w - v);
  }
  for (; i < count; ++i) {
    const float w = weight[i], v = momentum * velocity[i] + scale * (gradient[i] + weight_decay * w);
    new_velocity[i] = v;
    new_weight[i] = w - v;
  }
  if (kStreamed) end_stream();
}

constexpr LarsTiles kTable = {sums, move<false>, move<true>};

}  // namespace

#define LOWLEVEL_PASTE2(a, b) a##b
#define LOWLEVEL_PASTE(a, b) LOWLEVEL_PASTE2(a, b)

const LarsTiles& LOWLEVEL_PASTE(lars_tiles_, LOWLEVEL_SIMCLR_ISA)() { return kTable; }

}  // namespace lowlevel_simclr
