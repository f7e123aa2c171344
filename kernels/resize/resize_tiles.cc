// The two filters of the resize of image files. This source is compiled once for each instruction set.
//
// Both filters add vectors of bytes, each multiplied by a weight. For `down`, the vectors are rows of the image. For
// `across`, they are the columns of 16 rows, which were transposed first. So every lane of a vector does useful work,
// and no sum crosses lanes.
//
// Operations. A photograph of 375 x 375 pixels that becomes 256 x 256 has three weights for each target pixel and axis:
// 0.9 million products along the rows and 0.6 million down the columns. The transposition takes a quarter of an
// operation for each byte.
//
// Traffic. 16 transposed rows take 18 kB. The intermediate image takes 0.3 MB and stays in the second-level cache.
#include "resize_tiles.h"

#include "../runtime/shuffle.h"

#ifndef LOWLEVEL_SIMCLR_ISA
#error "compile with -DLOWLEVEL_SIMCLR_ISA=avx512, avx2 or baseline; on arm64 with =neon"
#endif

namespace lowlevel_simclr {
namespace {

constexpr int kLanes = kResizeRows;
using Bytes = uint8_t __attribute__((vector_size(kLanes)));
constexpr int32_t kHalf = 1 << (kResizeBits - 1);
// The masks that interleave the lower and the upper halves of two vectors.
constexpr Bytes kLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
constexpr Bytes kHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

// Rounded weights can add up to a little more than 1.
inline uint8_t round_sum(int32_t sum) {
  const int32_t whole = sum >> kResizeBits;
  return static_cast<uint8_t>(whole > 255 ? 255 : whole);
}

inline Bytes load(const uint8_t* from) {
  Bytes bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

inline void store(uint8_t* to, Bytes bytes) { __builtin_memcpy(to, &bytes, sizeof bytes); }

// Computes kLanes sums at once. GCC 12 turns a loop over lanes into vector instructions only for AVX-512. For other
// instruction sets, the code interleaves the bytes with zeros to make them 32 bits wide.
#ifdef __AVX512F__
struct Sums {
  int32_t all[kLanes];

  Sums() {
    for (int lane = 0; lane < kLanes; ++lane) all[lane] = kHalf;
  }
  void add(Bytes bytes, int32_t weight) {
    for (int lane = 0; lane < kLanes; ++lane) all[lane] += bytes[lane] * weight;
  }
  Bytes round() const {
    Bytes made;
    for (int lane = 0; lane < kLanes; ++lane) made[lane] = round_sum(all[lane]);
    return made;
  }
};
#else
struct Sums {
  using Words = uint16_t __attribute__((vector_size(kLanes)));
  using Numbers = int32_t __attribute__((vector_size(kLanes)));
  Numbers parts[4] = {Numbers{} + kHalf, Numbers{} + kHalf, Numbers{} + kHalf, Numbers{} + kHalf};

  void add(Bytes bytes, int32_t weight) {
    const Words none = {};
    const Words first = (Words)LOWLEVEL_SHUFFLE(bytes, Bytes{}, kLow);
    const Words second = (Words)LOWLEVEL_SHUFFLE(bytes, Bytes{}, kHigh);
    const Words low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
    parts[0] += (Numbers)LOWLEVEL_SHUFFLE(first, none, low) * weight;
    parts[1] += (Numbers)LOWLEVEL_SHUFFLE(first, none, high) * weight;
    parts[2] += (Numbers)LOWLEVEL_SHUFFLE(second, none, low) * weight;
    parts[3] += (Numbers)LOWLEVEL_SHUFFLE(second, none, high) * weight;
  }
  Bytes round() const {
    const Numbers white = Numbers{} + 255;
    Words pairs[2];
    Numbers whole[4];
    for (int i = 0; i < 4; ++i) {
      whole[i] = parts[i] >> kResizeBits;
      whole[i] = whole[i] > white ? white : whole[i];
    }
    const Words even = {0, 2, 4, 6, 8, 10, 12, 14};
    for (int i = 0; i < 2; ++i)
      pairs[i] = LOWLEVEL_SHUFFLE((Words)whole[2 * i], (Words)whole[2 * i + 1], even);
    const Bytes half = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    return LOWLEVEL_SHUFFLE((Bytes)pairs[0], (Bytes)pairs[1], half);
  }
};
#endif

// Writes kLanes weighted sums. Each sum has `rows` bytes as its terms, which lie `stride` bytes apart.
inline void add_lanes(const uint8_t* first, int64_t stride, const int32_t* weights, int64_t rows,
                      uint8_t* to) {
  Sums sums;
  for (int64_t row = 0; row < rows; ++row) sums.add(load(first + row * stride), weights[row]);
  store(to, sums.round());
}

// Transposes 16 x 16 bytes. Each of the four rounds interleaves row i with row i + 8.
inline void transpose(Bytes (&rows)[kLanes]) {
  for (int turn = 0; turn < 4; ++turn) {
    Bytes next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = LOWLEVEL_SHUFFLE(rows[i], rows[i + kLanes / 2], kLow);
      next[2 * i + 1] = LOWLEVEL_SHUFFLE(rows[i], rows[i + kLanes / 2], kHigh);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

void turn_columns(const uint8_t* const* rows, int64_t count, uint8_t* columns) {
  for (int64_t at = 0; at < count; at += kLanes) {
    const int64_t some = count - at < kLanes ? count - at : kLanes;
    Bytes block[kLanes] = {};
    for (int i = 0; i < kLanes; ++i) {
      if (some == kLanes) {
        __builtin_memcpy(&block[i], rows[i] + at, kLanes);
      } else {
        for (int64_t byte = 0; byte < some; ++byte) block[i][byte] = rows[i][at + byte];
      }
    }
    transpose(block);
    __builtin_memcpy(columns + at * kLanes, block, sizeof block);
  }
}

void turn_rows(const uint8_t* columns, int64_t count, uint8_t* rows, int64_t stride) {
  for (int64_t at = 0; at < count; at += kLanes) {
    Bytes block[kLanes];
    __builtin_memcpy(block, columns + at * kLanes, sizeof block);
    transpose(block);
    for (int i = 0; i < kLanes; ++i) __builtin_memcpy(rows + i * stride + at, &block[i], kLanes);
  }
}

void across(const uint8_t* columns, int64_t channels, const ResizeWeights& filter, int64_t count,
            uint8_t* to) {
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* from = columns + filter.firsts[i] * channels * kLanes;
    const int32_t* weights = filter.weights + i * filter.stride;
    for (int64_t channel = 0; channel < channels; ++channel) {
      add_lanes(from + channel * kLanes, channels * kLanes, weights, filter.counts[i], to);
      to += kLanes;
    }
  }
}

void down(const uint8_t* first, int64_t stride, const int32_t* weights, int64_t rows, int64_t count,
          uint8_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) add_lanes(first + i, stride, weights, rows, to + i);
  for (; i < count; ++i) {
    int32_t sum = kHalf;
    for (int64_t row = 0; row < rows; ++row) sum += first[row * stride + i] * weights[row];
    to[i] = round_sum(sum);
  }
}

constexpr ResizeTiles kTiles = {turn_columns, across, turn_rows, down};

}  // namespace

#define LOWLEVEL_PASTE2(a, b) a##b
#define LOWLEVEL_PASTE(a, b) LOWLEVEL_PASTE2(a, b)

const ResizeTiles& LOWLEVEL_PASTE(resize_tiles_, LOWLEVEL_SIMCLR_ISA)() { return kTiles; }

}  // namespace lowlevel_simclr
