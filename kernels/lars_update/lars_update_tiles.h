// The interface to the two passes of lars_update over one piece. The passes are compiled once for each instruction set.
#pragma once

#include <stdint.h>

namespace lowlevel_simclr {

struct LarsSums {
  double weight, update;  // |w|^2 and |u|^2
};

constexpr int64_t kLarsAlignment = 64;  // bytes: the widest vector

// The type Gradient is float, or uint16_t for the bits of bfloat16.
template <typename Gradient>
struct LarsPasses {
  LarsSums (*sums)(const float* weight, const Gradient* gradient, int64_t count, float weight_decay);
  // `scale` is learning_rate r. `new_weight` may be `gradient` or `weight`. `new_velocity` may be `velocity`.
  using Move = void(const float* weight, const Gradient* gradient, const float* velocity, int64_t count,
                    float weight_decay, float momentum, float scale, float* new_weight, float* new_velocity);
  Move* move;
  // Does the same as `move`, but stores `new_velocity` past the caches. If the type of the gradient is not float, it
  // stores `new_weight` past the caches too. Arrays that are stored past the caches must be aligned to kLarsAlignment.
  Move* move_streamed;
};

struct LarsTiles {
  LarsPasses<float> of_float;
  LarsPasses<uint16_t> of_bfloat16;
};

const LarsTiles& lars_tiles_avx512();
const LarsTiles& lars_tiles_avx2();
const LarsTiles& lars_tiles_baseline();
const LarsTiles& lars_tiles_neon();

}  // namespace lowlevel_simclr
