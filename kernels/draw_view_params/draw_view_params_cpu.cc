// Draws the parameters of views on the CPU. A row (the parameters of one view) takes four to five blocks of the random
// generator Philox, with about 40 multiplications each, and one or two exponentials. Crops are drawn only until one
// fits. An implementation with whole arrays has to draw all ten.
//
// This file is compiled only for the baseline instruction set. The other sets have a fused multiply-add, which would
// round differently from the reference.
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

void draw_box(const HostRow& row, const ViewRecipeNumbers& recipe, const Frame& frame, int32_t* box) {
  for (uint32_t attempt = 0; attempt < kAttempts; ++attempt) {
    const Words words = row.draw(attempt);
    double u[4];
    for (int k = 0; k < 4; ++k) u[k] = words.uniform(k);
    const double area = frame.height * frame.width * between(recipe.crop_area, u[0]);
    const double aspect = std::exp(between(recipe.log_aspect, u[1]));
    const double w = std::rint(std::sqrt(area * aspect)), h = std::rint(std::sqrt(area / aspect));
    if (!(1 <= w && w <= frame.width && 1 <= h && h <= frame.height)) continue;
    return write_box(box, u[2] * (frame.height - h + 1), u[3] * (frame.width - w + 1), h, w);
  }
  write_central_box(recipe, frame, box);
}

// Writes permutation `number` of 0..3, counted in lexicographic order.
void write_order(int number, int32_t* order) {
  int32_t left[4] = {0, 1, 2, 3};
  for (int k = 0, orders = 6; k < 4; orders /= std::max(1, 3 - k), ++k) {
    const int chosen = number / orders;
    number %= orders;
    order[k] = left[chosen];
    std::copy(left + chosen + 1, left + 4, left + chosen);
  }
}

void draw_row(const HostRow& row, const ViewRecipeNumbers& recipe, const Frame& frame, int64_t r,
              const DrawnViewParams& params) {
  draw_box(row, recipe, frame, params.box + 4 * r);
  draw_colours(row, recipe, r, params, write_order);
}

}  // namespace

// ---- Launcher

void draw_view_params(const ParallelFor& parallel, int64_t count, const int64_t* index, const Frames& frames,
                      const uint32_t (&key)[2], uint32_t epoch, const ViewRecipeNumbers& recipe,
                      const DrawnViewParams& params) {
  auto task = [&](int64_t number) {
    const int64_t end = std::min(2 * count, (number + 1) * kRowsOfOneTask);
    for (int64_t r = number * kRowsOfOneTask; r < end; ++r) {
      const HostRow row{key, epoch, static_cast<uint32_t>(index[r % count]), r >= count};
      draw_row(row, recipe, frame_of(frames, r % count), r, params);
    }
  };
  run_parallel(parallel, divide_up(2 * count, kRowsOfOneTask), task);
}

int64_t first_wrong_index(int64_t count, const int64_t* index) {
  const auto is_wrong = [](int64_t place) { return place < 0 || place > INT64_C(0xFFFFFFFF); };
  return std::find_if(index, index + count, is_wrong) - index;
}

int64_t first_wrong_frame(const Frames& frames, const ViewRecipeNumbers& recipe) {
  int64_t place = 0;
  while (place < frames.count && is_frame(frames.sizes + 2 * place, recipe)) ++place;
  return place;
}

std::string explain_frame(int64_t place, const Frames& frames, const ViewRecipeNumbers& recipe) {
  const auto write = [](int64_t height, int64_t width) {
    return std::to_string(height) + " x " + std::to_string(width);
  };
  const int64_t* size = size_of(frames, place);
  return "sizes[" + std::to_string(place) + "] is " + write(size[0], size[1]) +
         " pixels. It must be at least 1 x 1 and at most " +
         write(static_cast<int64_t>(recipe.height), static_cast<int64_t>(recipe.width)) +
         ", the size of the images.";
}

}  // namespace lowlevel_simclr
