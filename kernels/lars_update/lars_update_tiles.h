// The two passes of lars_update over one piece, compiled once for each instruction set.
#pragma once

#include <stdint.h>

namespace lowlevel_simclr {

struct LarsSums {
  double weight, update;  // |w|^2 and |u|^2
};

struct LarsTiles {
  LarsSums (*sums)(const float* weight, const float* gradient, int64_t count, float weight_decay);
  // scale is learning_rate r. `new_weight` may be `gradient` or `weight`, `new_velocity` may be `velocity`.
  void (*move)(const float* weight, const float* gradient, const float* velocity, int64_t count,
               float weight_decay, float momentum, float scale, float* new_weight, float* new_velocity);
};

const LarsTiles& lars_tiles_avx512();
const LarsTiles& lars_tiles_avx2();
const LarsTiles& lars_tiles_baseline();

}  // namespace lowlevel_simclr
