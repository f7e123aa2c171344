// Two views of every image (SimCLR, appendix A): the contract of every implementation.
//
// Row r of the views is made from image r mod N with row r of the parameters. These are the steps, in their order:
//
//     crop     takes the box, and no pixel outside it, and resizes it to S x S: bilinear with half-pixel centres. In
//              each direction view pixel i = sum_j w_ij box pixel j,
//                  w_ij ~ max(0, 1 - |(j + 1/2) - (i + 1/2) length/S| / max(length/S, 1)),   sum_j w_ij = 1
//     flip     exchanges left and right
//     colour   runs the operations order[0..3]: 0 brightness, 1 contrast, 2 saturation, 3 hue. Any other number
//              changes nothing. If clip is set, each operation ends with a clip to [0, 1].
//                  brightness  x = brightness x + brightness_shift
//                  contrast    x = contrast (x - m) + m, where m is the mean of the channel over the view at this step
//                  saturation  with V the largest and V - C the smallest of the three channels, and t = V - x:
//                                  x = V - g t,  g = max(saturation, 0), and g is reduced so that g C <= V if clip
//                              is set; saturation 1 changes nothing
//                  hue         turns t by `hue` of a circle and keeps V and C (HSV); 0 changes nothing
//     grey     writes 0.2989 R + 0.5870 G + 0.1140 B into all three channels
//     blur     if blur_sigma > 0: weights exp(-k^2 / 2 sigma^2) with |k| <= taps / 2, divided by their sum, in both
//              directions. taps = S / 10 rounded up to an odd number. The view is mirrored about its outermost pixels
//     scaling  (x - mean_c) inverse_std_c, rounded once to the type of the views
//
// Pixels of uint8 images count as v/255, and pixels of uint16 images as v/65535. All arithmetic is float or better. The
// weights of the crop are exact except for one rounding.
//
// Faults. A box must hold at least one pixel and lie inside the image. Grey, a saturation other than 1 and a hue other
// than 0 need 3 channels. `make_views` must be called with valid parameters only. On the host, call `make_views_fault`
// (make_views_fault.h) first. A device cannot report a fault in time. Instead it makes every pixel of a faulty view
// NaN, and reads nothing outside the image.
//
// Ownership. The caller owns every array. `workspace` has make_views_workspace_bytes(...) bytes, aligned to 64. Its
// contents are undefined before and after the call. It holds a few views for each thread. Nothing else is allocated.
//
// Determinism. The bits are the same for every number of threads and every ParallelFor. One thread makes a view. The
// view depends only on its own image and parameters, not on its place in the batch. Results of different instruction
// sets differ by rounding.
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
