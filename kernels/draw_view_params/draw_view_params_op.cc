// The TensorFlow op that draws the views' parameters: LowlevelSimclr>DrawViewParams. See draw_view_params.h.
//
//     DrawViewParams(index (N,), sizes (N, 2) or (1, 2), key (2,): low and high word of the seed, epoch (),
//                    recipe (25,))
//         -> box, flip, brightness, contrast, saturation, hue, brightness_shift, order, clip, grey, blur_sigma
#include <cstring>
#include <string>

#include "../glue/tf_context.h"
#include "../runtime/thread_pool.h"
#include "draw_view_params.h"

namespace lowlevel_simclr {
namespace {

constexpr int64_t kWords = INT64_C(1) << 32;

// The results have twice as many rows as `index`. Python sets their shapes if it knows them.
void unknown_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

// ---- Checks

void check_inputs(const Tensor& index, const Tensor& sizes, const Tensor& key, const Tensor& epoch,
                  const Tensor& recipe, Status& status) {
  if (!status.ok()) return;
  if (index.rank() != 1 || key.size() != 2 || epoch.size() != 1 || recipe.size() != kRecipeNumbers)
    return status.invalid("index must be (N,), key two words, epoch one number and recipe 25 numbers.");
  if (sizes.rank() != 2 || sizes.dim(1) != 2 || (sizes.dim(0) != 1 && sizes.dim(0) != index.dim(0)))
    return status.invalid("sizes must be (N, 2) or (1, 2).");
  const int64_t* places = static_cast<const int64_t*>(index.data());
  const int64_t wrong = first_wrong_index(index.dim(0), places), number = epoch.scalar<int64_t>();
  if (wrong < index.dim(0))
    return status.invalid("index[" + std::to_string(wrong) + "] is " + std::to_string(places[wrong]) +
                          ". An index must be in [0, 2^32).");
  if (number < 0 || number >= kWords)
    status.invalid("epoch is " + std::to_string(number) + ". It must be in [0, 2^32).");
}

// ---- Kernel

void compute(TF_OpKernelContext* context, Status& status) {
  const Tensor index = input(context, 0, status), sizes = input(context, 1, status),
               key = input(context, 2, status), epoch = input(context, 3, status),
               recipe = input(context, 4, status);
  check_inputs(index, sizes, key, epoch, recipe, status);
  if (!status.ok()) return;
  ViewRecipeNumbers numbers;
  std::memcpy(&numbers, recipe.data(), sizeof numbers);
  const Frames frames{static_cast<const int64_t*>(sizes.data()), sizes.dim(0)};
  if (const int64_t wrong = first_wrong_frame(frames, numbers); wrong < frames.count)
    return status.invalid(explain_frame(wrong, frames, numbers));
  const int64_t rows[] = {2 * index.dim(0)}, by_four[] = {2 * index.dim(0), 4};
  constexpr TF_DataType kTypes[] = {TF_INT32, TF_BOOL,  TF_FLOAT, TF_FLOAT, TF_FLOAT, TF_FLOAT,
                                    TF_FLOAT, TF_INT32, TF_BOOL,  TF_BOOL,  TF_FLOAT};
  Tensor made[11];
  for (int k = 0; k < 11; ++k)
    made[k] = kTypes[k] == TF_INT32 ? output(context, k, kTypes[k], by_four, status)
                                    : output(context, k, kTypes[k], rows, status);
  if (!status.ok()) return;
  const auto floats = [&made](int k) { return static_cast<float*>(made[k].data()); };
  const auto flags = [&made](int k) { return static_cast<bool*>(made[k].data()); };
  const auto whole = [&made](int k) { return static_cast<int32_t*>(made[k].data()); };
  const DrawnViewParams params = {whole(0),  flags(1), floats(2), floats(3), floats(4), floats(5),
                                  floats(6), whole(7), flags(8),  flags(9),  floats(10)};
  const int64_t* words = static_cast<const int64_t*>(key.data());
  const uint32_t seed[2] = {static_cast<uint32_t>(words[0]), static_cast<uint32_t>(words[1])};
  draw_view_params(shared_thread_pool(), index.dim(0), static_cast<const int64_t*>(index.data()), frames,
                   seed, static_cast<uint32_t>(epoch.scalar<int64_t>()), numbers, params);
}

// ---- Registration

const bool registered = [] {
  register_op(
      {"LowlevelSimclr>DrawViewParams",
       {},
       {"index: int64", "sizes: int64", "key: int64", "epoch: int64", "recipe: double"},
       {"box: int32", "flip: bool", "brightness: float", "contrast: float", "saturation: float", "hue: float",
        "brightness_shift: float", "order: int32", "clip: bool", "grey: bool", "blur_sigma: float"},
       unknown_shapes});
  register_cpu_kernel<compute>("LowlevelSimclr>DrawViewParams");
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
