// LARS on the CPU: the two passes over memory. This source is compiled once for each instruction set.
//
// Passes (symbols: lars_update.h). The pass `sums` reads w and g and adds up w^2 and u^2 in double. The pass `move`
// reads w, g and v and writes w' and v'.
//
// Bytes and operations. For each element, the first pass reads 8 bytes. The second pass reads 12 bytes and writes 8.
// Together they take about 15 operations, so memory is the limit.
//
// Traffic. A variable of ResNet-50 has at most 9.4 MB. If w and g are still in the last-level cache for the second
// pass, only five passes over an array of this size reach memory: reading w, g and v, and writing w' and v'. v' lies in
// new memory. A normal store would first read that memory, which is a sixth pass. So `move_streamed` stores v' past the
// caches. If g is bfloat16, it stores w' past the caches too, because w' then also lies in new memory: the memory of g
// is too small for it.
#include "lars_update_tiles.h"

#include "../runtime/vectors.h"

#ifndef LOWLEVEL_SIMCLR_ISA
#error "compile with -DLOWLEVEL_SIMCLR_ISA=avx512, avx2 or baseline; on arm64 with =neon"
#endif

namespace lowlevel_simclr {
namespace {

using Floats = Vector<float>;
constexpr int64_t kLanes = Lanes<float>::kCount;

// Returns numbers of a gradient from index `at` on, as float: a whole vector, or one number.
LOWLEVEL_INLINE Floats some(const float* gradient, int64_t at) { return load(gradient + at); }
LOWLEVEL_INLINE Floats some(const uint16_t* gradient, int64_t at) {
  return widen(reinterpret_cast<const Bfloat16*>(gradient + at));
}
LOWLEVEL_INLINE float one(const float* gradient, int64_t at) { return gradient[at]; }
LOWLEVEL_INLINE float one(const uint16_t* gradient, int64_t at) {
  const uint32_t bits = static_cast<uint32_t>(gradient[at]) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// How many numbers ahead the first pass prefetches w and g. The processor's own prefetching stops at the end of each
// page of 4096 bytes. A prefetch after the end of an array does nothing and causes no fault.
constexpr int64_t kAhead = 512;

template <typename Gradient>
LarsSums sums(const float* weight, const Gradient* gradient, int64_t count, float weight_decay) {
  SquareSum<float> of_weight, of_update;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __builtin_prefetch(weight + i + kAhead);
    __builtin_prefetch(gradient + i + kAhead);
    const Floats w = load(weight + i);
    of_weight.add(w);
    of_update.add(some(gradient, i) + weight_decay * w);
  }
  LarsSums found = {of_weight.total(), of_update.total()};
  for (; i < count; ++i) {
    const double w = weight[i], u = one(gradient, i) + weight_decay * weight[i];
    found.weight += w * w;
    found.update += u * u;
  }
  return found;
}

template <bool kStreamed>
LOWLEVEL_INLINE void put(float* to, Floats v) {
  if (kStreamed) {
    stream(to, v);
  } else {
    store(to, v);
  }
}

template <typename Gradient, bool kStreamed>
void move(const float* weight, const Gradient* gradient, const float* velocity, int64_t count,
          float weight_decay, float momentum, float scale, float* new_weight, float* new_velocity) {
  constexpr bool kIntoGradient = sizeof(Gradient) == sizeof(float);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats w = load(weight + i);
    const Floats v = momentum * load(velocity + i) + scale * (some(gradient, i) + weight_decay * w);
    put<kStreamed>(new_velocity + i, v);
    put<kStreamed && !kIntoGradient>(new_weight + i, w - v);
  }
  for (; i < count; ++i) {
    const float w = weight[i], v = momentum * velocity[i] + scale * (one(gradient, i) + weight_decay * w);
    new_velocity[i] = v;
    new_weight[i] = w - v;
  }
  if (kStreamed) end_stream();
}

template <typename Gradient>
constexpr LarsPasses<Gradient> kPasses = {sums<Gradient>, move<Gradient, false>, move<Gradient, true>};
constexpr LarsTiles kTable = {kPasses<float>, kPasses<uint16_t>};

}  // namespace

#define LOWLEVEL_PASTE2(a, b) a##b
#define LOWLEVEL_PASTE(a, b) LOWLEVEL_PASTE2(a, b)

const LarsTiles& LOWLEVEL_PASTE(lars_tiles_, LOWLEVEL_SIMCLR_ISA)() { return kTable; }

}  // namespace lowlevel_simclr
