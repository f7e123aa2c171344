// Runs NT-Xent's CPU kernels outside TensorFlow, for sanitizers and fuzzing. This program is not part of the library.
//
// Shapes, types, temperatures and own rows are random. Every array lies in a block of memory of exactly its size, so
// that AddressSanitizer notices an access past its end. The results are compared with a plain computation in double
// and, bit for bit, with a second run on one thread. Several threads call the kernels at the same time, for
// ThreadSanitizer.
//
//     nt_xent_test_driver [seconds] [seed]        exits with 0 if it found nothing wrong
//
// With -DLOWLEVEL_SIMCLR_FUZZER, this file becomes a libFuzzer target. The bytes of the fuzzer's input describe the
// case.
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

#include "../runtime/host_memory.h"
#include "../runtime/test_driver.h"
#include "../runtime/thread_pool.h"
#include "nt_xent.h"

namespace {

using namespace lowlevel_simclr;

constexpr double kTemperatures[] = {0.001, 0.005, 0.01, 0.03, 0.03125, 0.05, 0.1, 0.5, 1.0, 10.0};
constexpr int kPeculiarRows = 4;  // one row in four is special: zero, a duplicate, very large or very small

struct Case {
  NtXentShape shape;
  double temperature;
  unsigned seed;
};

// ---- Inputs

int64_t size_of(DataType type) { return type == DataType::kFloat64 ? 8 : type == DataType::kFloat32 ? 4 : 2; }

uint16_t bfloat16_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

// Returns z in double. The type of the case holds every number exactly.
std::vector<double> projections(const Case& c) {
  std::mt19937 random(c.seed);
  std::normal_distribution<double> normal;
  const int64_t rows = 2 * c.shape.pairs, dim = c.shape.dim;
  std::vector<double> z(rows * dim);
  for (double& x : z)
    x = std::ldexp(std::round(std::ldexp(normal(random), 5)),
                   -5);  // the number has few bits, so it is exact in every type
  for (int64_t i = 0; i < rows; ++i) {
    const unsigned peculiar = random() % (4 * kPeculiarRows);
    const double factor = c.shape.type == DataType::kFloat16 ? 1.0 : std::ldexp(1.0, 48);
    for (int64_t k = 0; k < dim; ++k) {
      double& x = z[i * dim + k];
      if (peculiar == 0) x = 0;
      if (peculiar == 1) x = z[random() % (i + 1) * dim + k];
      if (peculiar == 2) x *= factor;
      if (peculiar == 3) x /= factor;
    }
  }
  for (double& x : z) x = c.shape.type == DataType::kFloat64 ? x : static_cast<float>(x);
  return z;
}

// Returns the bits of a float16 (sign, exponent and mantissa). The value is a small multiple of 1/32.
uint16_t float16_of(double value) {
  if (value == 0) return 0;
  int exponent;
  const double mantissa = std::frexp(std::fabs(value), &exponent);  // in [1/2, 1)
  const int biased = exponent + 14;
  if (biased <= 0)
    return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | std::lround(std::ldexp(std::fabs(value), 24)));
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) + (biased << 10) +
                               std::lround(std::ldexp(mantissa, 11)) - 1024);
}

std::unique_ptr<char[]> stored(const std::vector<double>& z, DataType type) {
  std::unique_ptr<char[]> bytes(new char[z.size() * size_of(type)]);
  for (size_t i = 0; i < z.size(); ++i) {
    const float single = static_cast<float>(z[i]);
    const uint16_t half = type == DataType::kFloat16 ? float16_of(z[i]) : bfloat16_of(single);
    const void* from = type == DataType::kFloat64   ? static_cast<const void*>(&z[i])
                       : type == DataType::kFloat32 ? static_cast<const void*>(&single)
                                                    : &half;
    std::memcpy(bytes.get() + i * size_of(type), from, size_of(type));
  }
  return bytes;
}

// ---- The plain computation

std::vector<double> plain_losses(const Case& c, const std::vector<double>& z) {
  const int64_t rows = 2 * c.shape.pairs, dim = c.shape.dim;
  std::vector<double> u(z), losses;
  for (int64_t i = 0; i < rows; ++i) {
    double squares = 0;
    for (int64_t k = 0; k < dim; ++k) squares += z[i * dim + k] * z[i * dim + k];
    for (int64_t k = 0; k < dim; ++k) u[i * dim + k] = squares > 0 ? z[i * dim + k] / std::sqrt(squares) : 0;
  }
  for (int64_t i = 0; i < rows; ++i) {
    double sum = 0, positive = 0;
    for (int64_t j = 0; j < rows; ++j) {
      double dot = 0;
      for (int64_t k = 0; k < dim; ++k) dot += u[i * dim + k] * u[j * dim + k];
      if (j == (i + c.shape.pairs) % rows) positive = dot;
      if (j != i) sum += std::exp((dot - 1) / c.temperature);
    }
    losses.push_back(std::log(sum) + (1 - positive) / c.temperature);
  }
  return losses;
}

// ---- One case

template <typename Sum>
struct Outputs {
  std::unique_ptr<Sum[]> loss, normaliser, inverse_norm;
  std::unique_ptr<bool[]> top1;
  std::unique_ptr<char[]> dz;
  int64_t own, dz_bytes;
  double dtemperature;

  bool operator==(const Outputs& other) const {
    return std::memcmp(loss.get(), other.loss.get(), own * sizeof(Sum)) == 0 &&
           std::memcmp(dz.get(), other.dz.get(), dz_bytes) == 0 && dtemperature == other.dtemperature;
  }
};

template <typename Sum>
std::unique_ptr<Sum[]> block(int64_t count) {
  return std::unique_ptr<Sum[]>(new Sum[count]);
}

// The workspace is filled with NaN, because nothing may rely on its contents.
HostMemory workspace_for(const ParallelFor& parallel, const NtXentShape& shape) {
  const int64_t bytes = nt_xent_workspace_bytes(parallel, shape);
  HostMemory workspace = host_memory(bytes);
  std::memset(workspace.get(), 0xff, bytes);
  return workspace;
}

template <typename Sum>
Outputs<Sum> compute(const ParallelFor& parallel, const Case& c, const void* z) {
  const int64_t rows = 2 * c.shape.pairs, own = 2 * c.shape.own_pairs,
                bytes = own * c.shape.dim * size_of(c.shape.type);
  Outputs<Sum> out{block<Sum>(own),
                   block<Sum>(2 * own),
                   block<Sum>(rows),
                   block<bool>(own),
                   block<char>(bytes),
                   own,
                   bytes,
                   0};
  const HostMemory workspace = workspace_for(parallel, c.shape);
  nt_xent_forward(parallel, c.shape, z, c.temperature, workspace.get(), out.loss.get(), out.normaliser.get(),
                  out.inverse_norm.get(), out.top1.get());
  std::unique_ptr<Sum[]> whole = block<Sum>(2 * rows), cotangent = block<Sum>(rows);
  NtXentShape all = c.shape;
  all.first_pair = 0, all.own_pairs = all.pairs;
  {
    const HostMemory second = workspace_for(parallel, all);
    const auto loss = block<Sum>(rows);
    const auto top1 = block<bool>(rows);
    nt_xent_forward(parallel, all, z, c.temperature, second.get(), loss.get(), whole.get(),
                    out.inverse_norm.get(), top1.get());
  }
  for (int64_t i = 0; i < rows; ++i) cotangent[i] = static_cast<Sum>(i * 7 % 16 - 7.5);
  nt_xent_backward(parallel, c.shape, z, whole.get(), out.inverse_norm.get(), cotangent.get(), c.temperature,
                   workspace.get(), out.dz.get(), &out.dtemperature);
  return out;
}

ParallelFor one_thread() {
  const auto run = [](void*, int64_t count, ParallelBody body, void* argument) {
    for (int64_t i = count - 1; i >= 0; --i) body(argument, i);  // the order of the calls must not matter
  };
  return {nullptr, 1, run};
}

template <typename Sum>
bool passes(const Case& c) {
  const std::vector<double> z = projections(c), truth = plain_losses(c, z);
  const std::unique_ptr<char[]> memory = stored(z, c.shape.type);
  const Outputs<Sum> out = compute<Sum>(shared_thread_pool(), c, memory.get());
  bool right = out == compute<Sum>(one_thread(), c, memory.get());
  const double epsilon = sizeof(Sum) == 8 ? 0x1p-52 : 0x1p-23;
  const double allowed = (64 + 4 * std::sqrt(c.shape.dim)) * epsilon * (1 + 1 / c.temperature);
  for (int64_t i = 0; i < out.own; ++i) {
    const int64_t view = i / c.shape.own_pairs,
                  row = view * c.shape.pairs + c.shape.first_pair + i % c.shape.own_pairs;
    const double expected = truth[row];
    if (c.temperature >= 0.01) right = right && std::fabs(out.loss[i] - expected) <= allowed;
    right = right && out.loss[i] - out.loss[i] == 0;
  }
  return right && out.dtemperature - out.dtemperature == 0;
}

bool check(const Case& c) {
  const bool right = c.shape.type == DataType::kFloat64 ? passes<double>(c) : passes<float>(c);
  if (!right) {
    std::fprintf(stderr, "WRONG: pairs %ld dim %ld own %ld + %ld type %d temperature %g seed %u\n",
                 long(c.shape.pairs), long(c.shape.dim), long(c.shape.first_pair), long(c.shape.own_pairs),
                 int(c.shape.type), c.temperature, c.seed);
  }
  return right;
}

Case case_of(unsigned seed, unsigned pairs, unsigned dim, unsigned first, unsigned own, unsigned type,
             unsigned tau) {
  NtXentShape shape{1 + pairs % 130, 1 + dim % 70, 0, 0, static_cast<DataType>(type % 4)};
  shape.first_pair = first % 3 == 0 ? 0 : first % shape.pairs;
  shape.own_pairs = first % 3 == 0 ? shape.pairs : 1 + own % (shape.pairs - shape.first_pair);
  return {shape, kTemperatures[tau % 10], seed};
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
