// LARS on the CPU: how a variable is cut into pieces, the order in which their sums are added, and the trust ratio r
// (lars_update.h). The passes over memory are in lars_update_tiles.cc.
#include <algorithm>
#include <cmath>

#include "../runtime/instruction_set.h"
#include "../runtime/rounding.h"
#include "lars_update.h"
#include "lars_update_tiles.h"

namespace lowlevel_simclr {
namespace {

// The size of a piece, in floats. It decides the order of additions, so it must not depend on the number of threads.
constexpr int64_t kPiece = 1 << 15;

// If a variable has more than this many floats, its results are stored directly to memory, past the caches. In the
// caches they would be useless, because no part of them would still be there one step later.
constexpr int64_t kStreamed = 1 << 17;

const LarsTiles& tiles() { LOWLEVEL_SIMCLR_RETURN_TILES(lars_tiles); }

int64_t pieces(int64_t count) { return divide_up(count, kPiece); }

bool streams(int64_t count, const float* new_weight, const float* new_velocity) {
  const auto both = reinterpret_cast<uintptr_t>(new_weight) | reinterpret_cast<uintptr_t>(new_velocity);
  return count > kStreamed && both % kLarsAlignment == 0;
}

double trust_ratio(const LarsSums& squares, float coefficient) {
  const bool absent = squares.weight == 0 || squares.update == 0;
  return absent ? 1.0 : coefficient * std::sqrt(squares.weight) / std::sqrt(squares.update);
}

template <typename Gradient>
void update(const ParallelFor& parallel, int64_t count, const LarsChoices& choices,
            const LarsPasses<Gradient>& passes, const float* weight, const Gradient* gradient,
            const float* velocity, double* partial_sums, float* new_weight, float* new_velocity) {
  const float decay = choices.adapts ? choices.weight_decay : 0.0f;
  const auto length = [&](int64_t piece) { return std::min(kPiece, count - piece * kPiece); };
  double ratio = 1.0;
  if (choices.adapts) {
    auto add = [&](int64_t piece) {
      const int64_t at = piece * kPiece;
      const LarsSums found = passes.sums(weight + at, gradient + at, length(piece), decay);
      partial_sums[2 * piece] = found.weight;
      partial_sums[2 * piece + 1] = found.update;
    };
    run_parallel(parallel, pieces(count), add);
    LarsSums whole = {0, 0};
    for (int64_t piece = 0; piece < pieces(count); ++piece) {
      whole.weight += partial_sums[2 * piece];
      whole.update += partial_sums[2 * piece + 1];
    }
    ratio = trust_ratio(whole, choices.trust_coefficient);
  }
  const float scale = static_cast<float>(choices.learning_rate * ratio);
  const auto pass = streams(count, new_weight, new_velocity) ? passes.move_streamed : passes.move;
  // Goes backwards through the pieces, because the last ones are still in the caches after the first pass.
  auto move = [&](int64_t turn) {
    const int64_t piece = pieces(count) - 1 - turn, at = piece * kPiece;
    pass(weight + at, gradient + at, velocity + at, length(piece), decay, choices.momentum, scale,
         new_weight + at, new_velocity + at);
  };
  run_parallel(parallel, pieces(count), move);
}

}  // namespace

int64_t lars_update_partial_sums(int64_t count) { return 2 * pieces(count); }

void lars_update(const ParallelFor& parallel, int64_t count, const LarsChoices& choices, const float* weight,
                 const void* gradient, DataType of_gradient, const float* velocity, double* partial_sums,
                 float* new_weight, float* new_velocity) {
  const auto run = [&](const auto& passes, auto typed) {
    update(parallel, count, choices, passes, weight, typed, velocity, partial_sums, new_weight, new_velocity);
  };
  if (of_gradient == DataType::kBfloat16) {
    run(tiles().of_bfloat16, static_cast<const uint16_t*>(gradient));
  } else {
    run(tiles().of_float, static_cast<const float*>(gradient));
  }
}

}  // namespace lowlevel_simclr
