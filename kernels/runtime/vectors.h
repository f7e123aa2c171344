// Vectors of numbers, as wide as the registers of the instruction set that a file is compiled for. They use GCC's
// vector extensions.
//
// X_tiles.cc includes this file and is compiled once for each instruction set. If several object files have the same
// inline function, the linker keeps only one version of it. That could be AVX-512 code, which would then also run on
// processors without AVX-512. Therefore everything in this file has internal linkage, and nothing in it uses a template
// of the standard library.
#pragma once

#include <stdint.h>

#include "shuffle.h"

#define LOWLEVEL_INLINE_MEMBER inline __attribute__((always_inline))
#define LOWLEVEL_INLINE static LOWLEVEL_INLINE_MEMBER

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Constants of exp2: 2^y = 2^n 2^f with n = round(y) and |f| <= 1/2. kMagic is 1.5 * 2^m + bias, where m is the number
// of bits of the mantissa and bias is that of the exponent. Adding kMagic to y rounds y to an integer and leaves
// n + bias in the low bits of the sum. The polynomial approximates 2^f with the least possible maximum of the relative
// error (Remez exchange). That error is 1.9e-9 for float and 3.1e-18 for double.
template <typename Real>
struct Exp2Constants;

template <>
struct Exp2Constants<float> {
  static constexpr float kLowest = -126.0f, kMagic = 12582912.0f + 127.0f;
  static constexpr int kMantissa = 23, kTerms = 7;
  static constexpr float kPolynomial[kTerms] = {
      1.0000000005541663e+00f, 6.9314720573725268e-01f, 2.4022646890639572e-01f, 5.5503287769976638e-02f,
      9.6184889565227916e-03f, 1.3399931209474140e-03f, 1.5345812158740182e-04f};
};

template <>
struct Exp2Constants<double> {
  static constexpr double kLowest = -1022.0, kMagic = 6755399441055744.0 + 1023.0;
  static constexpr int kMantissa = 52, kTerms = 12;
  static constexpr double kPolynomial[kTerms] = {
      9.9999999999999999e-01, 6.9314718055994533e-01, 2.4022650695910156e-01, 5.5504108664819920e-02,
      9.6181291075883351e-03, 1.3333558146789950e-03, 1.5403530462514613e-04, 1.5252733489960805e-05,
      1.3215433089594630e-06, 1.0178198033328528e-07, 7.0741056262456593e-09, 4.4352389446103611e-10};
};

template <typename Real>
struct Lanes;

template <>
struct Lanes<float> {
  static constexpr int kCount = kVectorBytes / 4;
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Index __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
};

template <>
struct Lanes<double> {
  static constexpr int kCount = kVectorBytes / 8;
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Index __attribute__((vector_size(kVectorBytes)));
};

template <typename Real>
using Vector = typename Lanes<Real>::V;
template <typename Real>
using IndexVector = typename Lanes<Real>::Index;

template <typename Real>
LOWLEVEL_INLINE Vector<Real> broadcast(Real x) {
  return x - Vector<Real>{};
}

// The address need not be aligned: the compiler turns the copy into one unaligned load.
template <typename Real>
LOWLEVEL_INLINE Vector<Real> load(const Real* from) {
  Vector<Real> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <typename Real>
LOWLEVEL_INLINE void store(Real* to, Vector<Real> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// Stores directly to memory, past the caches. So the processor does not first read the old contents of the memory, and
// the caches keep what they hold. `to` must be aligned to a vector. Call end_stream before another thread may read the
// numbers.
LOWLEVEL_INLINE void stream(float* to, Vector<float> v) {
#if defined(__clang__)
  __builtin_nontemporal_store(v, reinterpret_cast<Vector<float>*>(to));
#elif defined(__AVX512F__)
  __builtin_ia32_movntps512(to, v);
#elif defined(__AVX2__)
  __builtin_ia32_movntps256(to, v);
#elif defined(__SSE2__)
  __builtin_ia32_movntps(to, v);
#else
  store(to, v);
#endif
}

LOWLEVEL_INLINE void end_stream() {
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

template <typename V>
LOWLEVEL_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}

template <typename Real>
LOWLEVEL_INLINE Real horizontal_sum(Vector<Real> v) {
  Real sum = v[0];
  for (int i = 1; i < Lanes<Real>::kCount; ++i) sum += v[i];
  return sum;
}

template <typename Real>
LOWLEVEL_INLINE Real horizontal_max(Vector<Real> v) {
  Real most = v[0];
  for (int i = 1; i < Lanes<Real>::kCount; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// Sums squares in double. The lanes of a vector of floats go to two registers of doubles. A single vector type of twice
// that width would be slow, because GCC 12 keeps it in memory and handles it lane by lane.
template <typename Real>
struct SquareSum {
  static constexpr int kParts = sizeof(double) / sizeof(Real);
  typedef Real Part __attribute__((vector_size(kVectorBytes / kParts)));
  Vector<double> parts[kParts] = {};

  LOWLEVEL_INLINE_MEMBER void add(Vector<Real> x) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) {
      Part part;
      __builtin_memcpy(&part, reinterpret_cast<const char*>(&x) + i * sizeof part, sizeof part);
      const auto wide = __builtin_convertvector(part, Vector<double>);
      parts[i] += wide * wide;
    }
  }

  LOWLEVEL_INLINE_MEMBER double total() const {
    double sum = 0;
    for (const Vector<double>& part : parts) sum += horizontal_sum<double>(part);
    return sum;
  }
};

// Returns first, first + 1, first + 2, ...
template <typename Real>
LOWLEVEL_INLINE IndexVector<Real> lane_indices(int64_t first) {
  IndexVector<Real> lanes;
  for (int i = 0; i < Lanes<Real>::kCount; ++i) lanes[i] = i;
  return lanes + static_cast<decltype(lanes[0] + 0)>(first);
}

// Returns 2^y, for y not far above 0. The result is never below 2^-126 (2^-1022 in double). If y is NaN, the result is
// NaN.
template <typename Real>
LOWLEVEL_INLINE Vector<Real> exp2(Vector<Real> y) {
  using Constants = Exp2Constants<Real>;
  const Vector<Real> lowest = broadcast<Real>(Constants::kLowest), magic = broadcast<Real>(Constants::kMagic);
  y = y < lowest ? lowest : y;
  const Vector<Real> shifted = y + magic;
  const Vector<Real> f = y - (shifted - magic);
  Vector<Real> p = broadcast<Real>(Constants::kPolynomial[Constants::kTerms - 1]);
#pragma GCC unroll 16
  for (int k = Constants::kTerms - 2; k >= 0; --k) p = p * f + broadcast<Real>(Constants::kPolynomial[k]);
  return p *
         reinterpret_cast<Vector<Real>>(reinterpret_cast<IndexVector<Real>>(shifted) << Constants::kMantissa);
}

// ---- Rows in memory (float, double, bfloat16 or float16), converted to vectors of Real and back

struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

LOWLEVEL_INLINE Vector<float> widen(const float* from) { return load(from); }
LOWLEVEL_INLINE Vector<double> widen(const double* from) { return load(from); }

LOWLEVEL_INLINE Lanes<float>::Words load_halves(const void* from) {
  Lanes<float>::Halves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return __builtin_convertvector(halves, Lanes<float>::Words);
}

LOWLEVEL_INLINE Vector<float> widen(const Bfloat16* from) {
  return reinterpret_cast<Vector<float>>(load_halves(from) << 16);
}

// Moves the bits of the exponent and the mantissa to their places in a float. A subnormal float16 is an integer times
// 2^-24, and is computed as this product. Moving its bits would first give a subnormal float, which the processor may
// treat as 0.
LOWLEVEL_INLINE Vector<float> widen(const Float16* from) {
  using Words = Lanes<float>::Words;
  const Words halves = load_halves(from), magnitude = halves & 0x7fffu;
  const Words special = reinterpret_cast<Words>(magnitude >= 0x7c00u) & (112u << 23);
  const Words normal = (magnitude << 13) + (112u << 23) + special;
  const Vector<float> integer =
      __builtin_convertvector(reinterpret_cast<IndexVector<float>>(magnitude), Vector<float>);
  const Words subnormal = reinterpret_cast<Words>(integer * 0x1p-24f);
  const Words small = reinterpret_cast<Words>(magnitude < 0x400u);
  return reinterpret_cast<Vector<float>>((subnormal & small) | (normal & ~small) |
                                         ((halves & 0x8000u) << 16));
}

LOWLEVEL_INLINE void narrow(float* to, Vector<float> v) { store(to, v); }
LOWLEVEL_INLINE void narrow(double* to, Vector<double> v) { store(to, v); }

LOWLEVEL_INLINE void store_halves(void* to, Lanes<float>::Words words) {
  const Lanes<float>::Halves halves = __builtin_convertvector(words, Lanes<float>::Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}

// Rounds to nearest, ties to even. NaN becomes a quiet NaN.
LOWLEVEL_INLINE void narrow(Bfloat16* to, Vector<float> v) {
  using Words = Lanes<float>::Words;
  const Words bits = reinterpret_cast<Words>(v);
  const Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Words nan = reinterpret_cast<Words>(v != v);
  store_halves(to, ((rounded & ~nan) | ((bits | 0x400000u) & nan)) >> 16);
}

// Rounds to nearest, ties to even. Overflow gives infinity. Subnormals are rounded by adding 0.5f, because the last bit
// of 0.5f has the same value as the last bit of a float16 subnormal.
LOWLEVEL_INLINE void narrow(Float16* to, Vector<float> v) {
  using Words = Lanes<float>::Words;
  const Words bits = reinterpret_cast<Words>(v), magnitude = bits & 0x7fffffffu;
  const Words normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  const Vector<float> half = broadcast(0.5f);
  const Words subnormal = reinterpret_cast<Words>(reinterpret_cast<Vector<float>>(magnitude) + half) -
                          reinterpret_cast<Words>(half);
  const Words small = reinterpret_cast<Words>(magnitude < (113u << 23));
  const Words large = reinterpret_cast<Words>(magnitude >= 0x477ff000u);
  const Words nan = reinterpret_cast<Words>(magnitude > 0x7f800000u);
  Words half_bits = (subnormal & small) | (normal & ~small);
  half_bits = (half_bits & ~large) | (0x7c00u & large);
  half_bits = (half_bits & ~nan) | (0x7e00u & nan);
  store_halves(to, half_bits | ((bits & 0x80000000u) >> 16));
}

// ---- Transposition of square blocks of lanes

template <typename Real, int kLaneCount>
struct Interleave;

template <typename Real>
struct Interleave<Real, 2> {
  static constexpr IndexVector<Real> kLow = {0, 2}, kHigh = {1, 3};
};
template <typename Real>
struct Interleave<Real, 4> {
  static constexpr IndexVector<Real> kLow = {0, 4, 1, 5}, kHigh = {2, 6, 3, 7};
};
template <typename Real>
struct Interleave<Real, 8> {
  static constexpr IndexVector<Real> kLow = {0, 8, 1, 9, 2, 10, 3, 11}, kHigh = {4, 12, 5, 13, 6, 14, 7, 15};
};
template <typename Real>
struct Interleave<Real, 16> {
  static constexpr IndexVector<Real> kLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  static constexpr IndexVector<Real> kHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
};

// Transposes in log2(lanes) rounds. Each round interleaves the upper half of the rows with the lower half.
template <typename Real>
LOWLEVEL_INLINE void transpose(Vector<Real> (&rows)[Lanes<Real>::kCount]) {
  constexpr int kCount = Lanes<Real>::kCount;
  using Mask = Interleave<Real, kCount>;
#pragma GCC unroll 4
  for (int round = 1; round < kCount; round *= 2) {
    Vector<Real> next[kCount];
#pragma GCC unroll 16
    for (int i = 0; i < kCount / 2; ++i) {
      next[2 * i] = LOWLEVEL_SHUFFLE(rows[i], rows[i + kCount / 2], Mask::kLow);
      next[2 * i + 1] = LOWLEVEL_SHUFFLE(rows[i], rows[i + kCount / 2], Mask::kHigh);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) rows[i] = next[i];
  }
}

}  // namespace
