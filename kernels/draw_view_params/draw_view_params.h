// The parameters of every view, drawn statelessly (SimCLR, appendix A): the contract of every implementation.
//
// Row r < N is the first view of image index[r], row N + r is its second view. Every number is a function of
// (seed, epoch, index, view). Philox4x32-10 (Salmon et al. 2011), with the seed's low and high word as key and
// (epoch, index, view, purpose) as counter, gives four words. They have the same bits as the reference's.
// u = (word >> 8) 2^-24 is exact in float.
//
//     box     attempts 0..9, purpose = attempt, in the image's own frame of H x W pixels:
//                 area = H W (a0 + (a1 - a0) u0),   aspect = exp(l0 + (l1 - l0) u1)
//                 w = round(sqrt(area aspect)),   h = round(sqrt(area / aspect))
//                 y = floor(u2 (H - h + 1)),   x = floor(u3 (W - w + 1))
//             the first attempt with 1 <= w <= W and 1 <= h <= H, otherwise the largest box in the middle of the frame
//             whose aspect is allowed. All in double, so that every implementation rounds to the same integers. Only
//             another exp could differ, at a rounding tie.
//     16      u < p: flip, jitter, grey, blur
//     17      factors of brightness, contrast, saturation, hue: low + (high - low) u in float, neutral without jitter
//     18      order number (word0 24) >> 32 of the 24 in lexicographic order; sigma; brightness shift
//
// The frame is the upper left part of the image's array. The rest of the array is padding, which no box reaches. Images
// without padding share one frame, the whole array.
//
// Requires 0 <= epoch < 2^32, the same of every index, 1 <= H <= height of the array, 1 <= W <= width of the array, and
// arrays of less than 2^15 pixels a side.
#pragma once

#include <cstdint>
#include <string>

#include "../runtime/parallel_for.h"

namespace lowlevel_simclr {

// The recipe as Python sends it: all numbers in double, in this order.
struct ViewRecipeNumbers {
  double crop_area[2], log_aspect[2];
  double flip_probability, jitter_probability, grey_probability, blur_probability;
  double brightness[2], contrast[2], saturation[2], hue[2], brightness_shift[2], blur_sigma[2];
  double clip;            // 0 or 1
  double height, width;   // of the arrays of the images
  double crop_aspect[2];  // log_aspect is its logarithm
};
constexpr int64_t kRecipeNumbers = sizeof(ViewRecipeNumbers) / sizeof(double);
static_assert(kRecipeNumbers == 25, "doubles only");

// The frame of every image: its height and width in pixels.
struct Frames {
  const int64_t* sizes;  // (count, 2)
  int64_t count;         // N, or 1 if all images have the same frame
};

// 2N rows each: the arrays of ViewParamArrays (make_views.h), writable.
struct DrawnViewParams {
  int32_t* box;  // (2N, 4)
  bool* flip;
  float *brightness, *contrast, *saturation, *hue, *brightness_shift;
  int32_t* order;  // (2N, 4)
  bool *clip, *grey;
  float* blur_sigma;
};

void draw_view_params(const ParallelFor& parallel, int64_t count,
                      const int64_t* index,             // (N,)
                      const Frames& frames,             //
                      const uint32_t (&key)[2],         // low word, high word of the seed
                      uint32_t epoch,                   //
                      const ViewRecipeNumbers& recipe,  //
                      const DrawnViewParams& params);

// Returns the first row whose index does not fit a 32-bit word, or `count` if every index fits.
int64_t first_wrong_index(int64_t count, const int64_t* index);

// Returns the first frame that is empty or larger than the arrays of the images, or `frames.count`.
int64_t first_wrong_frame(const Frames& frames, const ViewRecipeNumbers& recipe);

// Returns the sentence that refuses this frame.
std::string explain_frame(int64_t place, const Frames& frames, const ViewRecipeNumbers& recipe);

}  // namespace lowlevel_simclr
