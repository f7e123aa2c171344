// Views on CUDA devices. Contract: make_views_cuda.h; pixels: make_views.h.
//
// Mapping. A block of 256 threads makes a view, a thread its pixels, every one of them the same thread's from the crop
// to the grey, so the colour operations pass through registers and only contrast's means and the blur need the others.
// The view lies in shared memory, (S, S, channels) as it is written: 25 KB for 32 pixels, and at 32 pixels a block reads
// 3 KB and writes 6 KB of bfloat16 once, 16 bytes a store. A view that does not fit (from about 90 pixels with a blur)
// lies in a slot of the workspace, one for each of a fixed number of blocks, in the L2 cache as far as it goes.
//
// Bytes at 32 pixels and bfloat16: image 3,072 (from the L2 cache the second time), view 6,144. Operations: about 150 a
// pixel with all four colour operations, so at N = 16384 some 5 G against 250 MB: memory and arithmetic are near balance
// on an H100 by its data sheet. Not measured.
//
// Weights of the crop are integers over their sum: w_ij ~ max(0, 2M - |(2j+1) S - (2i+1) length|), M = max(length, S).
#include <cfloat>
#include <cmath>
#include <cstring>

#include "../reduce.cuh"
#include "../tensor_core.cuh"
#include "make_views.h"
#include "make_views_cuda.h"

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int kThreads = 256;
constexpr int64_t kSharedBytes = 96 * 1024;  // at most; two blocks fit sm_80
constexpr int64_t kSlots = 256;              // blocks that work at once where views lie in the workspace
constexpr int64_t kLargest = 32767;          // pixels a side
constexpr int kParams = 11;
constexpr int64_t kReduceBytes = 256;  // scratch of reduce_block, in front of the slot
static_assert(kThreads / kWarp * sizeof(double) <= kReduceBytes);
static_assert(sizeof(ViewParamArrays) == kParams * sizeof(void*), "pointers only, in the order of `params`");

enum Operation { kBrightness, kContrast, kSaturation, kHue };

// ---- Problem

struct Problem {
  MakeViewsShape shape;
  ViewParamArrays params;
  const void* images;
  const float *mean, *inverse_std;
  char* slots;  // null: shared memory
  void* views;
  int64_t slot_bytes;
  int most_down, most_across;  // taps
  int blur_radius;
};

// One view's memory.
struct Slot {
  float *pixels, *blurred;         // (S, S, channels)
  float *down, *across;            // (S, taps) weights
  int *down_first, *across_first;  // (S,)
  float* gaussian;                 // (radius + 1,)
};

// Taps that have weight: the triangle is 2M / S wide.
__host__ __device__ constexpr int64_t most_taps(int64_t length, int64_t size) {
  return length <= size ? 2 : 2 * divide_up(length, size) + 1;
}

__host__ __device__ inline Slot cut_slot(const Problem& p, char* base, int64_t* bytes) {
  const int64_t size = p.shape.size, pixels = size * size * p.shape.channels;
  DeviceFloats floats(base);
  Slot slot;
  slot.pixels = floats.take(pixels);
  slot.blurred = floats.take(p.blur_radius > 0 ? pixels : 0);
  slot.down = floats.take(size * p.most_down);
  slot.across = floats.take(size * p.most_across);
  slot.down_first = reinterpret_cast<int*>(floats.take(size));
  slot.across_first = reinterpret_cast<int*>(floats.take(size));
  slot.gaussian = floats.take(p.blur_radius + 1);
  if (bytes != nullptr) *bytes = floats.used();
  return slot;
}

struct View {
  int y, x, height, width;
  bool flip, clip, grey;
  float brightness, contrast, saturation, hue, shift, sigma;
  int order[4];
};

__device__ View read_view(const ViewParamArrays& p, int64_t row) {
  const int32_t *box = p.box + 4 * row, *order = p.order + 4 * row;
  return {box[0],
          box[1],
          box[2],
          box[3],
          p.flip[row],
          p.clip[row],
          p.grey[row],
          p.brightness[row],
          p.contrast[row],
          p.saturation[row],
          p.hue[row],
          p.brightness_shift[row],
          p.blur_sigma[row],
          {order[0], order[1], order[2], order[3]}};
}

__device__ bool is_faulty(const MakeViewsShape& shape, const View& v) {
  const bool inside = v.y >= 0 && v.x >= 0 && v.height >= 1 && v.width >= 1 &&
                      v.y <= shape.height - v.height && v.x <= shape.width - v.width;
  const bool coloured = v.grey || v.saturation != 1 || v.hue != 0;
  return !inside || (coloured && shape.channels != 3);
}

// ---- Crop

// Row i of a direction's weights, `taps` numbers, and the first pixel that they belong to.
__device__ void weigh_row(int64_t i, int64_t length, int64_t size, int taps, float* weight, int* first) {
  const int64_t most = length > size ? length : size, centre = (2 * i + 1) * length;
  const int64_t low = centre - 2 * most - size;  // j counts where (2j+1) S > centre - 2M
  int64_t from = low < 0 ? 0 : low / (2 * size) + 1;
  if (from > length - 1) from = length - 1;
  int64_t sum = 0;
  for (int pass = 0; pass < 2; ++pass) {
    for (int t = 0; t < taps; ++t) {
      const int64_t j = from + t, distance = (2 * j + 1) * size - centre;
      const int64_t share = 2 * most - (distance < 0 ? -distance : distance);
      const int64_t counted = j < length && share > 0 ? share : 0;
      if (pass == 0) sum += counted;
      if (pass == 1) weight[t] = static_cast<float>(static_cast<double>(counted) / static_cast<double>(sum));
    }
  }
  *first = static_cast<int>(from);
}

__device__ void fill_weights(const Problem& p, const View& v, const Slot& slot) {
  const int64_t size = p.shape.size;
  for (int64_t i = threadIdx.x; i < 2 * size; i += kThreads) {
    const bool across = i >= size;
    const int64_t row = across ? i - size : i;
    if (across)
      weigh_row(row, v.width, size, p.most_across, slot.across + row * p.most_across,
                slot.across_first + row);
    if (!across)
      weigh_row(row, v.height, size, p.most_down, slot.down + row * p.most_down, slot.down_first + row);
  }
}

template <typename Pixel>
__device__ __forceinline__ float full_scale() {
  return sizeof(Pixel) == 1 ? 255.0f : sizeof(Pixel) == 2 ? 65535.0f : 1.0f;
}

// All channels of pixel (i, k) of the view before its flip. A weight of 0 may stand at a pixel behind the box: not read.
template <typename Pixel>
__device__ __forceinline__ void crop_pixel(const Problem& p, const View& v, const Slot& slot,
                                           const Pixel* image, int64_t i, int64_t k,
                                           float (&x)[kMostChannels]) {
  const int64_t channels = p.shape.channels;
  const float *down = slot.down + i * p.most_down, *across = slot.across + k * p.most_across;
  const int64_t top = slot.down_first[i], left = slot.across_first[k];
  for (int s = 0; s < p.most_down && top + s < v.height; ++s) {
    const Pixel* line = image + ((v.y + top + s) * p.shape.width + v.x + left) * channels;
    float sum[kMostChannels] = {};
    for (int t = 0; t < p.most_across && left + t < v.width; ++t) {
#pragma unroll
      for (int c = 0; c < kMostChannels; ++c) {
        if (c < channels) sum[c] += across[t] * static_cast<float>(line[t * channels + c]);
      }
    }
#pragma unroll
    for (int c = 0; c < kMostChannels; ++c) x[c] += down[s] * sum[c];
  }
#pragma unroll
  for (int c = 0; c < kMostChannels; ++c) x[c] /= full_scale<Pixel>();
}

// The type of the image decides here and nowhere else: one kernel for each type of the views.
__device__ __forceinline__ void crop_typed(const Problem& p, const View& v, const Slot& slot, int64_t image,
                                           int64_t i, int64_t k, float (&x)[kMostChannels]) {
  const int64_t start = image * p.shape.height * p.shape.width * p.shape.channels;
  if (p.shape.pixels == PixelType::kUint8) {
    crop_pixel(p, v, slot, static_cast<const uint8_t*>(p.images) + start, i, k, x);
  } else if (p.shape.pixels == PixelType::kUint16) {
    crop_pixel(p, v, slot, static_cast<const uint16_t*>(p.images) + start, i, k, x);
  } else {
    crop_pixel(p, v, slot, static_cast<const float*>(p.images) + start, i, k, x);
  }
}

// ---- Colour

__device__ __forceinline__ float clamped(float x, float low, float high) {  // NaN stays
  return x < low ? low : x > high ? high : x;
}

__device__ __forceinline__ float largest_of(const float (&x)[kMostChannels]) {
  return fmaxf(x[0], fmaxf(x[1], x[2]));
}
__device__ __forceinline__ float least_of(const float (&x)[kMostChannels]) {
  return fminf(x[0], fminf(x[1], x[2]));
}

__device__ __forceinline__ void saturate(const View& v, float (&x)[kMostChannels]) {
  const float value = largest_of(x), chroma = value - least_of(x);
  float factor = v.saturation > 0 ? v.saturation : 0.0f;
  if (v.clip && factor * chroma > value) factor = value / chroma;
  for (int c = 0; c < 3; ++c) x[c] = value - factor * (value - x[c]);
}

// The pure colour (r, g, b) of the turn's angle, and from it a turn without an angle: see make_views_tiles.cc.
struct Turn {
  float own, after, before, middle;
};

__device__ __forceinline__ Turn turn_of(float hue) {
  const float sixths = 6 * (hue - floorf(hue));
  const float r = clamped(fabsf(sixths - 3) - 1, 0, 1), g = clamped(2 - fabsf(sixths - 2), 0, 1),
              b = clamped(2 - fabsf(sixths - 4), 0, 1);
  return {1 - 2 * r, 1 - 2 * b, 1 - 2 * g, r + g + b - 1};
}

__device__ __forceinline__ void turn(const Turn& turn, float (&x)[kMostChannels]) {
  const float value = largest_of(x), least = least_of(x), chroma = value - least;
  const float common = turn.middle * value + (turn.middle - 1) * least, r = x[0], g = x[1], b = x[2];
  x[0] = value - clamped(turn.own * r + (turn.after * g + (turn.before * b + common)), 0, chroma);
  x[1] = value - clamped(turn.own * g + (turn.after * b + (turn.before * r + common)), 0, chroma);
  x[2] = value - clamped(turn.own * b + (turn.after * r + (turn.before * g + common)), 0, chroma);
}

// Operation `step` of the view's order; `mean` is of the channels at this point.
__device__ __forceinline__ void apply_step(const View& v, int step, const float (&mean)[kMostChannels],
                                           float (&x)[kMostChannels]) {
  const int operation = v.order[step];
  if (operation == kSaturation && v.saturation != 1) saturate(v, x);
  if (operation == kHue && v.hue != 0) turn(turn_of(v.hue), x);
#pragma unroll
  for (int c = 0; c < kMostChannels; ++c) {
    if (operation == kBrightness) x[c] = v.brightness * x[c] + v.shift;
    if (operation == kContrast && v.contrast != 1) x[c] = v.contrast * x[c] + (1 - v.contrast) * mean[c];
    if (v.clip) x[c] = clamped(x[c], 0, 1);
  }
}

__device__ __forceinline__ void make_grey(float (&x)[kMostChannels]) {
  x[0] = x[1] = x[2] = 0.2989f * x[0] + (0.5870f * x[1] + 0.1140f * x[2]);
}

// ---- One view

__device__ __forceinline__ int64_t pixel_count(const Problem& p) { return p.shape.size * p.shape.size; }

// From the crop (begin = 0) or from the slot, operations [begin, end) of the order into the slot; grey after the last.
// Adds the channels up into `sums`.
__device__ void run_steps(const Problem& p, const View& v, const Slot& slot, int64_t image, int begin,
                          int end, const float (&mean)[kMostChannels], double (&sums)[kMostChannels]) {
  const int64_t size = p.shape.size, channels = p.shape.channels;
  for (int64_t at = threadIdx.x; at < size * size; at += kThreads) {
    const int64_t i = at / size, k = at % size;
    float x[kMostChannels] = {};
    if (begin < 0) crop_typed(p, v, slot, image, i, v.flip ? size - 1 - k : k, x);
    for (int c = 0; begin >= 0 && c < channels; ++c) x[c] = slot.pixels[at * channels + c];
    for (int step = begin < 0 ? 0 : begin; step < end; ++step) apply_step(v, step, mean, x);
    if (end == 4 && v.grey) make_grey(x);
    for (int c = 0; c < channels; ++c) {
      slot.pixels[at * channels + c] = x[c];
      sums[c] += x[c];
    }
  }
}

// Crop and colours, cut before every contrast that needs a mean.
__device__ void colour(const Problem& p, const View& v, const Slot& slot, int64_t image, double* scratch) {
  float mean[kMostChannels] = {};
  int begin = -1;
  for (int step = 0; step <= 4; ++step) {
    const bool contrast = step < 4 && v.order[step] == kContrast && v.contrast != 1;
    if (step < 4 && !contrast) continue;
    double sums[kMostChannels] = {};
    run_steps(p, v, slot, image, begin, step, mean, sums);
    for (int c = 0; contrast && c < p.shape.channels; ++c) {
      mean[c] = static_cast<float>(reduce_block(sums[c], 0.0, scratch, Add()) /
                                   static_cast<double>(pixel_count(p)));
    }
    begin = step;
  }
}

__device__ __forceinline__ int64_t mirrored(int64_t place, int64_t size) {
  if (place < 0) place = -place;
  return place < size ? place : 2 * (size - 1) - place;
}

// Weights 0..radius of the Gaussian, by one thread for all: they are few.
__device__ void fill_gaussian(float sigma, int radius, float* weight) {
  if (threadIdx.x != 0) return;
  double sum = 0;
  for (int k = 0; k <= radius; ++k)
    sum += (k == 0 ? 1 : 2) * exp(-0.5 * k * k / (static_cast<double>(sigma) * sigma));
  for (int k = 0; k <= radius; ++k) {
    weight[k] = static_cast<float>(exp(-0.5 * k * k / (static_cast<double>(sigma) * sigma)) / sum);
  }
}

// Along y (step = S channels) or x (step = channels).
__device__ void blur_direction(const Problem& p, const float* weight, bool along_y, const float* from,
                               float* to) {
  const int64_t size = p.shape.size, channels = p.shape.channels;
  for (int64_t at = threadIdx.x; at < size * size * channels; at += kThreads) {
    const int64_t c = at % channels, x = at / channels % size, y = at / channels / size;
    float sum = weight[0] * from[at];
    for (int k = 1; k <= p.blur_radius; ++k) {
      const int64_t place = along_y ? y : x, before = mirrored(place - k, size),
                    after = mirrored(place + k, size);
      const int64_t left = along_y ? (before * size + x) * channels + c : (y * size + before) * channels + c;
      const int64_t right = along_y ? (after * size + x) * channels + c : (y * size + after) * channels + c;
      sum += weight[k] * (from[left] + from[right]);
    }
    to[at] = sum;
  }
}

__device__ void blur(const Problem& p, const View& v, const Slot& slot) {
  fill_gaussian(v.sigma, p.blur_radius, slot.gaussian);
  __syncthreads();
  blur_direction(p, slot.gaussian, true, slot.pixels, slot.blurred);
  __syncthreads();
  blur_direction(p, slot.gaussian, false, slot.blurred, slot.pixels);
}

// Scaled, rounded and stored, 16 bytes at a time where the view allows it. `pixels` null: NaN.
template <typename Output>
__device__ void write_view(const Problem& p, const float* pixels, Output* to) {
  constexpr int kTogether = 16 / sizeof(Output);
  const int64_t channels = p.shape.channels, count = pixel_count(p) * channels;
  const auto scaled = [&](int64_t at) {
    const int64_t c = at % channels;
    return pixels == nullptr ? NAN : (pixels[at] - p.mean[c]) * p.inverse_std[c];
  };
  const bool aligned = reinterpret_cast<uintptr_t>(to) % 16 == 0;
  const int64_t whole = aligned ? count / kTogether : 0;
  for (int64_t i = threadIdx.x; i < whole; i += kThreads) {
    Output some[kTogether];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) narrow(&some[j], scaled(i * kTogether + j));
    uint4 packed;
    memcpy(&packed, some, sizeof packed);
    reinterpret_cast<uint4*>(to)[i] = packed;
  }
  for (int64_t at = whole * kTogether + threadIdx.x; at < count; at += kThreads) narrow(to + at, scaled(at));
}

template <typename Output>
__global__ void __launch_bounds__(kThreads) make_views_kernel(Problem p) {
  char* own = p.slots == nullptr ? shared_memory() + kReduceBytes : p.slots + blockIdx.x * p.slot_bytes;
  const Slot slot = cut_slot(p, own, nullptr);
  const int64_t rows = 2 * p.shape.count;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const View v = read_view(p.params, row);
    Output* to = static_cast<Output*>(p.views) + row * pixel_count(p) * p.shape.channels;
    const bool faulty = is_faulty(p.shape, v);
    if (!faulty) {
      fill_weights(p, v, slot);
      __syncthreads();
      colour(p, v, slot, row % p.shape.count, reinterpret_cast<double*>(shared_memory()));
      __syncthreads();
      if (v.sigma > 0 && p.blur_radius > 0) blur(p, v, slot);
      __syncthreads();
    }
    write_view(p, faulty ? nullptr : slot.pixels, to);
    __syncthreads();  // the next view overwrites what this one is written from
  }
}

// ---- Launcher

Problem problem_of(const MakeViewsShape& shape) {
  Problem p{};
  p.shape = shape;
  p.most_down = static_cast<int>(most_taps(shape.height, shape.size));
  p.most_across = static_cast<int>(most_taps(shape.width, shape.size));
  p.blur_radius = static_cast<int>((shape.size / 10 + 1 - shape.size / 10 % 2) / 2);
  cut_slot(p, nullptr, &p.slot_bytes);
  return p;
}

bool fits_shared(const Problem& p) { return kReduceBytes + p.slot_bytes <= kSharedBytes; }

int64_t blocks_of(const Problem& p) {
  const int64_t rows = 2 * p.shape.count;
  return fits_shared(p) || rows < kSlots ? rows : kSlots;
}

const char* run(void* stream, const Problem& p) {
  Stream on(stream);
  const dim3 grid(static_cast<unsigned>(blocks_of(p)));
  const int64_t shared = kReduceBytes + (p.slots == nullptr ? p.slot_bytes : 0);
  const auto kernel = p.shape.type == DataType::kBfloat16  ? make_views_kernel<Bfloat16Bits>
                      : p.shape.type == DataType::kFloat16 ? make_views_kernel<Float16Bits>
                                                           : make_views_kernel<float>;
  on.launch(kernel, grid, kThreads, shared, p);
  return on.error();
}

const char* refusal(const MakeViewsShape& s, int pixels, int type) {
  if (pixels < 0 || pixels > 2) return "pixels is none of 0 uint8, 1 uint16, 2 float32.";
  if (type != 0 && type != 2 && type != 3) return "type is none of 0 float32, 2 bfloat16, 3 float16.";
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
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;

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
    return "an array of make_views is null: every one must lie on the device.";
  }
  std::memcpy(&p.params, params, sizeof p.params);
  p.images = images;
  p.mean = mean;
  p.inverse_std = inverse_std;
  p.slots = fits_shared(p) ? nullptr : static_cast<char*>(workspace);
  p.views = views;
  return run(stream, p);
}
