// Matrix products that one warp computes on tensor cores (GPUs from sm_80 on), and the number types of their factors.
// On the host (cuda_on_host.h), the lanes (threads of the warp) exchange their registers and compute the same products.
//
// A fragment is the part of a matrix that a warp holds in registers. In the instruction mma.m16n8k16, lane 4 g + t
// holds these elements (row, column) in its registers (source: NVIDIA's PTX ISA):
//
//     C[16][8] of float32:   c0 = (g, 2t)  c1 = (g, 2t+1)  c2 = (g+8, 2t)  c3 = (g+8, 2t+1)
//     A[16][16] of float16:  a0 = (g, 2t)  a1 = (g+8, 2t)  a2 = (g, 2t+8)  a3 = (g+8, 2t+8)
//     B[16][8] of float16:   b0 = (2t, g)  b1 = (2t+8, g)
//
// A register of A or B holds two numbers. The lower half is the element in this list. The upper half is another
// element: for A its right neighbour, for B the one below it.
//
// Sums are float32. The hardware truncates them instead of rounding. So callers keep chains of products short and add
// the results themselves.
#pragma once

#include "launch.cuh"

namespace lowlevel_simclr {

template <typename To, typename From>
__host__ __device__ __forceinline__ To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// ---- 16-bit floats, stored as their bits

struct Bfloat16Bits {
  uint16_t bits;
};

struct Float16Bits {
  uint16_t bits;
};

__host__ __device__ __forceinline__ float widen(float x) { return x; }
__host__ __device__ __forceinline__ double widen(double x) { return x; }
__host__ __device__ __forceinline__ float widen(Bfloat16Bits x) {
  return bits_as<float>(static_cast<uint32_t>(x.bits) << 16);
}

__host__ __device__ __forceinline__ void narrow(float* to, float x) { *to = x; }
__host__ __device__ __forceinline__ void narrow(double* to, double x) { *to = x; }
__host__ __device__ __forceinline__ void narrow(Bfloat16Bits* to, float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  to->bits = x != x ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#ifdef __CUDACC__
__device__ __forceinline__ float widen(Float16Bits x) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
}
__device__ __forceinline__ void narrow(Float16Bits* to, float x) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
}
#else
inline float widen(Float16Bits x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31;
  const uint32_t fraction = x.bits & 1023;
  if (exponent == 31) return bits_as<float>(sign | 0x7f800000u | fraction << 13);
  const float size = std::ldexp(static_cast<float>(exponent == 0 ? fraction : fraction + 1024),
                                static_cast<int>(exponent == 0 ? 1 : exponent) - 25);
  return sign ? -size : size;
}
inline void narrow(Float16Bits* to, float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (x != x) {
    to->bits = 0x7fff;
  } else if (size >= 65520.0f) {
    to->bits = sign | 0x7c00;
  } else {
    const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
    // If rounding makes the mantissa overflow, the addition carries into the exponent, which is right.
    const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    to->bits =
        static_cast<uint16_t>(sign | (size < 0x1p-14f ? steps : ((exponent + 15) << 10) + steps - 1024));
  }
}
#endif

// Rounds two numbers to float16 and puts them into one register. `low` goes into the lower half.
__device__ __forceinline__ uint32_t pack_float16(float low, float high) {
#ifdef __CUDACC__
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  Float16Bits a, b;
  narrow(&a, low);
  narrow(&b, high);
  return static_cast<uint32_t>(b.bits) << 16 | a.bits;
#endif
}

__device__ __forceinline__ float low_float16(uint32_t both) {
  return widen(Float16Bits{static_cast<uint16_t>(both)});
}

__device__ __forceinline__ float high_float16(uint32_t both) {
  return widen(Float16Bits{static_cast<uint16_t>(both >> 16)});
}

// ---- c += A B

#ifdef __CUDACC__

__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Loads four 8 x 8 matrices of 16-bit numbers from shared memory. Lane 8 m + r gives the address of row r of matrix m.
// Each lane gets two numbers of every matrix, the ones at (g, 2t) and (g, 2t+1).
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// Loads as load_matrices does, but transposed: each lane gets the numbers at (2t, g) and (2t+1, g).
__device__ __forceinline__ void load_transposed(uint32_t (&to)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

#else

inline float half_of(uint32_t word, int which) {
  return widen(Float16Bits{static_cast<uint16_t>(word >> 16 * which)});
}

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Operands {
    uint32_t a[4], b[2];
  };
  const on_host::Exchange<Operands> all(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const int g = on_host::lane() / 4, t = on_host::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row_half = i / 2, column = 2 * t + i % 2;
    double sum = c[i];
    for (int k = 0; k < 16; ++k) {
      const int owner = k % 8 / 2, high = k / 8;
      sum += static_cast<double>(half_of(all.of_lane(4 * g + owner).a[row_half + 2 * high], k % 2)) *
             half_of(all.of_lane(4 * column + owner).b[high], k % 2);
    }
    c[i] = static_cast<float>(sum);
  }
}

inline void load_some(uint32_t (&to)[4], const void* row, bool transposed) {
  const on_host::Exchange<const void*> rows(row);
  const int g = on_host::lane() / 4, t = on_host::lane() % 4;
  for (int m = 0; m < 4; ++m) {
    uint32_t words[2];
    for (int i = 0; i < 2; ++i) {
      const int r = transposed ? 2 * t + i : g, c = transposed ? g : 2 * t + i;
      words[i] = static_cast<const uint16_t*>(rows.of_lane(8 * m + r))[c];
    }
    to[m] = words[1] << 16 | words[0];
  }
}

inline void load_matrices(uint32_t (&to)[4], const void* row) { load_some(to, row, false); }
inline void load_transposed(uint32_t (&to)[4], const void* row) { load_some(to, row, true); }

#endif

}  // namespace lowlevel_simclr
