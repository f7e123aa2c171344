// Runs the LARS kernels outside TensorFlow, for sanitizers, fuzzing and emulators. This program is not part of the
// library.
//
// Sizes, types, magnitudes and settings are random. Every array lies in a block of memory of exactly its size, so that
// AddressSanitizer notices an access past its end. The results are compared with a plain computation in double. They
// are also compared, bit for bit, with a second run, which uses one thread and writes in place. Two threads call
// the kernels at the same time, for ThreadSanitizer.
//
//     lars_update_test_driver [seconds] [seed]        exits with 0 if it found nothing wrong
//
// With -DLOWLEVEL_SIMCLR_FUZZER, this file becomes a libFuzzer target. The bytes of the fuzzer's input describe the
// case.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <thread>
#include <vector>

#include "../runtime/host_memory.h"
#include "../runtime/test_driver.h"
#include "../runtime/thread_pool.h"
#include "lars_update.h"

namespace {

using namespace lowlevel_simclr;

struct Case {
  int64_t count;
  double magnitude;  // about how large the numbers are; their squares may be too large or too small for float
  bool adapts, of_bfloat16;
  unsigned seed;
};

constexpr double kMagnitudes[] = {1, 1, 1e-30, 1e-10, 1e10, 1e30};

// ---- Inputs

struct Inputs {
  std::vector<float> weight, gradient, velocity;
  LarsChoices choices;
};

Inputs inputs_of(const Case& c) {
  std::mt19937 random(c.seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<float> unit;
  Inputs in{{}, {}, {}, {unit(random), unit(random), unit(random) / 10, unit(random), c.adapts}};
  const bool no_weight = random() % 8 == 0, no_gradient = random() % 8 == 0;
  for (int64_t i = 0; i < c.count; ++i) {
    in.weight.push_back(no_weight ? 0.0f : static_cast<float>(c.magnitude * normal(random)));
    float gradient = no_gradient ? 0.0f : static_cast<float>(c.magnitude * normal(random));
    uint32_t bits;
    std::memcpy(&bits, &gradient, sizeof bits);
    if (c.of_bfloat16) bits &= 0xffff0000u;
    std::memcpy(&gradient, &bits, sizeof bits);
    in.gradient.push_back(gradient);
    in.velocity.push_back(static_cast<float>(c.magnitude * normal(random)));
  }
  return in;
}

// Returns the numbers as the bits of bfloat16. This loses nothing, because the other bits of these numbers are 0.
std::vector<uint16_t> halves_of(const std::vector<float>& numbers) {
  std::vector<uint16_t> halves;
  for (const float& number : numbers) {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    halves.push_back(static_cast<uint16_t>(bits >> 16));
  }
  return halves;
}

// ---- Both computations

struct Outputs {
  std::vector<float> weight, velocity;
};

// With `in_place`, the new velocity takes the memory of the velocity. The new weight takes the memory of the gradient,
// or that of the weight if the gradient is bfloat16. Without `in_place`, the results lie in memory that is aligned to a
// vector. If they are large, they are then stored past the caches.
Outputs compute(const ParallelFor& parallel, const Case& c, const Inputs& in, bool in_place) {
  std::vector<float> weight = in.weight, gradient = in.gradient, velocity = in.velocity;
  const std::vector<uint16_t> halves = halves_of(in.gradient);
  std::vector<double> sums(lars_update_partial_sums(c.count));
  const HostMemory of_weight = host_memory(c.count * sizeof(float)),
                   of_velocity = host_memory(c.count * sizeof(float));
  float* new_weight = in_place ? c.of_bfloat16 ? weight.data() : gradient.data()
                               : static_cast<float*>(static_cast<void*>(of_weight.get()));
  float* new_velocity =
      in_place ? velocity.data() : static_cast<float*>(static_cast<void*>(of_velocity.get()));
  lars_update(parallel, c.count, in.choices, weight.data(),
              c.of_bfloat16 ? static_cast<const void*>(halves.data()) : gradient.data(),
              c.of_bfloat16 ? DataType::kBfloat16 : DataType::kFloat32, velocity.data(), sums.data(),
              new_weight, new_velocity);
  return {{new_weight, new_weight + c.count}, {new_velocity, new_velocity + c.count}};
}

ParallelFor one_thread() {
  const auto run = [](void*, int64_t count, ParallelBody body, void* argument) {
    for (int64_t i = count - 1; i >= 0; --i) body(argument, i);  // the order of the calls must not matter
  };
  return {nullptr, 1, run};
}

// An element may have an error of 16 roundings of the terms of its sum, plus the smallest normal number.
bool is_right(const Case& c, const Inputs& in, const Outputs& out) {
  const double decay = c.adapts ? in.choices.weight_decay : 0;
  double of_weight = 0, of_update = 0;
  for (int64_t i = 0; i < c.count; ++i) {
    const double update = in.gradient[i] + decay * in.weight[i];
    of_weight += double(in.weight[i]) * in.weight[i];
    of_update += update * update;
  }
  const bool adapts = c.adapts && of_weight > 0 && of_update > 0;
  const double ratio =
      adapts ? in.choices.trust_coefficient * std::sqrt(of_weight) / std::sqrt(of_update) : 1;
  for (int64_t i = 0; i < c.count; ++i) {
    const double kept = double(in.choices.momentum) * in.velocity[i];
    const double rate = in.choices.learning_rate * ratio;
    const double moved = rate * (in.gradient[i] + decay * in.weight[i]);
    const double terms =
        std::fabs(kept) + rate * (std::fabs(in.gradient[i]) + decay * std::fabs(in.weight[i]));
    const double allowed = 8 * 0x1p-23 * (terms + std::fabs(in.weight[i])) + 0x1p-126;
    if (!(std::fabs(out.velocity[i] - (kept + moved)) <= allowed)) return false;
    if (!(std::fabs(out.weight[i] - (in.weight[i] - kept - moved)) <= allowed)) return false;
  }
  return true;
}

// ---- One case

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

bool check(const Case& c) {
  const Inputs in = inputs_of(c);
  const Outputs out = compute(shared_thread_pool(), c, in, false), again = compute(one_thread(), c, in, true);
  const bool right =
      is_right(c, in, out) && equal(out.weight, again.weight) && equal(out.velocity, again.velocity);
  if (!right) {
    std::fprintf(stderr, "WRONG: count %ld magnitude %g adapts %d bfloat16 %d seed %u\n", long(c.count),
                 c.magnitude, int(c.adapts), int(c.of_bfloat16), c.seed);
  }
  return right;
}

Case case_of(unsigned seed, unsigned count, unsigned magnitude, unsigned adapts, unsigned type) {
  // One variable in sixteen is so large that its results are stored past the caches.
  const int64_t size = 1 + (count % 16 == 0 ? (1 << 17) + count / 16 % 70000 : count / 16 % 3000);
  return {size, kMagnitudes[magnitude % 6], adapts % 4 != 0, type % 2 == 0, seed};
}

}  // namespace

bool check_words(const std::array<unsigned, 5>& w) { return check(case_of(w[0], w[1], w[2], w[3], w[4])); }

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
