// Resize on the CPU: the weights of both axes, and the intermediate image. The filters are in resize_tiles.cc.
//
// This file is compiled only for the baseline instruction set. The other sets have a fused multiply-add, with which
// some weights would be rounded differently from Pillow's.
#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "../runtime/exported.h"
#include "../runtime/instruction_set.h"
#include "../runtime/rounding.h"
#include "resize.h"
#include "resize_tiles.h"

namespace lowlevel_simclr {
namespace {

const ResizeTiles& tiles() { LOWLEVEL_SIMCLR_RETURN_TILES(resize_tiles); }

struct Filter {
  std::vector<int32_t> firsts, counts, weights;
  int64_t stride;

  ResizeWeights view() const { return {firsts.data(), counts.data(), weights.data(), stride}; }
};

// Returns the filter that makes `count` pixels from the part of an axis between `start` and `end`. The axis has `size`
// pixels.
Filter make_filter(int64_t size, float start, float end, int64_t count) {
  const double scale = static_cast<double>(end - start) / count;
  const double width = std::max(scale, 1.0);
  Filter made;
  made.stride = static_cast<int64_t>(std::ceil(width)) * 2 + 1;
  made.firsts.resize(count);
  made.counts.resize(count);
  made.weights.resize(count * made.stride);
  std::vector<double> exact(made.stride);
  const double inverse = 1.0 / width;
  for (int64_t i = 0; i < count; ++i) {
    const double centre = start + (i + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - width + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(centre + width + 0.5), size);
    double total = 0;
    for (int64_t at = first; at < last; ++at) {
      const double distance = std::abs((at - centre + 0.5) * inverse);
      exact[at - first] = distance < 1.0 ? 1.0 - distance : 0.0;
      total += exact[at - first];
    }
    made.firsts[i] = static_cast<int32_t>(first);
    made.counts[i] = static_cast<int32_t>(std::max<int64_t>(last - first, 0));
    for (int64_t at = 0; at < made.counts[i]; ++at) {
      const double weight = total != 0 ? exact[at] / total : exact[at];
      made.weights[i * made.stride + at] = static_cast<int32_t>(0.5 + weight * (1 << kResizeBits));
    }
  }
  return made;
}

// The intermediate image, filtered along the rows only. Each row has `stride` bytes. The number of rows is a multiple
// of kResizeRows.
struct Rows {
  std::unique_ptr<uint8_t[]> bytes;
  int64_t stride;
};

// Filters the rows `first` to `last - 1` of the source in the direction of the rows.
Rows filter_across(const uint8_t* source, int64_t width, int64_t channels, int64_t first, int64_t last,
                   const Filter& filter, int64_t new_width) {
  const int64_t left = filter.firsts.front(), right = filter.firsts.back() + filter.counts.back();
  const int64_t wide = round_up(width * channels, kResizeRows),
                stride = round_up(new_width * channels, kResizeRows);
  Rows made = {std::unique_ptr<uint8_t[]>(new uint8_t[round_up(last - first, kResizeRows) * stride]), stride};
  const std::unique_ptr<uint8_t[]> columns(new uint8_t[(wide + kResizeRows) * kResizeRows]);
  const std::unique_ptr<uint8_t[]> filtered(new uint8_t[stride * kResizeRows]());
  for (int64_t y = first; y < last; y += kResizeRows) {
    const uint8_t* rows[kResizeRows];
    for (int64_t i = 0; i < kResizeRows; ++i) {
      rows[i] = source + (std::min(y + i, last - 1) * width + left) * channels;
    }
    tiles().turn_columns(rows, (right - left) * channels, columns.get() + left * channels * kResizeRows);
    tiles().across(columns.get(), channels, filter.view(), new_width, filtered.get());
    tiles().turn_rows(filtered.get(), new_width * channels, made.bytes.get() + (y - first) * stride, stride);
  }
  return made;
}

void run(const uint8_t* source, int64_t height, int64_t width, int64_t channels, ResizeBox box,
         uint8_t* target, int64_t new_height, int64_t new_width) {
  const Filter across = make_filter(width, box.left, box.right, new_width);
  const Filter down = make_filter(height, box.top, box.bottom, new_height);
  const int64_t first = down.firsts.front(), last = down.firsts.back() + down.counts.back();
  const Rows between = filter_across(source, width, channels, first, last, across, new_width);
  for (int64_t y = 0; y < new_height; ++y) {
    const uint8_t* rows = between.bytes.get() + (down.firsts[y] - first) * between.stride;
    const int32_t* weights = down.weights.data() + y * down.stride;
    const int64_t bytes = new_width * channels;
    tiles().down(rows, between.stride, weights, down.counts[y], bytes, target + y * bytes);
  }
}

}  // namespace

bool resize_pixels(const uint8_t* source, int64_t height, int64_t width, int64_t channels, ResizeBox box,
                   uint8_t* target, int64_t new_height, int64_t new_width) {
  try {
    run(source, height, width, channels, box, target, new_height, new_width);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace lowlevel_simclr

// The name ends with the version of these arguments. data/resize_pixels.py calls it.
LOWLEVEL_SIMCLR_EXPORT int lowlevel_simclr_resize_1(const uint8_t* source, int64_t height, int64_t width,
                                                    int64_t channels, float left, float top, float right,
                                                    float bottom, uint8_t* target, int64_t new_height,
                                                    int64_t new_width) {
  return lowlevel_simclr::resize_pixels(source, height, width, channels, {left, top, right, bottom}, target,
                                        new_height, new_width);
}
