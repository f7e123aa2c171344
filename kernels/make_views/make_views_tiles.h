// The interface between make_views_cpu.cc, which decides which thread makes which view, and make_views_tiles.cc, which
// computes the pixels. make_views_tiles.cc is compiled once for each instruction set, so this file has only plain
// structs and pointers to functions.
#pragma once

#include <stdint.h>

#include "make_views.h"

namespace lowlevel_simclr {

constexpr int kCacheLine = 64;               // bytes
constexpr int kRowPadding = kCacheLine / 2;  // how many numbers of the narrowest type a cache line holds

// The weights for one direction of the crop. A tap is a box pixel with its weight: view pixel i = sum_t weight[i *
// count + t] * box pixel (first[i] + t).
struct Taps {
  int64_t count;   // how many taps every view pixel has; all of them lie inside the box
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

// The scratch memory of one thread. While a view is made, it lies on its side: its layout is (S, C, padded size), with
// x outermost and y innermost. So both directions of the crop are plain vector arithmetic. At the end, transposing
// blocks interleaves the channels.
struct ViewScratch {
  Taps down, across;  // the weights of `down` include the division by the full scale of the pixels
  float* lines;     // (columns of the box, lanes): each lane is a line of the view after the first direction
  float* pixels;    // (S * C rounded up to kRowPadding, padded size)
  float* blurred;   // the same size
  float* line;      // (padded size + 2 radius,): a row with its mirrored ends
  float* gaussian;  // (radius + 1,)
};

struct ViewCall {
  const MakeViewsShape* shape;
  int64_t padded_size;       // S rounded up to lanes
  int64_t blur_radius;       // taps / 2
  bool streamed;             // whether to store past the caches, because the views are too large for them
  const float* mean;         // (S * C rounded up to kRowPadding,): the means, repeated
  const float* inverse_std;  // (S * C rounded up to kRowPadding,): the inverse_stds, repeated
};

struct MakeViewsTiles {
  int64_t lanes;
  // image: (height, width, channels). to: (S, S, channels) of the views' type.
  void (*make_view)(const ViewCall&, const void* image, const View&, const ViewScratch&, void* to);
};

const MakeViewsTiles& make_views_tiles_avx512();
const MakeViewsTiles& make_views_tiles_avx2();
const MakeViewsTiles& make_views_tiles_baseline();
const MakeViewsTiles& make_views_tiles_neon();

}  // namespace lowlevel_simclr
