// The random parameters of every view (SimCLR, appendix A): the contract of every implementation. A view is a randomly
// changed version of an image. The parameters are drawn without a stored state.
//
// There are N images. Row r < N has the parameters of the first view of image index[r], and row N + r those of its
// second view. Every number depends only on (seed, epoch, index, view). The random generator is Philox4x32-10 (Salmon
// et al. 2011). Its key is the seed's low and high word, and its counter is (epoch, index, view, purpose). One call of
// the generator gives four random words, word0 to word3, with the same bits as in the NumPy reference. From each word
// follows a number in [0, 1), u = (word >> 8) 2^-24, which is exact in float. u0 to u3 are those of word0 to word3.
//
//     box     [a0, a1] and [l0, l1] are crop_area and log_aspect of the recipe (see below). There are up to ten
//             attempts, 0 to 9, with purpose = attempt. In the image's own frame of H x W pixels, an attempt draws:
//                 area = H W (a0 + (a1 - a0) u0),   aspect = exp(l0 + (l1 - l0) u1)
//                 w = round(sqrt(area aspect)),   h = round(sqrt(area / aspect))
//                 y = floor(u2 (H - h + 1)),   x = floor(u3 (W - w + 1))
//             The box is the first attempt with 1 <= w <= W and 1 <= h <= H. If all ten attempts fail, it is the
//             largest box in the middle of the frame whose aspect is allowed. All of this is computed in double, so
//             that every implementation rounds to the same integers. Only another exp function could give another
//             integer, if its result decides which way a number is rounded.
//     purpose 16   whether to flip, jitter (change colours), turn grey and blur: true if u < the probability
//     purpose 17   the factors of brightness, contrast, saturation and hue: low + (high - low) u in float. Without
//                  jitter they change nothing.
//     purpose 18   the order of the colour operations, which is number (word0 24) >> 32 of the 24 orders in
//                  lexicographic order; the sigma of the blur; the brightness shift
//
// The frame is the part of the image's array that holds the image, at the upper left. The rest of the array is padding,
// which no box reaches. Images without padding share one frame, the whole array.
//
// Requires 0 <= epoch < 2^32, 0 <= index < 2^32, 1 <= H <= height of the array, 1 <= W <= width of the array, and fewer
// than 2^15 pixels on each side of the arrays.
#pragma once

#include <cstdint>
#include <string>

#include "../runtime/parallel_for.h"

namespace lowlevel_simclr {

// The recipe (the settings of the views) as Python sends it: all numbers in double, in this order.
struct ViewRecipeNumbers {
  double crop_area[2], log_aspect[2];
  double flip_probability, jitter_probability, grey_probability, blur_probability;
  double brightness[2], contrast[2], saturation[2], hue[2], brightness_shift[2], blur_sigma[2];
  double clip;            // 0 or 1
  double height, width;   // the size of the images' arrays
  double crop_aspect[2];  // log_aspect is its logarithm
};
constexpr int64_t kRecipeNumbers = sizeof(ViewRecipeNumbers) / sizeof(double);
static_assert(kRecipeNumbers == 25, "doubles only");

// The frame of every image: its height and width in pixels.
struct Frames {
  const int64_t* sizes;  // (count, 2)
  int64_t count;         // N, or 1 if all images have the same frame
};

// The arrays of ViewParamArrays (make_views.h), but writable. Each has 2N rows.
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

// Returns the number of the first row whose index does not fit into a 32-bit word, or `count` if every index fits.
int64_t first_wrong_index(int64_t count, const int64_t* index);

// Returns the number of the first frame that is empty or larger than the images' arrays. If all are right, returns
// `frames.count`.
int64_t first_wrong_frame(const Frames& frames, const ViewRecipeNumbers& recipe);

// Returns the error message for this frame.
std::string explain_frame(int64_t place, const Frames& frames, const ViewRecipeNumbers& recipe);

}  // namespace lowlevel_simclr
