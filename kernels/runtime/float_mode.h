// One floating-point mode for every thread that takes part in a kernel.
//
// TensorFlow sets "subnormal numbers are zero" on some of its threads and not on others, and a new thread
// inherits its maker's mode; so results would depend on who computes. Kernels run with it set: a weight that
// underflows is 0 at full speed, where a subnormal costs some processors a hundred cycles.
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
#else
  FloatMode() = default;
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__SSE2__)
  // All exceptions masked, round to nearest, flush subnormal results (15) and take subnormal operands (6) as
  // 0.
  static constexpr unsigned kNearestFlushed = 0x1f80u | 1u << 15 | 1u << 6;
  unsigned saved_;
#endif
};

}  // namespace lowlevel_simclr
