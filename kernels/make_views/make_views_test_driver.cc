// Runs the CPU kernels that make views outside TensorFlow, for sanitizers and fuzzing. This program is not part of the
// library.
//
// Shapes, types and settings are random. draw_view_params draws the parameters from wide ranges. Then half of the boxes
// get a random place and size, and for some views the clip is turned off. Every array lies in a block of memory of
// exactly its size, so that AddressSanitizer notices an access past its end.
//
// Every view is compared, bit for bit, with a second run on one thread. Views in float that use only the crop and the
// affine operations are also compared with a plain computation in double. Several threads call the kernels at the same
// time, for ThreadSanitizer.
//
//     make_views_test_driver [seconds] [seed]        exits with 0 if it found nothing wrong
//
// With -DLOWLEVEL_SIMCLR_FUZZER, this file becomes a libFuzzer target. The bytes of the fuzzer's input describe the
// case.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../draw_view_params/draw_view_params.h"
#include "../runtime/host_memory.h"
#include "../runtime/test_driver.h"
#include "../runtime/thread_pool.h"
#include "make_views.h"
#include "make_views_fault.h"

namespace {

using namespace lowlevel_simclr;

struct Case {
  MakeViewsShape shape;
  bool plain;  // only crop, flip, brightness and contrast, which the plain computation can check
  unsigned seed;
};

int64_t size_of(PixelType type) { return type == PixelType::kUint8 ? 1 : type == PixelType::kUint16 ? 2 : 4; }
int64_t size_of(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

template <typename T>
struct Block {
  std::unique_ptr<T[]> memory;
  explicit Block(int64_t count) : memory(new T[count]) {}
  T* get() const { return memory.get(); }
  T& operator[](int64_t k) const { return memory[k]; }
};

// ---- Inputs

struct Params {
  Block<int32_t> box, order;
  Block<bool> flip, clip, grey;
  Block<float> brightness, contrast, saturation, hue, shift, sigma;

  explicit Params(int64_t rows)
      : box(4 * rows),
        order(4 * rows),
        flip(rows),
        clip(rows),
        grey(rows),
        brightness(rows),
        contrast(rows),
        saturation(rows),
        hue(rows),
        shift(rows),
        sigma(rows) {}

  DrawnViewParams drawn() const {
    return {box.get(),   flip.get(),  brightness.get(), contrast.get(), saturation.get(), hue.get(),
            shift.get(), order.get(), clip.get(),       grey.get(),     sigma.get()};
  }
  ViewParamArrays arrays() const {
    return {box.get(),   flip.get(),  brightness.get(), contrast.get(), saturation.get(), hue.get(),
            shift.get(), order.get(), clip.get(),       grey.get(),     sigma.get()};
  }
};

ViewRecipeNumbers recipe_of(const Case& c) {
  const double height = c.shape.height, width = c.shape.width;
  const bool coloured = c.shape.channels == 3 && !c.plain;
  ViewRecipeNumbers recipe{{0.02, 1},
                           {-0.5, 0.5},
                           0.5,
                           0.8,
                           coloured ? 0.3 : 0.0,
                           c.plain ? 0.0 : 0.5,
                           {0.2, 1.8},
                           {0.2, 1.8},
                           {0, 3},
                           {-0.5, 0.5},
                           {-0.3, 0.3},
                           {0.1, 3},
                           1,
                           height,
                           width,
                           {std::exp(-0.5), std::exp(0.5)}};
  if (!coloured) {
    recipe.saturation[0] = recipe.saturation[1] = 1;
    recipe.hue[0] = recipe.hue[1] = 0;
  }
  return recipe;
}

// Gives half of the boxes a random place and size, and turns off the clip for some views.
void roughen(const Case& c, std::mt19937& random, const Params& params) {
  for (int64_t row = 0; row < 2 * c.shape.count; ++row) {
    params.clip[row] = random() % 5 != 0;
    if (random() % 2) continue;
    int32_t* box = params.box.get() + 4 * row;
    box[2] = static_cast<int32_t>(1 + random() % c.shape.height);
    box[3] = static_cast<int32_t>(1 + random() % c.shape.width);
    box[0] = static_cast<int32_t>(random() % 2 ? c.shape.height - box[2]
                                               : random() % (c.shape.height - box[2] + 1));
    box[1] =
        static_cast<int32_t>(random() % 2 ? c.shape.width - box[3] : random() % (c.shape.width - box[3] + 1));
  }
}

Block<char> images_of(const Case& c, std::mt19937& random) {
  const int64_t count = c.shape.count * c.shape.height * c.shape.width * c.shape.channels;
  Block<char> images(count * size_of(c.shape.pixels));
  for (int64_t k = 0; k < count; ++k) {
    const unsigned pixel = random() % 3 ? random() % 65536 : random() % 2 * 65535;
    const float number = static_cast<float>(pixel) / 65535.0f;
    const uint16_t word = static_cast<uint16_t>(pixel);
    const uint8_t byte = static_cast<uint8_t>(pixel >> 8);
    const void* from = c.shape.pixels == PixelType::kUint8    ? static_cast<const void*>(&byte)
                       : c.shape.pixels == PixelType::kUint16 ? static_cast<const void*>(&word)
                                                              : &number;
    std::memcpy(images.get() + k * size_of(c.shape.pixels), from, size_of(c.shape.pixels));
  }
  return images;
}

// ---- The plain computation

double pixel_of(const Case& c, const char* images, int64_t place) {
  if (c.shape.pixels == PixelType::kUint8) return static_cast<unsigned char>(images[place]) / 255.0;
  if (c.shape.pixels == PixelType::kUint16) {
    uint16_t word;
    std::memcpy(&word, images + 2 * place, 2);
    return word / 65535.0;
  }
  float number;
  std::memcpy(&number, images + 4 * place, 4);
  return number;
}

std::vector<double> weights(int64_t length, int64_t size, int64_t i) {
  const double scale = double(length) / double(size), centre = (i + 0.5) * scale;
  std::vector<double> weight(length);
  double sum = 0;
  for (int64_t j = 0; j < length; ++j)
    sum += weight[j] = std::max(0.0, 1 - std::fabs(j + 0.5 - centre) / std::max(scale, 1.0));
  for (double& w : weight) w /= sum;
  return weight;
}

void plain_operation(std::vector<double>& x, int operation, const Params& params, int64_t row,
                     int64_t channels) {
  for (int64_t channel = 0; channel < channels && operation < 2; ++channel) {
    double mean = 0;
    for (size_t k = channel; k < x.size(); k += channels) mean += x[k] / double(x.size() / channels);
    for (size_t k = channel; k < x.size(); k += channels) {
      x[k] = operation == 0 ? params.brightness[row] * x[k] + params.shift[row]
                            : params.contrast[row] * (x[k] - mean) + mean;
    }
  }
  for (double& pixel : x) pixel = params.clip[row] ? std::min(1.0, std::max(0.0, pixel)) : pixel;
}

std::vector<double> plain_view(const Case& c, const char* images, const Params& params, int64_t row) {
  const MakeViewsShape& s = c.shape;
  const int32_t* box = params.box.get() + 4 * row;
  std::vector<double> view(s.size * s.size * s.channels);
  for (int64_t i = 0; i < s.size; ++i) {
    const std::vector<double> down = weights(box[2], s.size, i);
    for (int64_t k = 0; k < s.size; ++k) {
      const std::vector<double> across = weights(box[3], s.size, params.flip[row] ? s.size - 1 - k : k);
      for (int64_t channel = 0; channel < s.channels; ++channel) {
        double sum = 0;
        for (int64_t a = 0; a < box[2]; ++a) {
          for (int64_t b = 0; b < box[3] && down[a] > 0; ++b) {
            if (across[b] == 0) continue;
            const int64_t line = row % s.count * s.height + box[0] + a;
            sum += down[a] * across[b] *
                   pixel_of(c, images, (line * s.width + box[1] + b) * s.channels + channel);
          }
        }
        view[(i * s.size + k) * s.channels + channel] = sum;
      }
    }
  }
  for (int slot = 0; slot < 4; ++slot)
    plain_operation(view, params.order[4 * row + slot], params, row, s.channels);
  return view;
}

// ---- One case

Block<char> compute(const ParallelFor& parallel, const Case& c, const void* images, const Params& params) {
  const MakeViewsShape& s = c.shape;
  const float mean[kMostChannels] = {}, inverse_std[kMostChannels] = {1, 1, 1, 1};
  Block<float> own_mean(s.channels), own_std(s.channels);
  std::copy(mean, mean + s.channels, own_mean.get());
  std::copy(inverse_std, inverse_std + s.channels, own_std.get());
  const int64_t bytes = make_views_workspace_bytes(parallel, s);
  Block<char> views(2 * s.count * s.size * s.size * s.channels * size_of(s.type));
  const HostMemory workspace = host_memory(bytes);
  std::memset(workspace.get(), 0xff, bytes);  // NaN, because nothing may rely on the contents
  make_views(parallel, s, images, params.arrays(), own_mean.get(), own_std.get(), workspace.get(),
             views.get());
  return views;
}

ParallelFor one_thread() {
  const auto run = [](void*, int64_t count, ParallelBody body, void* argument) {
    for (int64_t i = count - 1; i >= 0; --i) body(argument, i);  // the order of the calls must not matter
  };
  return {nullptr, 1, run};
}

bool is_close(const Case& c, const char* images, const Params& params, const float* views) {
  const int64_t pixels = c.shape.size * c.shape.size * c.shape.channels;
  for (int64_t row = 0; row < 2 * c.shape.count; ++row) {
    const std::vector<double> truth = plain_view(c, images, params, row);
    for (int64_t k = 0; k < pixels; ++k)  // ten roundings, which are amplified at most 1.8 * 2.6 times
      if (!(std::fabs(views[row * pixels + k] - truth[k]) <= 100 * 0x1p-23)) return false;
  }
  return true;
}

// Returns whether every box lies in the frame of its image.
bool fits(const Frames& frames, int64_t count, const int32_t* boxes) {
  for (int64_t row = 0; row < 2 * count; ++row) {
    const int64_t* size = frames.sizes + (frames.count == 1 ? 0 : 2 * (row % count));
    const int32_t* box = boxes + 4 * row;
    for (int axis = 0; axis < 2; ++axis)
      if (box[axis] < 0 || box[axis + 2] < 1 || box[axis] + box[axis + 2] > size[axis]) return false;
  }
  return true;
}

bool passes(const Case& c) {
  std::mt19937 random(c.seed);
  const MakeViewsShape& s = c.shape;
  const Params params(2 * s.count), again(2 * s.count);
  Block<int64_t> index(s.count);
  for (int64_t k = 0; k < s.count; ++k) index[k] = random();
  const uint32_t key[2] = {uint32_t(random()), uint32_t(random())};
  Block<int64_t> sizes(2 * s.count);
  for (int64_t k = 0; k < s.count; ++k) {
    sizes[2 * k] = 1 + random() % s.height;
    sizes[2 * k + 1] = 1 + random() % s.width;
  }
  const int64_t whole[2] = {s.height, s.width};
  const Frames frames = random() % 2 ? Frames{whole, 1} : Frames{sizes.get(), s.count};
  const ViewRecipeNumbers recipe = recipe_of(c);
  draw_view_params(shared_thread_pool(), s.count, index.get(), frames, key, c.seed, recipe, params.drawn());
  draw_view_params(one_thread(), s.count, index.get(), frames, key, c.seed, recipe, again.drawn());
  bool right = fits(frames, s.count, params.box.get()) &&
               std::memcmp(params.box.get(), again.box.get(), 32 * s.count) == 0 &&
               std::memcmp(params.hue.get(), again.hue.get(), 8 * s.count) == 0;
  roughen(c, random, params);
  const Block<char> images = images_of(c, random);
  if (!make_views_fault(s, params.arrays()).empty()) return false;
  const Block<char> views = compute(shared_thread_pool(), c, images.get(), params);
  const Block<char> alone = compute(one_thread(), c, images.get(), params);
  right = right && std::memcmp(views.get(), alone.get(),
                               2 * s.count * s.size * s.size * s.channels * size_of(s.type)) == 0;
  if (!c.plain || s.type != DataType::kFloat32) return right;
  return right && is_close(c, images.get(), params, reinterpret_cast<const float*>(views.get()));
}

// Returns whether the check of the parameters refuses a box outside its image, and accepts every other box.
bool refuses(const Case& c) {
  const Params params(2 * c.shape.count);
  Block<int64_t> index(c.shape.count);
  std::fill(index.get(), index.get() + c.shape.count, int64_t{c.seed});
  const uint32_t key[2] = {1, 2};
  const int64_t whole[2] = {c.shape.height, c.shape.width};
  draw_view_params(one_thread(), c.shape.count, index.get(), {whole, 1}, key, c.seed, recipe_of(c),
                   params.drawn());
  if (!make_views_fault(c.shape, params.arrays()).empty()) return false;
  const int64_t row = c.seed % (2 * c.shape.count);
  const int32_t wrong[] = {-1, INT32_MAX, INT32_MIN, 0};
  params.box[4 * row + c.seed % 4] = c.seed % 4 < 2 ? wrong[c.seed % 3] : wrong[1 + c.seed / 4 % 3];
  const std::string fault = make_views_fault(c.shape, params.arrays());
  return fault.rfind("Row " + std::to_string(row) + " has the box", 0) == 0;
}

bool check(const Case& c) {
  const bool right = passes(c) && refuses(c);
  if (!right) {
    std::fprintf(stderr,
                 "WRONG: %ld images %ld x %ld x %ld, size %ld, pixels %d, type %d, plain %d, seed %u\n",
                 long(c.shape.count), long(c.shape.height), long(c.shape.width), long(c.shape.channels),
                 long(c.shape.size), int(c.shape.pixels), int(c.shape.type), int(c.plain), c.seed);
  }
  return right;
}

Case case_of(unsigned seed, unsigned images, unsigned height, unsigned width, unsigned size, unsigned types,
             unsigned plain) {
  MakeViewsShape shape{1 + images % 4, 1 + height % 50, 1 + width % 50, 1 + types % 4, 1 + size % 45, {}, {}};
  constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat32, DataType::kBfloat16,
                                 DataType::kFloat16};
  shape.pixels = static_cast<PixelType>(types / 4 % 3);
  shape.type = kTypes[types / 16 % 4];
  if (plain % 64 == 1)
    shape.count = 120, shape.size = 64;  // too many bytes for the caches, so the views are streamed
  return {shape, plain % 4 == 0, seed};
}

}  // namespace

bool check_words(const std::array<unsigned, 7>& w) {
  return check(case_of(w[0], w[1], w[2], w[3], w[4], w[5], w[6]));
}

#ifdef LOWLEVEL_SIMCLR_FUZZER

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  lowlevel_simclr::check_chosen_case(data, size, check_words);
  return 0;
}

#else

int main(int count, char** arguments) {
  return lowlevel_simclr::check_random_cases(count, arguments, check_words);
}

#endif
