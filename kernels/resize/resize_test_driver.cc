// Runs the resize of image files outside TensorFlow, for sanitizers, fuzzing and emulators. This program is not part of
// the library.
//
// Sizes, boxes and pixels are random. Every array lies in a block of memory of exactly its size, so that
// AddressSanitizer notices an access past its end. The results are compared with a plain computation in double, and bit
// for bit with a second run of the same code.
//
//     resize_test_driver [seconds] [seed]        exits with 0 if it found nothing wrong
//
// With -DLOWLEVEL_SIMCLR_FUZZER, this file becomes a libFuzzer target.
#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "../runtime/test_driver.h"
#include "resize.h"

namespace {

using namespace lowlevel_simclr;

constexpr int64_t kLargest = 90;  // pixels a side

// After each axis, rounding to a byte changes a result by at most 0.5. The rounding of the weights changes it by less
// than 0.01.
constexpr double kTolerance = 1.01;

// Returns the weights of all `size` source pixels for target pixel `place` of `count`.
std::vector<double> weigh(int64_t size, double start, double end, int64_t count, int64_t place) {
  const double scale = (end - start) / count, width = std::max(scale, 1.0),
               centre = start + (place + 0.5) * scale;
  const auto first = std::max<int64_t>(static_cast<int64_t>(centre - width + 0.5), 0);
  const auto last = std::min<int64_t>(static_cast<int64_t>(centre + width + 0.5), size);
  std::vector<double> weights(size);
  double total = 0;
  for (int64_t at = first; at < last; ++at) {
    weights[at] = std::max(0.0, 1.0 - std::abs(at - centre + 0.5) / width);
    total += weights[at];
  }
  for (double& weight : weights) weight /= total > 0 ? total : 1.0;
  return weights;
}

bool check(const std::array<unsigned, 8>& words) {
  const int64_t height = 1 + words[0] % kLargest, width = 1 + words[1] % kLargest,
                channels = words[2] % 2 ? 3 : 1;
  const int64_t new_height = 1 + words[3] % kLargest, new_width = 1 + words[4] % kLargest;
  const auto part = [](unsigned word) { return static_cast<float>(word % 1000) / 2500; };  // below 0.4
  const float left = part(words[5]) * width, top = part(words[6]) * height;
  const ResizeBox box = {left, top, words[7] % 2 ? width : left + 0.6f * width,
                         words[7] % 3 ? height : top + 0.6f * height};
  std::mt19937 random(words[2]);
  std::vector<uint8_t> source(height * width * channels);
  for (uint8_t& byte : source) byte = static_cast<uint8_t>(words[7] % 5 ? random() : 255);
  std::vector<uint8_t> made(new_height * new_width * channels), again(made.size());
  for (auto* target : {&made, &again}) {
    if (!resize_pixels(source.data(), height, width, channels, box, target->data(), new_height, new_width))
      return false;
  }
  if (made != again) return false;
  for (int64_t y = 0; y < new_height; ++y) {
    const std::vector<double> down = weigh(height, box.top, box.bottom, new_height, y);
    for (int64_t x = 0; x < new_width; x += 1 + new_width / 5) {
      const std::vector<double> across = weigh(width, box.left, box.right, new_width, x);
      for (int64_t channel = 0; channel < channels; ++channel) {
        double sum = 0;
        for (int64_t i = 0; i < height; ++i) {
          for (int64_t j = 0; down[i] > 0 && j < width; ++j) {
            sum += down[i] * across[j] * source[(i * width + j) * channels + channel];
          }
        }
        if (!(std::abs(sum - made[(y * new_width + x) * channels + channel]) <= kTolerance)) return false;
      }
    }
  }
  return true;
}

}  // namespace

#ifdef LOWLEVEL_SIMCLR_FUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check_chosen_case<8>(data, size, check);
  return 0;
}
#else
int main(int count, char** arguments) { return check_random_cases<8>(count, arguments, check); }
#endif
