// Draws the parameters of views on CUDA devices, with one thread for each row (the parameters of one view).
// draw_view_params_cuda.h has the contract, and draw_view_params.h says how each number is drawn.
//
// A row costs five or six Philox blocks and two exponentials in double, and writes 50 bytes. 16,384 rows take less time
// than the launch of a kernel. As on the host, no product is fused with an addition.
#include <cmath>
#include <cstring>

#include "../cuda/launch.cuh"
#include "draw_view_params.h"
#include "draw_view_params_cuda.h"
#include "draw_view_params_row.h"

namespace lowlevel_simclr {
namespace {

constexpr int kThreads = 128, kParams = 11;
static_assert(sizeof(DrawnViewParams) == kParams * sizeof(void*), "pointers only, in the order of `params`");

using DeviceRow = Row<uint32_t[2]>;

// ---- One row

__device__ void draw_box(const DeviceRow& row, const ViewRecipeNumbers& r, const Frame& frame, int32_t* box) {
  for (uint32_t attempt = 0; attempt < kAttempts; ++attempt) {
    const Words words = row.draw(attempt);
    double u[4];
    for (int k = 0; k < 4; ++k) u[k] = words.uniform(k);
    const double area = product(product(frame.height, frame.width), between(r.crop_area, u[0]));
    const double aspect = exp(between(r.log_aspect, u[1]));
    const double w = rint(sqrt(product(area, aspect))), h = rint(sqrt(area / aspect));
    if (!(1 <= w && w <= frame.width && 1 <= h && h <= frame.height)) continue;
    return write_box(box, product(u[2], frame.height - h + 1), product(u[3], frame.width - w + 1), h, w);
  }
  write_central_box(r, frame, box);
}

// Writes permutation `number` of 0..3, counted in lexicographic order.
__device__ void write_order(int number, int32_t* order) {
  int32_t left[4] = {0, 1, 2, 3};
  const int orders[4] = {6, 2, 1, 1};
  for (int k = 0; k < 4; ++k) {
    const int chosen = number / orders[k];
    number %= orders[k];
    order[k] = left[chosen];
    for (int i = chosen; i < 3; ++i) left[i] = left[i + 1];
  }
}

// ---- Kernel

__device__ bool fits_word(int64_t number) { return number >= 0 && number <= INT64_C(0xFFFFFFFF); }

__global__ void draw_rows(int64_t count, const int64_t* index, Frames frames, const int64_t* key,
                          const int64_t* epoch, const ViewRecipeNumbers* recipe, DrawnViewParams params) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (r >= 2 * count) return;
  const int64_t place = index[r % count];
  const DeviceRow row{{static_cast<uint32_t>(key[0]), static_cast<uint32_t>(key[1])},
                      static_cast<uint32_t>(*epoch),
                      static_cast<uint32_t>(place),
                      static_cast<uint32_t>(r >= count)};
  draw_colours(row, *recipe, r, params, write_order);
  int32_t* box = params.box + 4 * r;
  const bool sound = fits_word(place) && fits_word(*epoch) && is_frame(size_of(frames, r % count), *recipe);
  if (sound)
    draw_box(row, *recipe, frame_of(frames, r % count), box);
  else
    write_box(box, -1, -1, -1, -1);
}

}  // namespace
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;

// ---- Launcher

const char* lowlevel_simclr_draw_view_params_cuda(void* stream, int64_t count, const int64_t* index,
                                                  const int64_t* sizes, int64_t frames, const int64_t* key,
                                                  const int64_t* epoch, const double* recipe,
                                                  void* const* params) {
  if (count < 0 || count > INT32_MAX / 2) return "there must be fewer than 2^30 images.";
  if (count == 0) return nullptr;
  if (frames != 1 && frames != count) return "there must be one frame, or one for each image.";
  bool missing = index == nullptr || sizes == nullptr || key == nullptr || epoch == nullptr ||
                 recipe == nullptr || params == nullptr;
  for (int i = 0; !missing && i < kParams; ++i) missing = params[i] == nullptr;
  if (missing) return "an array of draw_view_params is null. Every array must be on the device.";
  DrawnViewParams to;
  std::memcpy(&to, params, sizeof to);
  Stream on(stream);
  on.launch(draw_rows, dim3(static_cast<unsigned>(divide_up(2 * count, kThreads))), kThreads, 0, count, index,
            Frames{sizes, frames}, key, epoch, reinterpret_cast<const ViewRecipeNumbers*>(recipe), to);
  return on.error();
}
