// Views on CUDA: the recipe of a view, which is its box, its steps (colour operations) and its scaling. One warp reads
// the view's parameters and chooses the steps, once for the whole block.
#pragma once

#include <cmath>

#include "make_views_blur.cuh"
#include "make_views_colour.cuh"
#include "make_views_problem.cuh"

namespace lowlevel_simclr {
namespace make_views_cuda {

// The parameters of one view. They are read together, so that all loads have started before the first value is needed.
struct Given {
  int box[4], operation;  // the operation at the lane's place in the order
  bool flip, clip, grey;
  float brightness, contrast, saturation, hue, shift, sigma;
};

__device__ __forceinline__ Given read_params(const ViewParamArrays& p, int64_t row) {
  const int32_t *box = p.box + 4 * row, *order = p.order + 4 * row;
  return {{box[0], box[1], box[2], box[3]},
          order[threadIdx.x % 4],
          p.flip[row],
          p.clip[row],
          p.grey[row],
          p.brightness[row],
          p.contrast[row],
          p.saturation[row],
          p.hue[row],
          p.brightness_shift[row],
          p.blur_sigma[row]};
}

__device__ __forceinline__ bool is_neutral(const Given& g) {
  const int operation = g.operation;
  return operation == kBrightness   ? g.brightness == 1 && g.shift == 0
         : operation == kContrast   ? g.contrast == 1
         : operation == kSaturation ? g.saturation == 1
         : operation == kHue        ? g.hue == 0
                                    : true;
}

__device__ __forceinline__ Step hue_step(float hue) {
  const float sixths = 6 * (hue - floorf(hue));
  const float r = clamped(fabsf(sixths - 3) - 1, 0, 1), g = clamped(2 - fabsf(sixths - 2), 0, 1),
              b = clamped(2 - fabsf(sixths - 4), 0, 1);
  return {kHue, 2 - r - g - b, {2 * r - 1, 2 * b - 1, 2 * g - 1, 0}};
}

__device__ __forceinline__ Step step_of(const Given& g) {
  const int operation = g.operation;
  if (operation == kBrightness) return {kBrightness, g.brightness, {g.shift, g.shift, g.shift, g.shift}};
  if (operation == kContrast) return {kContrast, g.contrast, {}};
  if (operation == kSaturation) return {kSaturation, g.saturation > 0 ? g.saturation : 0.0f, {}};
  return hue_step(g.hue);
}

__device__ __forceinline__ bool is_faulty(const Problem& p, const Given& g) {
  const int y = g.box[0], x = g.box[1], height = g.box[2], width = g.box[3];
  const bool inside =
      y >= 0 && x >= 0 && height >= 1 && width >= 1 && y <= p.height - height && x <= p.width - width;
  const bool coloured = g.grey || g.saturation != 1 || g.hue != 0;
  return !inside || (coloured && p.channels != 3);
}

// Returns true if no pixel of the view can become NaN.
__device__ __forceinline__ bool is_tame(const Problem& p, const Given& g) {
  constexpr float kMost = 1e9f;
  return p.pixels != PixelType::kFloat32 && fabsf(g.brightness) < kMost && fabsf(g.shift) < kMost &&
         fabsf(g.contrast) < kMost && fabsf(g.saturation) < kMost && fabsf(g.hue) < kMost;
}

// Writes the recipe. One warp calls this function. Lane s handles place s in the order of the operations. Steps that
// change nothing are left out. Such a step would still clip, but this matters in only one case: the step comes first,
// and the pixels of the image may lie outside [0, 1]. In this case the recipe sets clip_first.
__device__ inline void write_recipe(const Problem& p, const Given& g, Recipe* v) {
  const int lane = threadIdx.x % kWarp, counts = is_neutral(g) ? 0 : 1;
  int before = 0, steps = 0;
  for (int s = 0; s < 4; ++s) {
    steps += __shfl_sync(kAllLanes, counts, s);
    if (s + 1 == lane) before = steps;
  }
  if (lane < 4 && counts != 0) v->step[before] = step_of(g);
  if (lane > 0) return;
  v->y = g.box[0], v->x = g.box[1], v->height = g.box[2], v->width = g.box[3];
  v->faulty = is_faulty(p, g), v->flip = g.flip, v->grey = g.grey;
  v->blurred = g.sigma > 0 && p.blur_radius > 0;
  v->steps = steps;
  const bool affine_first = counts != 0 && g.operation <= kContrast;
  v->clip = !g.clip ? kNone : is_tame(p, g) ? kFree : kNanStays;
  v->clip_first = g.clip && !affine_first && p.pixels == PixelType::kFloat32;
}

// Prepares the recipe and the weights of the blur. The first three warps of the block do the work.
__device__ __forceinline__ void prepare(const Problem& p, int64_t row, float* gaussian, Recipe* v) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (warp == 0) write_recipe(p, read_params(p.params, row), v);
  if (warp == 1 && lane < p.channels) {
    v->scale[lane] = p.inverse_std[lane];
    v->offset[lane] = -p.mean[lane] * p.inverse_std[lane];
  }
  if (warp == 2 && p.blur_radius > 0) {
    const float sigma = p.params.blur_sigma[row];
    if (sigma > 0) fill_gaussian(sigma, p.blur_radius, gaussian);
  }
}

}  // namespace make_views_cuda
}  // namespace lowlevel_simclr
