// Makes views on CUDA devices. Contract: make_views_cuda.h. Formulas: make_views.h.
//
// Mapping. A block makes one view at a time. A warp makes tiles of the view with 32 columns and 8 lines. A lane makes
// the 8 pixels of one column of a tile, and keeps them in registers from the crop to the output. If two lines of the
// view need the same line of the image, the lane reads it once.
//
// A view of up to 32 x 32 pixels has one tile for each of 4 warps. Its pixels stay in registers all the time. The means
// of the channels, which the contrast needs, then cost only a sum over the block.
//
// The tiles of a larger view do not fit in registers together. For each contrast, the kernel crops the view once to get
// the means, and then crops it again. That is cheaper than to store and load the pixels.
//
// Only a blur needs the pixels of other threads. For a blur, the view lies in shared memory if it fits there. Otherwise
// it lies in a slot of the workspace. The number of blocks is fixed, and each block has one slot. So there are few
// slots, and as many as possible stay in the L2 cache.
//
// To write a tile, a warp first puts it into its own part of shared memory, and from there stores 16 bytes at a time.
// One warp reads the parameters of the view and chooses its steps, once for the whole view. So the loops over pixels do
// not branch on the parameters for each pixel.
//
// Speed. With 32 x 32 pixels and bfloat16, the kernel reads 3,072 bytes of the image for a view (for the second view
// from the L2 cache) and writes 6,144 bytes. The limit is not memory, but the rate at which the GPU issues
// instructions: 32,768 views take 0.26 ms on an H200. An earlier kernel took 2.30 ms (docs/gpu.md). It had blocks of
// 256 threads, kept every pixel in shared memory, used 64-bit indices and divisions, and for each pixel branched on
// every operation.
#include <cmath>
#include <cstring>

#include "make_views.h"
#include "make_views_blur.cuh"
#include "make_views_colour.cuh"
#include "make_views_crop.cuh"
#include "make_views_cuda.h"
#include "make_views_output.cuh"
#include "make_views_problem.cuh"
#include "make_views_recipe.cuh"

namespace lowlevel_simclr {
namespace make_views_cuda {
namespace {

#ifndef LOWLEVEL_SIMCLR_BLOCKS_WANTED
#define LOWLEVEL_SIMCLR_BLOCKS_WANTED 264  // two for each SM of an H100
#endif

// If the views lie in the workspace, the kernel has at most this many blocks.
constexpr int64_t kSlots = LOWLEVEL_SIMCLR_BLOCKS_WANTED;
// The most bytes of shared memory that a block may use. A block may have 99 KiB on sm_86 and sm_89, 163 KiB on sm_80
// and 227 KiB on sm_90, so 96 KiB fit on each of them. On sm_90, two such blocks run on one multiprocessor, which has
// 228 KiB. On sm_80, which has 164 KiB, only one does. (CUDA C++ Programming Guide, technical specifications.)
constexpr int64_t kSharedBytes = 96 * 1024;
constexpr int64_t kLargest = 32767;  // pixels on a side, so that (2 i + 1) length + 3 length < 2^31
constexpr int kParams = 11;
static_assert(sizeof(ViewParamArrays) == kParams * sizeof(void*), "pointers only, in the order of `params`");

// ---- One view

// Makes a view that has at most one tile for each warp. Its pixels stay in registers.
template <typename Output, int kChannels>
__device__ void make_held(const Problem& p, const Recipe& v, const Slot& slot, int64_t image, Shared* shared,
                          Output* stage, Output* view) {
  const int warp = threadIdx.x / kWarp;
  const Tile tile = tile_of<true>(warp, p.size);
  const bool used = tile.rows > 0;
  float x[kRows][kChannels] = {};
  if (used) crop(p, v, image, tile, x);
  clip_first(v, x);
  for (int s = 0; s < v.steps; ++s) {
    Step& step = shared->recipe.step[s];
    if (step.operation == kContrast) {
      float sums[kMostChannels] = {};
      if (used) add_tile(tile, x, sums);
      set_shift<kHeldWarps>(p, sums, shared, &step);
    }
    run_step(v, step, x);
  }
  if constexpr (kChannels == 3) {
    if (v.grey) make_grey(x);
  }
  if (v.blurred) {
    if (used) keep_tile(p, tile, x, slot.pixels);
    __syncthreads();
    if (used) blur_tile<true>(p, tile, slot.gaussian, slot.pixels, x);
    __syncthreads();
    if (used) keep_tile(p, tile, x, slot.pixels);
    __syncwarp();  // a tile of such a view holds whole lines
    if (used) blur_tile<false>(p, tile, slot.gaussian, slot.pixels, x);
  }
  if (used) write_tile<true>(p, v, tile, x, stage, view);
}

// Crops one tile and runs its colour steps up to step `end`.
template <int kChannels>
__device__ __forceinline__ void colour_tile(const Problem& p, const Recipe& v, int64_t image,
                                            const Tile& tile, int end, float (&x)[kRows][kChannels]) {
  crop(p, v, image, tile, x);
  clip_first(v, x);
  for (int s = 0; s < end; ++s) run_step(v, v.step[s], x);
  if constexpr (kChannels == 3) {
    if (end == v.steps && v.grey) make_grey(x);
  }
}

__device__ __forceinline__ int next_contrast(const Recipe& v, int from) {
  while (from < v.steps && v.step[from].operation != kContrast) ++from;
  return from;
}

// Makes a view that has more than one tile for each warp. For each contrast, it crops and colours all tiles once to get
// the means. For the output, it does so once more.
template <typename Output, int kChannels>
__device__ void make_large(const Problem& p, const Recipe& v, const Slot& slot, int64_t image, Shared* shared,
                           Output* stage, Output* view) {
  const int warp = threadIdx.x / kWarp, tiles = tiles_of(p.size);
  float x[kRows][kChannels];
  for (int end = -1; end < v.steps;) {
    end = next_contrast(v, end + 1);
    double sums[kMostChannels] = {};
    for (int t = warp; t < tiles; t += kLargeWarps) {
      const Tile tile = tile_of<false>(t, p.size);
      colour_tile(p, v, image, tile, end, x);
      if (end < v.steps) {
        add_tile(tile, x, sums);
      } else if (v.blurred) {
        keep_tile(p, tile, x, slot.pixels);
      } else {
        write_tile<false>(p, v, tile, x, stage, view);
      }
    }
    if (end < v.steps) set_shift<kLargeWarps>(p, sums, shared, &shared->recipe.step[end]);
  }
  if (!v.blurred) return;
  __syncthreads();
  for (int t = warp; t < tiles; t += kLargeWarps) {
    const Tile tile = tile_of<false>(t, p.size);
    blur_tile<true>(p, tile, slot.gaussian, slot.pixels, x);
    keep_tile(p, tile, x, slot.blurred);
  }
  __syncthreads();
  for (int t = warp; t < tiles; t += kLargeWarps) {
    const Tile tile = tile_of<false>(t, p.size);
    blur_tile<false>(p, tile, slot.gaussian, slot.blurred, x);
    write_tile<false>(p, v, tile, x, stage, view);
  }
}

template <typename Output, int kChannels>
__device__ void write_nan(const Problem& p, Output* view) {
  const uint32_t count = static_cast<uint32_t>(p.size) * p.size * p.channels;
  for (uint32_t at = threadIdx.x; at < count; at += blockDim.x) round_into(view + at, NAN);
}

template <typename Output, int kChannels, bool kHeld>
__global__ void __launch_bounds__(kWarp*(kHeld ? kHeldWarps : kLargeWarps), kHeld ? 8 : 2)
    make_views_kernel(Problem p) {
  Shared* shared = reinterpret_cast<Shared*>(shared_memory());
  const Recipe& v = shared->recipe;
  char* behind = shared_memory() + kSharedHead;
  Output* stage = reinterpret_cast<Output*>(behind + threadIdx.x / kWarp * stage_bytes<Output>(p.channels));
  behind += blockDim.x / kWarp * stage_bytes<Output>(p.channels);
  const Slot slot =
      cut_slot(p, kHeld || p.slots == nullptr ? behind : p.slots + blockIdx.x * p.slot_bytes, nullptr);
  const int64_t rows = 2 * static_cast<int64_t>(p.count);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    prepare(p, row, slot.gaussian, &shared->recipe);
    __syncthreads();
    const int64_t image = row < p.count ? row : row - p.count;
    Output* view = static_cast<Output*>(p.views) + static_cast<int64_t>(row) * p.size * p.size * p.channels;
    if (v.faulty) {
      write_nan<Output, kChannels>(p, view);
    } else if constexpr (kHeld) {
      make_held<Output, kChannels>(p, v, slot, image, shared, stage, view);
    } else {
      make_large<Output, kChannels>(p, v, slot, image, shared, stage, view);
    }
    if (!kHeld) __syncthreads();  // the next view overwrites the recipe of this one
  }
}

// ---- Launcher

Divisor divisor_of(int64_t number) {
  uint32_t bits = 1;
  while ((int64_t{1} << bits) < number) ++bits;
  return {static_cast<uint32_t>(divide_up(int64_t{1} << (31 + bits), number)), 31 + bits};
}

int warps_of(const Problem& p) { return p.size <= kHeldSize ? kHeldWarps : kLargeWarps; }

// Returns the size of the part of shared memory that comes before the slot.
int64_t head_bytes(const Problem& p) {
  const int64_t stage =
      p.type == DataType::kFloat32 ? stage_bytes<float>(p.channels) : stage_bytes<Float16Bits>(p.channels);
  return kSharedHead + warps_of(p) * stage;
}

Problem problem_of(const MakeViewsShape& shape) {
  Problem p{};
  p.count = static_cast<int>(shape.count);
  p.height = static_cast<int>(shape.height);
  p.width = static_cast<int>(shape.width);
  p.channels = static_cast<int>(shape.channels);
  p.size = static_cast<int>(shape.size);
  p.pixels = shape.pixels;
  p.type = shape.type;
  p.blur_radius = (p.size / 10 + 1 - p.size / 10 % 2) / 2;
  p.twice_size = divisor_of(2 * shape.size);
  cut_slot(p, nullptr, &p.slot_bytes);
  return p;
}

bool fits_shared(const Problem& p) { return head_bytes(p) + p.slot_bytes <= kSharedBytes; }

int64_t blocks_of(const Problem& p) {
  const int64_t rows = 2 * static_cast<int64_t>(p.count);
  return fits_shared(p) || rows < kSlots ? rows : kSlots;
}

template <typename Output>
void launch(Stream& on, const Problem& p) {
  const bool held = p.size <= kHeldSize;
  const auto kernel = p.channels == 3
                          ? held ? make_views_kernel<Output, 3, true> : make_views_kernel<Output, 3, false>
                      : held ? make_views_kernel<Output, kMostChannels, true>
                             : make_views_kernel<Output, kMostChannels, false>;
  const dim3 grid(static_cast<unsigned>(blocks_of(p)));
  const int64_t shared = head_bytes(p) + (p.slots == nullptr ? p.slot_bytes : 0);
  on.launch(kernel, grid, warps_of(p) * kWarp, shared, p);
}

const char* run(void* stream, const Problem& p) {
  Stream on(stream);
  if (p.type == DataType::kBfloat16) launch<Bfloat16Bits>(on, p);
  if (p.type == DataType::kFloat16) launch<Float16Bits>(on, p);
  if (p.type == DataType::kFloat32) launch<float>(on, p);
  return on.error();
}

const char* refusal(const MakeViewsShape& s, int pixels, int type) {
  if (pixels < 0 || pixels > 2) return "pixels must be 0 (uint8), 1 (uint16) or 2 (float32).";
  if (type != 0 && type != 2 && type != 3) return "type must be 0 (float32), 2 (bfloat16) or 3 (float16).";
  const bool sides = s.height >= 1 && s.width >= 1 && s.size >= 1 && s.height <= kLargest &&
                     s.width <= kLargest && s.size <= kLargest;
  if (!sides) return "images and views need sides of 1 to 32767 pixels.";
  if (s.channels < 1 || s.channels > kMostChannels) return "images need 1 to 4 channels.";
  if (s.count < 0 || s.count > INT32_MAX / 2) return "there must be fewer than 2^30 images.";
  return nullptr;
}

MakeViewsShape shape_of(int64_t count, int64_t height, int64_t width, int64_t channels, int64_t size,
                        int pixels, int type) {
  return {count, height, width, channels, size, static_cast<PixelType>(pixels), static_cast<DataType>(type)};
}

}  // namespace
}  // namespace make_views_cuda
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;
using namespace lowlevel_simclr::make_views_cuda;

int64_t lowlevel_simclr_make_views_cuda_workspace_bytes(int64_t count, int64_t height, int64_t width,
                                                        int64_t channels, int64_t size, int pixels,
                                                        int type) {
  const MakeViewsShape shape = shape_of(count, height, width, channels, size, pixels, type);
  if (refusal(shape, pixels, type) != nullptr) return -1;
  const Problem p = problem_of(shape);
  return fits_shared(p) ? 0 : blocks_of(p) * p.slot_bytes;
}

const char* lowlevel_simclr_make_views_cuda(void* stream, int64_t count, int64_t height, int64_t width,
                                            int64_t channels, int64_t size, int pixels, int type,
                                            const void* images, const void* const* params, const float* mean,
                                            const float* inverse_std, void* workspace, void* views) {
  const MakeViewsShape shape = shape_of(count, height, width, channels, size, pixels, type);
  if (const char* why = refusal(shape, pixels, type)) return why;
  if (count == 0) return nullptr;
  Problem p = problem_of(shape);
  bool missing =
      images == nullptr || params == nullptr || mean == nullptr || inverse_std == nullptr || views == nullptr;
  for (int i = 0; !missing && i < kParams; ++i) missing = params[i] == nullptr;
  if (missing || (workspace == nullptr && !fits_shared(p))) {
    return "an array of make_views is null. Every array must be on the device.";
  }
  std::memcpy(&p.params, params, sizeof p.params);
  p.images = images;
  p.mean = mean;
  p.inverse_std = inverse_std;
  p.slots = fits_shared(p) ? nullptr : static_cast<char*>(workspace);
  p.views = views;
  return run(stream, p);
}
