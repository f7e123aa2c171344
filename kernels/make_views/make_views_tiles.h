// The interface between the schedule of the views (make_views_cpu.cc) and their pixels (make_views_tiles.cc, compiled
// once for each instruction set): plain structs and pointers to functions.
#pragma once

#include <stdint.h>

#include "make_views.h"

namespace lowlevel_simclr {

constexpr int kCacheLine = 64;               // bytes
constexpr int kRowPadding = kCacheLine / 2;  // numbers of the narrowest type in a line

// One direction of the crop: view pixel i = sum_t weight[i * taps + t] * box pixel (first[i] + t).
struct Taps {
  int64_t count;   // taps of every pixel; all of them lie inside the box
  int32_t* first;  // (S,)
  float* weight;   // (S, count)
};

// The parameters of one view.
struct View {
  int64_t y, x, height, width;  // the box
  bool flip, clip, grey;
  float brightness, brightness_shift, contrast, saturation, hue, blur_sigma;
  int32_t order[4];
};

// The memory of one thread. A view in the making is (S, C, padded size). It lies on its side, with x outermost and y
// innermost, so that both directions of the crop and the interleaving of the channels at the end are plain vector
// arithmetic and transposed blocks.
struct ViewScratch {
  Taps down, across;  // the weights of `down` include the division by the pixels' full scale
  float* lines;       // (columns of the box, lanes): some lines of the view before the second direction
  float* pixels;      // (S * C rounded up to kRowPadding, padded size)
  float* blurred;     // the same size
  float* line;        // (padded size + 2 radius,): a row with its mirrored ends
  float* gaussian;    // (radius + 1,)
};

struct ViewCall {
  const MakeViewsShape* shape;
  int64_t padded_size;       // S rounded up to lanes
  int64_t blur_radius;       // taps / 2
  bool streamed;             // whether to store past the caches, where the views would not stay anyway
  const float* mean;         // (S * C rounded up to kRowPadding,), repeating
  const float* inverse_std;  // (S * C rounded up to kRowPadding,), repeating
};

struct MakeViewsTiles {
  int64_t lanes;
  // image: (height, width, channels); to: (S, S, channels) of the views' type.
  void (*make_view)(const ViewCall&, const void* image, const View&, const ViewScratch&, void* to);
};

const MakeViewsTiles& make_views_tiles_avx512();
const MakeViewsTiles& make_views_tiles_avx2();
const MakeViewsTiles& make_views_tiles_baseline();

}  // namespace lowlevel_simclr
