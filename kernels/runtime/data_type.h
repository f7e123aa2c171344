// The floating-point types of the kernels' arrays.
#pragma once

namespace lowlevel_simclr {

enum class DataType { kFloat32, kFloat64, kBfloat16, kFloat16 };

}  // namespace lowlevel_simclr
