// The interface to the two filters of resize. They are compiled once for each instruction set.
#pragma once

#include <stdint.h>

namespace lowlevel_simclr {

constexpr int kResizeBits = 22;  // fraction bits of a weight
constexpr int kResizeRows = 16;  // rows that `across` filters at once

// The weights of one axis. Target pixel i is the weighted sum of `counts[i]` source pixels from `firsts[i]` on.
struct ResizeWeights {
  const int32_t* firsts;
  const int32_t* counts;
  const int32_t* weights;  // `stride` numbers for each target pixel
  int64_t stride;
};

struct ResizeTiles {
  // Writes kResizeRows rows of `count` bytes as `count` columns of kResizeRows bytes, rounded up to whole blocks of
  // kResizeRows columns.
  void (*turn_columns)(const uint8_t* const* rows, int64_t count, uint8_t* columns);
  // Filters columns of kResizeRows bytes (one byte for each row) along the rows. Writes `count` pixels of each row.
  void (*across)(const uint8_t* columns, int64_t channels, const ResizeWeights& filter, int64_t count,
                 uint8_t* to);
  // The inverse of turn_columns. `stride` is at least `count`, rounded up to a multiple of kResizeRows.
  void (*turn_rows)(const uint8_t* columns, int64_t count, uint8_t* rows, int64_t stride);
  // Adds `rows` rows of `count` bytes, each times its weight.
  void (*down)(const uint8_t* first, int64_t stride, const int32_t* weights, int64_t rows, int64_t count,
               uint8_t* to);
};

const ResizeTiles& resize_tiles_avx512();
const ResizeTiles& resize_tiles_avx2();
const ResizeTiles& resize_tiles_baseline();
const ResizeTiles& resize_tiles_neon();

}  // namespace lowlevel_simclr
