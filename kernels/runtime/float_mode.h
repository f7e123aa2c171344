// FloatMode sets the floating-point mode that the kernels need, on the thread that creates the object. The destructor
// restores the old mode.
//
// On some of its threads, TensorFlow sets a mode in which subnormal numbers (the smallest ones) count as zero, and on
// others it does not. A new thread inherits the mode of the thread that starts it. So without FloatMode, results would
// depend on which thread computes them.
//
// In the mode of FloatMode, subnormal numbers count as zero. This is fast. In the usual mode, on some processors, an
// operation on a subnormal number takes a hundred cycles.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace lowlevel_simclr {

class FloatMode {
 public:
#if defined(__SSE2__)
  FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(kNearestFlushed); }
  ~FloatMode() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  FloatMode() : saved_(__builtin_aarch64_get_fpcr()) { __builtin_aarch64_set_fpcr(kNearestFlushed); }
  ~FloatMode() { __builtin_aarch64_set_fpcr(saved_); }
#else
  FloatMode() = default;
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__SSE2__)
  // Masks all exceptions and rounds to nearest. Subnormal results (bit 15) and subnormal operands (bit 6) count as 0.
  static constexpr unsigned kNearestFlushed = 0x1f80u | 1u << 15 | 1u << 6;
  unsigned saved_;
#elif defined(__aarch64__)
  // Traps no exception and rounds to nearest. With bit 24 (FZ), subnormal results and operands count as 0.
  static constexpr unsigned kNearestFlushed = 1u << 24;
  unsigned saved_;
#endif
};

}  // namespace lowlevel_simclr
