// Parameters of views on the CPU. One row takes four to five Philox blocks of some 40 multiplications, and one or two
// exponentials: it draws attempts of a crop until one fits. A form in whole arrays draws all ten.
//
// Compiled for the baseline only. A fused multiply-add would round differently from the reference.
#include <algorithm>
#include <cmath>

#include "../runtime/rounding.h"
#include "draw_view_params.h"
#include "draw_view_params_row.h"

namespace lowlevel_simclr {
namespace {

constexpr int64_t kRowsOfOneTask = 256;

using HostRow = Row<const uint32_t (&)[2]>;

// ---- One row

void draw_box(const HostRow& row, const ViewRecipeNumbers& recipe, int32_t* box) {
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

void draw_row(const HostRow& row, const ViewRecipeNumbers& recipe, int64_t r, const DrawnViewParams& params) {
  draw_box(row, recipe, params.box + 4 * r);
  draw_colours(row, recipe, r, params, write_order);
}

}  // namespace

// ---- Launcher

void draw_view_params(const ParallelFor& parallel, int64_t count, const int64_t* index,
                      const uint32_t (&key)[2], uint32_t epoch, const ViewRecipeNumbers& recipe,
                      const DrawnViewParams& params) {
  auto task = [&](int64_t number) {
    const int64_t end = std::min(2 * count, (number + 1) * kRowsOfOneTask);
    for (int64_t r = number * kRowsOfOneTask; r < end; ++r) {
      const HostRow row{key, epoch, static_cast<uint32_t>(index[r % count]), r >= count};
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
