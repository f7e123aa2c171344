// Parameters of views on the CPU. One row takes four to five Philox blocks of some 40 multiplications, and one or two
// exponentials: it draws attempts of a crop until one fits. A form in whole arrays draws all ten.
//
// Compiled for the baseline only. A fused multiply-add would round differently from the reference.
#include <algorithm>
#include <cmath>

#include "../runtime/rounding.h"
#include "draw_view_params.h"

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int kRounds = 10, kAttempts = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier2 = 0xCD9E8D57u;  // of counter words 0 and 2
constexpr uint32_t kStep0 = 0x9E3779B9u, kStep1 = 0xBB67AE85u;              // added to the key each round
constexpr uint32_t kSwitches = 16, kFactors = 17, kOrderAndBlur = 18;
constexpr int64_t kRowsOfOneTask = 256;

// ---- Philox

struct Words {
  uint32_t word[4];

  float uniform(int k) const { return static_cast<float>(word[k] >> 8) * 0x1p-24f; }
};

struct Row {
  const uint32_t (&key)[2];
  uint32_t epoch, index, view;

  Words draw(uint32_t purpose) const {
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

// ---- One row

double between(const double (&bounds)[2], double u) { return bounds[0] + (bounds[1] - bounds[0]) * u; }

float between(const double (&bounds)[2], float u) {
  const float low = static_cast<float>(bounds[0]), high = static_cast<float>(bounds[1]);
  return low + (high - low) * u;
}

void draw_box(const Row& row, const ViewRecipeNumbers& recipe, int32_t* box) {
  for (int k = 0; k < 4; ++k) box[k] = static_cast<int32_t>(recipe.central[k]);
  for (uint32_t attempt = 0; attempt < kAttempts; ++attempt) {
    const Words words = row.draw(attempt);
    double u[4];
    for (int k = 0; k < 4; ++k) u[k] = words.uniform(k);
    const double area = recipe.height * recipe.width * between(recipe.crop_area, u[0]);
    const double aspect = std::exp(between(recipe.log_aspect, u[1]));
    const double w = std::rint(std::sqrt(area * aspect)), h = std::rint(std::sqrt(area / aspect));
    if (!(1 <= w && w <= recipe.width && 1 <= h && h <= recipe.height)) continue;
    box[0] = static_cast<int32_t>(u[2] * (recipe.height - h + 1));
    box[1] = static_cast<int32_t>(u[3] * (recipe.width - w + 1));
    box[2] = static_cast<int32_t>(h);
    box[3] = static_cast<int32_t>(w);
    return;
  }
}

// Permutation `number` of 0..3 in lexicographic order.
void write_order(int number, int32_t* order) {
  int32_t left[4] = {0, 1, 2, 3};
  for (int k = 0, orders = 6; k < 4; orders /= std::max(1, 3 - k), ++k) {
    const int chosen = number / orders;
    number %= orders;
    order[k] = left[chosen];
    std::copy(left + chosen + 1, left + 4, left + chosen);
  }
}

void draw_row(const Row& row, const ViewRecipeNumbers& recipe, int64_t r, const DrawnViewParams& params) {
  draw_box(row, recipe, params.box + 4 * r);
  const Words switches = row.draw(kSwitches), factors = row.draw(kFactors), last = row.draw(kOrderAndBlur);
  const auto is_on = [&switches](int k, double probability) {
    return switches.uniform(k) < static_cast<float>(probability);
  };
  const bool jittered = is_on(1, recipe.jitter_probability);
  params.flip[r] = is_on(0, recipe.flip_probability);
  params.grey[r] = is_on(2, recipe.grey_probability);
  params.clip[r] = recipe.clip != 0;
  params.brightness[r] = jittered ? between(recipe.brightness, factors.uniform(0)) : 1;
  params.contrast[r] = jittered ? between(recipe.contrast, factors.uniform(1)) : 1;
  params.saturation[r] = jittered ? between(recipe.saturation, factors.uniform(2)) : 1;
  params.hue[r] = jittered ? between(recipe.hue, factors.uniform(3)) : 0;
  params.brightness_shift[r] = jittered ? between(recipe.brightness_shift, last.uniform(2)) : 0;
  params.blur_sigma[r] = is_on(3, recipe.blur_probability) ? between(recipe.blur_sigma, last.uniform(1)) : 0;
  write_order(static_cast<int>(last.word[0] * uint64_t{24} >> 32), params.order + 4 * r);
}

}  // namespace

// ---- Launcher

void draw_view_params(const ParallelFor& parallel, int64_t count, const int64_t* index,
                      const uint32_t (&key)[2], uint32_t epoch, const ViewRecipeNumbers& recipe,
                      const DrawnViewParams& params) {
  auto task = [&](int64_t number) {
    const int64_t end = std::min(2 * count, (number + 1) * kRowsOfOneTask);
    for (int64_t r = number * kRowsOfOneTask; r < end; ++r) {
      const Row row{key, epoch, static_cast<uint32_t>(index[r % count]), r >= count};
      draw_row(row, recipe, r, params);
    }
  };
  run_parallel(parallel, divide_up(2 * count, kRowsOfOneTask), task);
}

int64_t first_wrong_index(int64_t count, const int64_t* index) {
  const auto is_wrong = [](int64_t place) { return place < 0 || place > INT64_C(0xFFFFFFFF); };
  return std::find_if(index, index + count, is_wrong) - index;
}

}  // namespace lowlevel_simclr
