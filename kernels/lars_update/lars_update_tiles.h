// The two passes of lars_update over one piece, compiled once for each instruction set.
#pragma once

#include <stdint.h>

namespace lowlevel_simclr {

struct LarsSums {
  double weight, update;  // |w|^2 and |u|^2
};

constexpr int64_t kLarsAlignment = 64;  // bytes: the widest vector

struct LarsTiles {
  LarsSums (*sums)(const float* weight, const float* gradient, int64_t count, float weight_decay);
  // scale is learning_rate r. `new_weight` may be `gradient` or `weight`, `new_velocity` may be `velocity`.
  using Move = void(const float* weight, const float* gradient, const float* velocity, int64_t count,
                    float weight_decay, float momentum, float scale, float* new_weight, float* new_velocity);
  Move* move;
  Move* move_streamed;  // the same; `new_velocity`, aligned to kLarsAlignment, is written past the caches
};

const LarsTiles& lars_tiles_avx512();
const LarsTiles& lars_tiles_avx2();
const LarsTiles& lars_tiles_baseline();

}  // namespace lowlevel_simclr
