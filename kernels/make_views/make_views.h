// Two views of every image (SimCLR, appendix A): the contract of every implementation.
//
// Row r of the views is made from image r mod N, by row r of the parameters, in this order:
//
//     crop     the box, and no pixel outside it, resized to S x S: bilinear with half-pixel centres. In each
//              direction view pixel i = sum_j w_ij box pixel j,
//                  w_ij ~ max(0, 1 - |(j + 1/2) - (i + 1/2) length/S| / max(length/S, 1)),   sum_j w_ij = 1
//     flip     left-right
//     colour   the operations order[0..3]: 0 brightness, 1 contrast, 2 saturation, 3 hue. Any other number
//              changes nothing. If clip is set, each operation ends with a clip to [0, 1].
//                  brightness  x = brightness x + brightness_shift
//                  contrast    x = contrast (x - m) + m,  m the present mean of the channel over the view
//                  saturation  with V = max, C = V - min of the three channels, t = V - x:
//                                  x = V - g t,  g = max(saturation, 0), and g C <= V if clip is set;
//                              saturation 1 changes nothing
//                  hue         t turned by `hue` of a circle at constant V and C (HSV); 0 changes nothing
//     grey     0.2989 R + 0.5870 G + 0.1140 B in all three channels
//     blur     if blur_sigma > 0: weights exp(-k^2 / 2 sigma^2), normalised to sum 1, |k| <= taps / 2,
//              taps = S / 10 rounded up to an odd number, in both directions; mirrored about the outermost pixels
//     scaling  (x - mean_c) inverse_std_c, rounded once to the type of the views
//
// Pixels of uint8 and uint16 images count as v/255 and v/65535. All arithmetic is float or better. Weights of the
// crop are exact to one rounding.
//
// Faults. A box must hold a pixel and lie inside the image. Grey, a saturation other than 1 and a hue other than 0
// need 3 channels. Call `make_views` with valid parameters only; on the host, call `make_views_fault`
// (make_views_fault.h) first. A device cannot report a fault in time. It makes every pixel of a faulty view NaN, and
// reads nothing outside the image.
//
// Ownership. The caller owns every array. `workspace` has make_views_workspace_bytes(...) bytes, aligned to 64. Its
// contents mean nothing before and after. It holds a few views for each thread. Nothing else is allocated.
//
// Determinism. The bits are the same for every number of threads and every ParallelFor. One thread makes a view, and
// the view depends on its own image and parameters only, not on its place in the batch. Instruction sets differ from
// one another by rounding.
//
// Requires N >= 0, 1 <= channels <= 4, height, width, S >= 1, each below 2^15.
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

// 2N rows each. On a device, these are device pointers.
struct ViewParamArrays {
  const int32_t* box;             // (2N, 4): y, x, height, width
  const bool* flip;               // (2N,)
  const float* brightness;        // (2N,)
  const float* contrast;          // (2N,)
  const float* saturation;        // (2N,)
  const float* hue;               // (2N,), in turns
  const float* brightness_shift;  // (2N,)
  const int32_t* order;           // (2N, 4)
  const bool* clip;               // (2N,)
  const bool* grey;               // (2N,)
  const float* blur_sigma;        // (2N,), in pixels of the view; 0 is no blur
};

int64_t make_views_workspace_bytes(const ParallelFor& parallel, const MakeViewsShape& shape);

void make_views(const ParallelFor& parallel, const MakeViewsShape& shape,
                const void* images,             // (N, height, width, channels) of `pixels`
                const ViewParamArrays& params,  //
                const float* mean,              // (channels,): 0 for pixels in [0, 1]
                const float* inverse_std,       // (channels,): 1 for pixels in [0, 1]
                void* workspace,                //
                void* views);                   // (2N, S, S, channels) of `type`

}  // namespace lowlevel_simclr
