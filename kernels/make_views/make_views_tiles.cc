// The pixels of one view on the CPU. This source is compiled once for each instruction set (LOWLEVEL_SIMCLR_ISA).
//
// Layout. While a view is made it lies on its side: its axes are (x, channel, y), with y padded to whole vectors. The
// crop works in two directions, first along y, then along x. The first direction combines lines of the image and leaves
// their channels interleaved. It computes one vector of columns for each of as many lines of the view as a vector has
// lanes. Then it transposes the square block of these vectors in registers. So the second direction, too, is a sum of
// whole vectors and needs no gather. At the end, a transposed block of (x, channel) rows has the layout of the finished
// view.
//
// Memory. A view of 32 x 32 pixels takes 12 KiB, so everything stays in the first-level cache. A view of 224 x 224
// pixels takes 600 KiB, which fit in the second-level cache.
//
// Colour. All operations run on one strip of a few thousand numbers before the next strip follows. So one pass over a
// large view serves all operations up to the next contrast. A contrast first needs the mean of the whole view.
//
// Hue. The hue operation turns the colours about the circle of hues by one angle. It does not compute the hue of a
// pixel. Let (r, g, b) be the pure colour at this angle: one of the three is 1, one is 0, and `middle` is the third.
// Let (R, G, B) be the pixel, V and m its largest and smallest channel, and C = V - m. Red becomes V - t with
//
//     t = clip((1 - 2r) R + (1 - 2b) G + (1 - 2g) B + middle V - (1 - middle) m, 0, C)
//
// For green and blue, the roles of R, G and B rotate. The formula is linear in each sixth of the circle, and
// neighbouring sixths agree where they meet.
//
// Padding. The lanes after the last line hold a copy of the last line. They take part in the computation, but are
// neither summed nor stored.
#include "make_views_tiles.h"

#include "../runtime/vectors.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef LOWLEVEL_SIMCLR_ISA
#error "compile with -DLOWLEVEL_SIMCLR_ISA=avx512, avx2 or baseline; on arm64 with =neon"
#endif

namespace lowlevel_simclr {
namespace {

// ---- Constants

using V = Vector<float>;
constexpr int kLanes = Lanes<float>::kCount;
constexpr int64_t kStrip = 4096;  // floats of a strip; they fill half of a first-level cache of 32 KiB
constexpr int kMostSteps = 5;     // the four colour operations and the change to grey
constexpr float kGrey[3] = {0.2989f, 0.5870f, 0.1140f};
constexpr double kLog2E = 1.4426950408889634;
// A distance in units of sigma. At this distance and beyond, the weight exp(-k^2 / 2) is less than 2^-32, which is too
// small to matter.
constexpr float kFarthestTap = 6.7f;

enum Operation { kBrightness, kContrast, kSaturation, kHue, kGreyStep };

LOWLEVEL_INLINE V at_least(V x, V bound) { return x < bound ? bound : x; }  // returns NaN if x is NaN
LOWLEVEL_INLINE V at_most(V x, V bound) { return x > bound ? bound : x; }

// ---- Pixels of the image

// Converts bytes to floats. With the intrinsic, one instruction widens the bytes. Otherwise the compiler uses several.
LOWLEVEL_INLINE V widen_pixels(const uint8_t* from) {
#if defined(__AVX512F__)
  const __m512i words =  // the masked intrinsic, because the compiler warns about the plain one
      _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return __builtin_convertvector(reinterpret_cast<IndexVector<float>>(words), V);
#elif defined(__AVX2__)
  const __m256i words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return __builtin_convertvector(reinterpret_cast<IndexVector<float>>(words), V);
#else
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
  Bytes bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  const Lanes<float>::Words words =
      __builtin_convertvector(__builtin_convertvector(bytes, Halves), Lanes<float>::Words);
  return __builtin_convertvector(reinterpret_cast<IndexVector<float>>(words), V);
#endif
}

LOWLEVEL_INLINE V widen_pixels(const uint16_t* from) {
  return __builtin_convertvector(reinterpret_cast<IndexVector<float>>(load_halves(from)), V);
}

LOWLEVEL_INLINE V widen_pixels(const float* from) { return load(from); }

// Converts `count` pixels. `count` is less than the number of lanes. The remaining lanes become 0.
template <typename Pixel>
V widen_some_pixels(const Pixel* from, int64_t count) {
  Pixel some[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = from[i];
  return widen_pixels(some);
}

// ---- Crop

// Computes the first direction of the crop for kLanes lines of the view, from line `begin` on. The result holds the
// columns of the box, transposed. The function may read pixels of the image after the end of the box, but does not use
// them. It reads nothing after the end of the image. For this it needs `readable`, the number of pixels from the first
// pixel of the box's last line to the end of the image.
template <typename Pixel>
void combine_lines(const Pixel* box, int64_t stride, int64_t columns, int64_t readable, const Taps& down,
                   int64_t size, int64_t begin, float* lines) {
  for (int64_t column = 0; column < columns; column += kLanes) {
    const int64_t left = readable - column;
    V block[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const int64_t line = begin + i < size ? begin + i : size - 1;
      const float* weight = down.weight + line * down.count;
      const Pixel* from = box + down.first[line] * stride + column;
      V sum{};
      if (left >= kLanes && down.count == 2) {  // the common case of an enlarged box
        sum = weight[0] * widen_pixels(from) + weight[1] * widen_pixels(from + stride);
      } else if (left >= kLanes) {
        for (int64_t t = 0; t < down.count; ++t) sum += weight[t] * widen_pixels(from + t * stride);
      } else {
        for (int64_t t = 0; t < down.count; ++t)
          sum += weight[t] * widen_some_pixels(from + t * stride, left);
      }
      block[i] = sum;
    }
    transpose<float>(block);
    for (int i = 0; i < kLanes; ++i) store(lines + (column + i) * kLanes, block[i]);
  }
}

// Computes the second direction: the columns of the view from the columns of the box, for the lines in `lines`.
template <int kChannels>
void combine_columns(const float* lines, const Taps& across, int64_t size, bool flip, bool clip, float* to,
                     int64_t stride) {
  for (int64_t x = 0; x < size; ++x) {
    const int64_t from = flip ? size - 1 - x : x;
    const float *weight = across.weight + from * across.count,
                *column = lines + across.first[from] * kChannels * kLanes;
    V sum[kChannels] = {};
    for (int64_t t = 0; t < across.count; ++t) {
#pragma GCC unroll 4
      for (int c = 0; c < kChannels; ++c) sum[c] += weight[t] * load(column + (t * kChannels + c) * kLanes);
    }
#pragma GCC unroll 4
    for (int c = 0; c < kChannels; ++c) {
      const V pixel = clip ? at_most(at_least(sum[c], V{}), broadcast(1.0f)) : sum[c];
      store(to + (x * kChannels + c) * stride, pixel);
    }
  }
}

template <typename Pixel>
void crop(const ViewCall& call, const void* image, const View& view, bool clip, const ViewScratch& scratch) {
  const MakeViewsShape& shape = *call.shape;
  const int64_t channels = shape.channels, stride = shape.width * channels, size = shape.size;
  const Pixel* box = static_cast<const Pixel*>(image) + view.y * stride + view.x * channels;
  const int64_t readable = (shape.height - view.y - view.height + 1) * stride - view.x * channels;
  for (int64_t begin = 0; begin < size; begin += kLanes) {
    combine_lines(box, stride, view.width * channels, readable, scratch.down, size, begin, scratch.lines);
    float* to = scratch.pixels + begin;
    const auto combine = channels == 1   ? combine_columns<1>
                         : channels == 2 ? combine_columns<2>
                         : channels == 3 ? combine_columns<3>
                                         : combine_columns<4>;
    combine(scratch.lines, scratch.across, size, view.flip, clip, to, call.padded_size);
  }
}

// ---- Colour

// One operation on a strip. Brightness and contrast are affine: the value x of channel c becomes factor x + shift[c].
struct Step {
  Operation operation;
  float factor;                // hue: `middle`
  float shift[kMostChannels];  // affine: the shift; hue: 1 - 2 (r, b, g)
  bool clip;
};

struct Strip {
  float* pixels;    // (columns, channels, padded)
  int64_t columns;  // the number of x
  int64_t channels, padded;
};

LOWLEVEL_INLINE V clipped(V x, bool clip) { return clip ? at_most(at_least(x, V{}), broadcast(1.0f)) : x; }

template <bool kClip>
void affine(const Strip& strip, const Step& step) {
  for (int64_t row = 0; row < strip.columns * strip.channels; ++row) {
    float* pixels = strip.pixels + row * strip.padded;
    const V shift = broadcast(step.shift[row % strip.channels]);
    for (int64_t i = 0; i < strip.padded; i += kLanes) {
      store(pixels + i, clipped(step.factor * load(pixels + i) + shift, kClip));
    }
  }
}

// Calls f(red, green, blue) for every vector of pixels. f gets references and may change them.
template <typename Function>
LOWLEVEL_INLINE void each_pixel(const Strip& strip, Function f) {
  for (int64_t x = 0; x < strip.columns; ++x) {
    float* red = strip.pixels + 3 * x * strip.padded;
    float *green = red + strip.padded, *blue = green + strip.padded;
    for (int64_t i = 0; i < strip.padded; i += kLanes) {
      V r = load(red + i), g = load(green + i), b = load(blue + i);
      f(r, g, b);
      store(red + i, r);
      store(green + i, g);
      store(blue + i, b);
    }
  }
}

// If clip is set, the factor g is limited to V / C (make_views.h). This matters only if g > 1. For a grey pixel C is 0,
// so V / C is infinite or NaN, and the limit has no effect.
template <bool kClip, bool kBounded>
void saturation(const Strip& strip, const Step& step) {
  const V asked = broadcast(step.factor);
  each_pixel(strip, [asked](V& r, V& g, V& b) __attribute__((always_inline)) {
    const V value = larger(r, larger(g, b));
    V factor = asked;
    if (kBounded) {
      const V least = at_most(at_most(r, g), b), bound = value / (value - least);
      factor = bound < asked ? bound : asked;
    }
    r = clipped(value - factor * (value - r), kClip);
    g = clipped(value - factor * (value - g), kClip);
    b = clipped(value - factor * (value - b), kClip);
  });
}

void hue(const Strip& strip, const Step& step) {
  const V own = broadcast(step.shift[0]), after = broadcast(step.shift[1]), before = broadcast(step.shift[2]);
  const V of_value = broadcast(step.factor), of_least = broadcast(step.factor - 1);
  each_pixel(strip, [=](V& r, V& g, V& b) __attribute__((always_inline)) {
    const V value = larger(r, larger(g, b)), least = at_most(at_most(r, g), b), chroma = value - least;
    const V common = of_value * value + of_least * least;
    const V red = own * r + (after * g + (before * b + common));
    const V green = own * g + (after * b + (before * r + common));
    const V blue = own * b + (after * r + (before * g + common));
    r = value - at_most(at_least(red, V{}), chroma);
    g = value - at_most(at_least(green, V{}), chroma);
    b = value - at_most(at_least(blue, V{}), chroma);
  });
}

void grey(const Strip& strip, const Step&) {
  each_pixel(strip, [](V& r, V& g, V& b) __attribute__((always_inline)) {
    r = g = b = kGrey[0] * r + (kGrey[1] * g + kGrey[2] * b);
  });
}

void run_step(const Strip& strip, const Step& step) {
  switch (step.operation) {
    case kBrightness:
    case kContrast:
      return step.clip ? affine<true>(strip, step) : affine<false>(strip, step);
    case kSaturation:
      if (!step.clip) return saturation<false, false>(strip, step);
      return step.factor > 1 ? saturation<true, true>(strip, step) : saturation<true, false>(strip, step);
    case kHue:
      return hue(strip, step);
    case kGreyStep:
      return grey(strip, step);
  }
}

float share(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
float magnitude(float x) { return x < 0 ? -x : x; }

Step hue_step(float turns, bool clip) {
  const float sixths = 6 * (turns - __builtin_floorf(turns));
  const float r = share(magnitude(sixths - 3) - 1), g = share(2 - magnitude(sixths - 2)),
              b = share(2 - magnitude(sixths - 4));
  return {kHue, r + g + b - 1, {1 - 2 * r, 1 - 2 * b, 1 - 2 * g, 0}, clip};
}

bool is_neutral(const View& view, int32_t operation) {
  switch (operation) {
    case kBrightness:
      return view.brightness == 1 && view.brightness_shift == 0;
    case kContrast:
      return view.contrast == 1;
    case kSaturation:
      return view.saturation == 1;
    case kHue:
      return view.hue == 0;
    default:
      return true;
  }
}

Step step_of(const View& view, int32_t operation) {
  const float shift = view.brightness_shift;
  switch (operation) {
    case kBrightness:
      return {kBrightness, view.brightness, {shift, shift, shift, shift}, view.clip};
    case kContrast:
      return {kContrast, view.contrast, {}, view.clip};  // the shift follows later from the means
    case kSaturation:
      return {kSaturation, view.saturation > 0 ? view.saturation : 0.0f, {}, view.clip};
    default:
      return hue_step(view.hue, view.clip);
  }
}

int collect_steps(const View& view, Step* steps) {
  int count = 0;
  for (int32_t operation : view.order) {
    if (!is_neutral(view, operation)) steps[count++] = step_of(view, operation);
  }
  if (view.grey) steps[count++] = {kGreyStep, 0, {}, false};
  return count;
}

// Adds the pixels of the strip, without the padding, to the sums of the channels.
void add_sums(const Strip& strip, int64_t size, double* sums) {
  const IndexVector<float> last = lane_indices<float>(strip.padded - kLanes) < static_cast<int32_t>(size);
  for (int64_t c = 0; c < strip.channels; ++c) {
    V sum{};
    for (int64_t x = 0; x < strip.columns; ++x) {
      const float* pixels = strip.pixels + (x * strip.channels + c) * strip.padded;
      int64_t i = 0;
      for (; i < strip.padded - kLanes; i += kLanes) sum += load(pixels + i);
      sum += reinterpret_cast<V>(reinterpret_cast<IndexVector<float>>(load(pixels + i)) & last);
    }
    sums[c] += horizontal_sum<float>(sum);
  }
}

// Runs steps over the view, strip by strip. If `summed` is set, a contrast follows, so the function also sums each
// channel.
void run_steps(const ViewCall& call, const Step* begin, const Step* end, bool summed, float* pixels,
               double* sums) {
  const int64_t size = call.shape->size, column = call.shape->channels * call.padded_size;
  const int64_t columns = column < kStrip ? kStrip / column : 1;
  for (int64_t x = 0; x < size; x += columns) {
    const int64_t here = x + columns < size ? columns : size - x;
    const Strip strip{pixels + x * column, here, call.shape->channels, call.padded_size};
    for (const Step* step = begin; step != end; ++step) run_step(strip, *step);
    if (summed) add_sums(strip, size, sums);
  }
}

void colour(const ViewCall& call, Step* steps, int count, float* pixels) {
  const double area = static_cast<double>(call.shape->size) * static_cast<double>(call.shape->size);
  int begin = 0;
  for (int k = 0; k <= count; ++k) {
    const bool contrast = k < count && steps[k].operation == kContrast;
    if (k < count && !contrast) continue;
    double sums[kMostChannels] = {};
    if (k > begin || contrast) run_steps(call, steps + begin, steps + k, contrast, pixels, sums);
    if (!contrast) break;
    for (int c = 0; c < kMostChannels; ++c)
      steps[k].shift[c] = static_cast<float>((1.0 - steps[k].factor) * (sums[c] / area));
    begin = k;
  }
}

// ---- Blur

int64_t reflected(int64_t place, int64_t size) {
  if (place < 0) place = -place;
  return place < size ? place : 2 * (size - 1) - place;
}

// Writes the weights of the Gaussian at the distances 0 to `radius`. Returns the distance beyond which weights no
// longer matter.
int64_t gaussian(float sigma, int64_t radius, float* weight) {
  const float farthest = kFarthestTap * sigma;
  if (farthest < static_cast<float>(radius)) radius = static_cast<int64_t>(farthest) + 1;
  const double exponent = -kLog2E / (2.0 * sigma * sigma);
  double sum = 0;
  for (int64_t k = 0; k <= radius; ++k) {
    const double exact = exp2<double>(broadcast(exponent * static_cast<double>(k * k)))[0];
    weight[k] = static_cast<float>(exact);
    sum += k == 0 ? exact : 2 * exact;
  }
  for (int64_t k = 0; k <= radius; ++k) weight[k] = static_cast<float>(weight[k] / sum);
  return radius;
}

// Blurs along y, in place. A row is contiguous in memory. `line` holds a copy of it with mirrored ends.
void blur_rows(const ViewCall& call, const float* weight, int64_t radius, float* line, float* pixels) {
  const int64_t size = call.shape->size, padded = call.padded_size;
  for (int64_t row = 0; row < size * call.shape->channels; ++row) {
    float* own = pixels + row * padded;
    float* centre = line + radius;
    for (int64_t i = 0; i < padded; i += kLanes) store(centre + i, load(own + i));
    for (int64_t k = 1; k <= radius; ++k) centre[-k] = own[k];
    for (int64_t k = 0; k < radius; ++k) centre[size + k] = own[size - 2 - k];
    for (int64_t i = 0; i < padded; i += kLanes) {
      V sum = weight[0] * load(centre + i);
      for (int64_t k = 1; k <= radius; ++k) sum += weight[k] * (load(centre + i - k) + load(centre + i + k));
      store(own + i, sum);
    }
  }
}

// Blurs along x. A column with all its channels is contiguous in memory. The loop takes four vectors at a time and
// keeps their sums in registers.
void blur_columns(const ViewCall& call, const float* weight, int64_t radius, const float* from, float* to) {
  constexpr int kTogether = 4;
  const int64_t size = call.shape->size, column = call.shape->channels * call.padded_size;
  for (int64_t x = 0; x < size; ++x) {
    const float* own = from + x * column;
    int64_t i = 0;
    for (; i + kTogether * kLanes <= column; i += kTogether * kLanes) {
      V sum[kTogether];
      for (int v = 0; v < kTogether; ++v) sum[v] = weight[0] * load(own + i + v * kLanes);
      for (int64_t k = 1; k <= radius; ++k) {
        const float* left = from + reflected(x - k, size) * column + i;
        const float* right = from + reflected(x + k, size) * column + i;
        for (int v = 0; v < kTogether; ++v)
          sum[v] += weight[k] * (load(left + v * kLanes) + load(right + v * kLanes));
      }
      for (int v = 0; v < kTogether; ++v) store(to + x * column + i + v * kLanes, sum[v]);
    }
    for (; i < column; i += kLanes) {
      V sum = weight[0] * load(own + i);
      for (int64_t k = 1; k <= radius; ++k) {
        sum += weight[k] * (load(from + reflected(x - k, size) * column + i) +
                            load(from + reflected(x + k, size) * column + i));
      }
      store(to + x * column + i, sum);
    }
  }
}

// ---- Output

constexpr int64_t kFetched = 32768;  // the memory for a view of up to this many bytes is prefetched

// Prefetches the memory for the result. The processor can write to a cache line only after it has loaded this line. So
// the lines are loaded while the view is made.
LOWLEVEL_INLINE void fetch(const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(static_cast<const char*>(from) + i, 1);
}

// Stores one cache line past the caches. `to` and `line` must be aligned to a cache line.
LOWLEVEL_INLINE void stream_line(void* to, const void* line) {
  for (int part = 0; part < kCacheLine; part += kVectorBytes) {
    stream(reinterpret_cast<float*>(static_cast<char*>(to) + part),
           load(reinterpret_cast<const float*>(static_cast<const char*>(line) + part)));
  }
}

// Writes kLanes lines of the view, from line y on: turns them upright, interleaves the channels, scales and rounds.
template <bool kStreamed, typename Output>
void write_lines(const ViewCall& call, const float* pixels, int64_t y, Output* to) {
  constexpr int kTogether = kCacheLine / sizeof(Output), kBlocks = kTogether / kLanes;
  const int64_t size = call.shape->size, length = size * call.shape->channels, padded = call.padded_size;
  const int64_t lines = size - y < kLanes ? size - y : kLanes;
  for (int64_t begin = 0; begin < length; begin += kTogether) {
    V block[kBlocks][kLanes];
    for (int b = 0; b < kBlocks; ++b) {
      for (int i = 0; i < kLanes; ++i) block[b][i] = load(pixels + (begin + b * kLanes + i) * padded + y);
      transpose<float>(block[b]);
    }
    for (int64_t i = 0; i < lines; ++i) {
      alignas(kCacheLine) Output line[kTogether];
      for (int b = 0; b < kBlocks; ++b) {
        const int64_t column = begin + b * kLanes;
        narrow(line + b * kLanes, (block[b][i] - load(call.mean + column)) * load(call.inverse_std + column));
      }
      Output* const here = to + (y + i) * length + begin;
      if (kStreamed) {
        stream_line(here, line);
      } else if (length - begin >= kTogether) {
        __builtin_memcpy(here, line, sizeof line);
      } else {
        for (int64_t k = 0; k < length - begin; ++k) here[k] = line[k];
      }
    }
  }
}

template <typename Output>
void write_view(const ViewCall& call, const float* pixels, Output* to) {
  const int64_t size = call.shape->size,
                row_bytes = size * call.shape->channels * static_cast<int64_t>(sizeof(Output));
  const bool whole_lines = reinterpret_cast<uintptr_t>(to) % kCacheLine == 0 && row_bytes % kCacheLine == 0;
  if (call.streamed && whole_lines) {
    for (int64_t y = 0; y < size; y += kLanes) write_lines<true>(call, pixels, y, to);
    end_stream();
    return;
  }
  for (int64_t y = 0; y < size; y += kLanes) write_lines<false>(call, pixels, y, to);
}

// ---- One view

void make_view(const ViewCall& call, const void* image, const View& view, const ViewScratch& scratch,
               void* to) {
  Step steps[kMostSteps];
  const int count = collect_steps(view, steps);
  // An operation that changes nothing still clips. If the first operation was left out because it changes nothing, the
  // crop clips instead. The crop also clips if hue or saturation comes first. These two are defined for pixels in [0,
  // 1], and rounding in the crop may have left that range.
  const bool clip =
      view.clip && !(count > 0 && steps[0].operation == view.order[0] && steps[0].operation <= kContrast);
  const PixelType pixels = call.shape->pixels;
  const auto crop_typed = pixels == PixelType::kUint8    ? crop<uint8_t>
                          : pixels == PixelType::kUint16 ? crop<uint16_t>
                                                         : crop<float>;
  const int64_t size = call.shape->size, bytes = call.shape->type == DataType::kFloat32 ? 4 : 2;
  if (const int64_t all = size * size * call.shape->channels * bytes; !call.streamed && all <= kFetched)
    fetch(to, all);
  crop_typed(call, image, view, clip, scratch);
  colour(call, steps, count, scratch.pixels);
  float* made = scratch.pixels;
  if (view.blur_sigma > 0 && call.blur_radius > 0) {
    const int64_t radius = gaussian(view.blur_sigma, call.blur_radius, scratch.gaussian);
    blur_rows(call, scratch.gaussian, radius, scratch.line, scratch.pixels);
    blur_columns(call, scratch.gaussian, radius, scratch.pixels, scratch.blurred);
    made = scratch.blurred;
  }
  if (call.shape->type == DataType::kFloat32) return write_view(call, made, static_cast<float*>(to));
  if (call.shape->type == DataType::kBfloat16) return write_view(call, made, static_cast<Bfloat16*>(to));
  write_view(call, made, static_cast<Float16*>(to));
}

// ---- Table

constexpr MakeViewsTiles kTable = {kLanes, make_view};

}  // namespace

#define LOWLEVEL_PASTE2(a, b) a##b
#define LOWLEVEL_PASTE(a, b) LOWLEVEL_PASTE2(a, b)

const MakeViewsTiles& LOWLEVEL_PASTE(make_views_tiles_, LOWLEVEL_SIMCLR_ISA)() { return kTable; }

}  // namespace lowlevel_simclr
