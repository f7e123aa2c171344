// The code that the host and CUDA devices share to draw one row of the parameters: the random words, the central box,
// and all fields except the box.
//
// No product may be fused with an addition, because the result would be rounded differently. On the host this needs no
// special code, because draw_view_params_cpu.cc is compiled for the baseline, which has no such instruction.
#pragma once

#include <cmath>
#include <cstdint>

#include "../runtime/host_device.h"
#include "draw_view_params.h"

namespace lowlevel_simclr {
namespace {

constexpr int kRounds = 10, kAttempts = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier2 = 0xCD9E8D57u;  // for counter words 0 and 2
constexpr uint32_t kStep0 = 0x9E3779B9u, kStep1 = 0xBB67AE85u;              // added to the key each round
constexpr uint32_t kSwitches = 16, kFactors = 17, kOrderAndBlur = 18;

struct Words {
  uint32_t word[4];

  LOWLEVEL_SIMCLR_HOST_DEVICE float uniform(int k) const {
    return static_cast<float>(word[k] >> 8) * 0x1p-24f;
  }
};

// Identifies a row by the key and the counter of its Philox blocks (draw_view_params.h), without the purpose. `Key` is
// the two words of the seed, or a reference to them.
template <typename Key>
struct Row {
  Key key;
  uint32_t epoch, index, view;

  LOWLEVEL_SIMCLR_HOST_DEVICE Words draw(uint32_t purpose) const {
    uint32_t x0 = epoch, x1 = index, x2 = view, x3 = purpose, k0 = key[0], k1 = key[1];
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * x0,
                     p2 = static_cast<uint64_t>(kMultiplier2) * x2;
      x0 = static_cast<uint32_t>(p2 >> 32) ^ x1 ^ k0;
      x1 = static_cast<uint32_t>(p2);
      x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
      x3 = static_cast<uint32_t>(p0);
      k0 += kStep0;
      k1 += kStep1;
    }
    return {{x0, x1, x2, x3}};
  }
};

LOWLEVEL_SIMCLR_HOST_DEVICE inline double between(const double (&bounds)[2], double u) {
#ifdef __CUDA_ARCH__
  return bounds[0] + __dmul_rn(bounds[1] - bounds[0], u);
#else
  return bounds[0] + (bounds[1] - bounds[0]) * u;
#endif
}

LOWLEVEL_SIMCLR_HOST_DEVICE inline float between(const double (&bounds)[2], float u) {
  const float low = static_cast<float>(bounds[0]), high = static_cast<float>(bounds[1]);
#ifdef __CUDA_ARCH__
  return low + __fmul_rn(high - low, u);
#else
  return low + (high - low) * u;
#endif
}

// Height and width of an image, in pixels.
struct Frame {
  double height, width;
};

LOWLEVEL_SIMCLR_HOST_DEVICE inline const int64_t* size_of(const Frames& frames, int64_t image) {
  return frames.sizes + (frames.count == 1 ? 0 : 2 * image);
}

LOWLEVEL_SIMCLR_HOST_DEVICE inline Frame frame_of(const Frames& frames, int64_t image) {
  const int64_t* size = size_of(frames, image);
  return {static_cast<double>(size[0]), static_cast<double>(size[1])};
}

LOWLEVEL_SIMCLR_HOST_DEVICE inline bool is_frame(const int64_t* size, const ViewRecipeNumbers& recipe) {
  return size[0] >= 1 && size[1] >= 1 && static_cast<double>(size[0]) <= recipe.height &&
         static_cast<double>(size[1]) <= recipe.width;
}

LOWLEVEL_SIMCLR_HOST_DEVICE inline void write_box(int32_t* box, double y, double x, double height,
                                                  double width) {
  box[0] = static_cast<int32_t>(y);
  box[1] = static_cast<int32_t>(x);
  box[2] = static_cast<int32_t>(height);
  box[3] = static_cast<int32_t>(width);
}

// Writes the largest box in the middle of the frame whose aspect is in the recipe's range.
LOWLEVEL_SIMCLR_HOST_DEVICE inline void write_central_box(const ViewRecipeNumbers& recipe, const Frame& frame,
                                                          int32_t* box) {
  const double aspect = frame.width / frame.height;
  double h = frame.height, w = frame.width;
  if (aspect < recipe.crop_aspect[0]) h = fmax(1.0, rint(w / recipe.crop_aspect[0]));
  if (aspect > recipe.crop_aspect[1]) w = fmax(1.0, rint(h * recipe.crop_aspect[1]));
  write_box(box, floor((frame.height - h) / 2), floor((frame.width - w) / 2), h, w);
}

// Writes the switches, the factors and the order of row r. The caller passes the function write_order(number, order),
// because the host and CUDA devices write an order with different loops.
template <typename Key, typename WriteOrder>
LOWLEVEL_SIMCLR_HOST_DEVICE void draw_colours(const Row<Key>& row, const ViewRecipeNumbers& recipe, int64_t r,
                                              const DrawnViewParams& to, const WriteOrder& write_order) {
  const Words switches = row.draw(kSwitches), factors = row.draw(kFactors), last = row.draw(kOrderAndBlur);
  const auto is_on = [&switches](int k, double probability) {
    return switches.uniform(k) < static_cast<float>(probability);
  };
  const bool jittered = is_on(1, recipe.jitter_probability);
  to.flip[r] = is_on(0, recipe.flip_probability);
  to.grey[r] = is_on(2, recipe.grey_probability);
  to.clip[r] = recipe.clip != 0;
  to.brightness[r] = jittered ? between(recipe.brightness, factors.uniform(0)) : 1;
  to.contrast[r] = jittered ? between(recipe.contrast, factors.uniform(1)) : 1;
  to.saturation[r] = jittered ? between(recipe.saturation, factors.uniform(2)) : 1;
  to.hue[r] = jittered ? between(recipe.hue, factors.uniform(3)) : 0;
  to.brightness_shift[r] = jittered ? between(recipe.brightness_shift, last.uniform(2)) : 0;
  to.blur_sigma[r] = is_on(3, recipe.blur_probability) ? between(recipe.blur_sigma, last.uniform(1)) : 0;
  write_order(static_cast<int>(last.word[0] * uint64_t{24} >> 32), to.order + 4 * r);
}

}  // namespace
}  // namespace lowlevel_simclr
