// The TensorFlow op that makes views: LowlevelSimclr>MakeViews. make_views.h says what it computes.
//
//     MakeViews(images (N, H, W, C), box, flip, brightness, contrast, saturation, hue, brightness_shift, order,
//               clip, grey, blur_sigma, mean (C,), inverse_std (C,), size ())  -> views (2N, S, S, C)
//
// Tin is the type of the images, Tout is the type of the views.
#include <string>

#include "../glue/tf_context.h"
#include "../runtime/thread_pool.h"
#include "make_views.h"
#include "make_views_fault.h"

namespace lowlevel_simclr {
namespace {

constexpr int kFields = 11;
constexpr int64_t kLargest = 32767;
constexpr const char* kNames[kFields] = {"box",        "flip", "brightness",       "contrast",
                                         "saturation", "hue",  "brightness_shift", "order",
                                         "clip",       "grey", "blur_sigma"};

// The size of the views is an input, so it is known only when the op runs. Python sets the shape if it knows the size
// earlier.
void unknown_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

// ---- Checks

std::string shape_text(const Tensor& tensor) {
  std::string text = "(";
  for (int axis = 0; axis < tensor.rank(); ++axis)
    text += (axis ? ", " : "") + std::to_string(tensor.dim(axis));
  return text + ")";
}

bool in_range(int64_t length) { return length >= 1 && length <= kLargest; }

MakeViewsShape read_shape(const Tensor& images, const Tensor& size, TF_DataType type, Status& status) {
  MakeViewsShape shape{};
  if (!status.ok()) return shape;
  const bool fits = images.rank() == 4 && in_range(images.dim(1)) && in_range(images.dim(2)) &&
                    images.dim(3) >= 1 && images.dim(3) <= kMostChannels;
  if (!fits) {
    status.invalid("images have shape " + shape_text(images) +
                   ". They must be (N, H, W, C), H and W from 1 to 32767, C from 1 to 4.");
    return shape;
  }
  if (size.size() != 1 || !in_range(size.scalar<int64_t>())) {
    status.invalid("size must be one number from 1 to 32767.");
    return shape;
  }
  shape = {images.dim(0), images.dim(1), images.dim(2), images.dim(3), size.scalar<int64_t>(), {}, {}};
  shape.pixels = images.type() == TF_UINT8    ? PixelType::kUint8
                 : images.type() == TF_UINT16 ? PixelType::kUint16
                                              : PixelType::kFloat32;
  shape.type = type == TF_FLOAT      ? DataType::kFloat32
               : type == TF_BFLOAT16 ? DataType::kBfloat16
                                     : DataType::kFloat16;
  return shape;
}

void check_rows(const Tensor& tensor, int field, int64_t count, Status& status) {
  if (!status.ok()) return;
  const bool four = field == 0 || field == 7;
  const bool fits =
      tensor.rank() == (four ? 2 : 1) && tensor.dim(0) == 2 * count && (!four || tensor.dim(1) == 4);
  if (fits) return;
  status.invalid(std::string(kNames[field]) + " has shape " + shape_text(tensor) + " for " +
                 std::to_string(count) + " images. There must be two rows for each image" +
                 (four ? ", of four numbers." : "."));
}

void check_scaling(const Tensor& tensor, int64_t channels, Status& status) {
  if (status.ok() && (tensor.rank() != 1 || tensor.dim(0) != channels))
    status.invalid("mean and inverse_std must have one number for each of the " + std::to_string(channels) +
                   " channels.");
}

ViewParamArrays arrays_of(const Tensor (&fields)[kFields]) {
  const auto floats = [&fields](int field) { return static_cast<const float*>(fields[field].data()); };
  const auto flags = [&fields](int field) { return static_cast<const bool*>(fields[field].data()); };
  const auto whole = [&fields](int field) { return static_cast<const int32_t*>(fields[field].data()); };
  return {whole(0),  flags(1), floats(2), floats(3), floats(4), floats(5),
          floats(6), whole(7), flags(8),  flags(9),  floats(10)};
}

// ---- Kernel

void compute(TF_OpKernelContext* context, Status& status) {
  const Tensor images = input(context, 0, status), mean = input(context, kFields + 1, status),
               inverse_std = input(context, kFields + 2, status), size = input(context, kFields + 3, status);
  const TF_DataType type = TF_ExpectedOutputDataType(context, 0);
  const MakeViewsShape shape = read_shape(images, size, type, status);
  Tensor fields[kFields];
  for (int field = 0; field < kFields; ++field) {
    fields[field] = input(context, field + 1, status);
    check_rows(fields[field], field, shape.count, status);
  }
  check_scaling(mean, shape.channels, status);
  check_scaling(inverse_std, shape.channels, status);
  if (!status.ok()) return;
  const ViewParamArrays params = arrays_of(fields);
  if (const std::string fault = make_views_fault(shape, params); !fault.empty()) return status.invalid(fault);
  const int64_t dims[] = {2 * shape.count, shape.size, shape.size, shape.channels};
  const Tensor views = output(context, 0, type, dims, status);
  const ParallelFor parallel = shared_thread_pool();
  const Tensor workspace = temporary(context, make_views_workspace_bytes(parallel, shape), status);
  if (!status.ok()) return;
  make_views(parallel, shape, images.data(), params, static_cast<const float*>(mean.data()),
             static_cast<const float*>(inverse_std.data()), workspace.data(), views.data());
}

// ---- Registration

const bool registered = [] {
  register_op({"LowlevelSimclr>MakeViews",
               {"Tin: {uint8, uint16, float}", "Tout: {bfloat16, half, float}"},
               {"images: Tin", "box: int32", "flip: bool", "brightness: float", "contrast: float",
                "saturation: float", "hue: float", "brightness_shift: float", "order: int32", "clip: bool",
                "grey: bool", "blur_sigma: float", "mean: float", "inverse_std: float", "size: int64"},
               {"views: Tout"},
               unknown_shapes});
  register_cpu_kernel<compute>("LowlevelSimclr>MakeViews");
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
