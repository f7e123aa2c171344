// Makes two views (randomly changed versions) of every image (SimCLR, appendix A): the contract of every
// implementation.
//
// View number r is made from image number r mod N with row r of the parameters. These are the steps, in this order:
//
//     crop     takes the pixels of the box, and no others, and resizes them to S x S: bilinear with half-pixel
//              centres. In each direction, view pixel i = sum_j w_ij box pixel j, where w_ij is proportional to
//                  max(0, 1 - |(j + 1/2) - (i + 1/2) length/S| / max(length/S, 1)),   and sum_j w_ij = 1
//     flip     exchanges left and right
//     colour   runs the four operations that order[0..3] names: 0 brightness, 1 contrast, 2 saturation, 3 hue. Any
//              other number means no operation. If clip is set, each operation ends with a clip to [0, 1].
//                  brightness  x = brightness x + brightness_shift
//                  contrast    x = contrast (x - m) + m, where m is the mean of the channel over the current view
//                  saturation  V is the largest and V - C the smallest of the three channels, and t = V - x:
//                                  x = V - g t,  g = max(saturation, 0)
//                              If clip is set, g is reduced so that g C <= V. saturation 1 changes nothing.
//                  hue         turns the hue by the fraction `hue` of a circle and keeps V and C (HSV)
//     grey     writes 0.2989 R + 0.5870 G + 0.1140 B into all three channels
//     blur     if blur_sigma > 0: averages over neighbouring pixels, in both directions. The pixel at distance k has
//              the weight exp(-k^2 / 2 sigma^2), divided by the sum of all weights, with |k| <= taps / 2. taps is
//              S / 10 rounded up to an odd number. Beyond its edge, the view is mirrored at its outermost pixels.
//     scaling  (x - mean_c) inverse_std_c, rounded once to the type of the views
//
// A pixel v of a uint8 image counts as v/255, and one of a uint16 image as v/65535. All arithmetic is float or double.
// The weights of the crop are exact except for one rounding.
//
// Invalid parameters. A box must hold at least one pixel and lie inside the image. Grey, a saturation other than 1 and
// a hue other than 0 need 3 channels. `make_views` must be called with valid parameters only. On the host, call
// `make_views_fault` (make_views_fault.h) first. The kernel on a device gets its parameters unchecked. If those of a
// view are invalid, it makes every pixel of this view NaN and reads nothing outside the image.
//
// Ownership. The caller owns every array. `workspace` has make_views_workspace_bytes(...) bytes, aligned to 64. Its
// contents are undefined before and after the call. The workspace has room for a few views for each thread. The
// function allocates no other memory.
//
// Determinism. The results have the same bits for every number of threads and every ParallelFor. Each view is made by
// one thread. It depends only on its own image and parameters, not on its place in the batch. Results of different
// instruction sets differ by rounding.
//
// Requires N >= 0, 1 <= channels <= 4, and 1 <= height, width, S < 2^15.
#pragma once

#include <cstdint>

#include "../runtime/data_type.h"
#include "../runtime/parallel_for.h"

namespace lowlevel_simclr {

enum class PixelType { kUint8, kUint16, kFloat32 };

constexpr int kMostChannels = 4;

struct MakeViewsShape {
  int64_t count;  // N
  int64_t height, width, channels;
  int64_t size;      // S
  PixelType pixels;  // the type of the images
  DataType type;     // the type of the views: kFloat32, kBfloat16 or kFloat16
};

// The parameters of 2N views, one row for each. On a device, these are device pointers.
struct ViewParamArrays {
  const int32_t* box;             // (2N, 4): y, x, height, width
  const bool* flip;               // (2N,)
  const float* brightness;        // (2N,)
  const float* contrast;          // (2N,)
  const float* saturation;        // (2N,)
  const float* hue;               // (2N,), as a fraction of a full turn
  const float* brightness_shift;  // (2N,)
  const int32_t* order;           // (2N, 4)
  const bool* clip;               // (2N,)
  const bool* grey;               // (2N,)
  const float* blur_sigma;        // (2N,), in pixels of the view; 0 means no blur
};

int64_t make_views_workspace_bytes(const ParallelFor& parallel, const MakeViewsShape& shape);

void make_views(const ParallelFor& parallel, const MakeViewsShape& shape,
                const void* images,             // (N, height, width, channels) of `pixels`
                const ViewParamArrays& params,  //
                const float* mean,              // (channels,): 0 leaves pixels in [0, 1]
                const float* inverse_std,       // (channels,): 1 leaves pixels in [0, 1]
                void* workspace,                //
                void* views);                   // (2N, S, S, channels) of `type`

}  // namespace lowlevel_simclr
