// LOWLEVEL_SHUFFLE(low, high, mask) is a vector of lanes from `low` and `high`. `mask` names a lane for each place:
// with n lanes, the numbers 0 to n - 1 mean the lanes of `low`, and n to 2 n - 1 those of `high`. Clang has no function
// for a mask that is a vector, so a loop does the same. Clang is only used for sanitizers and fuzzing.
#pragma once

#if defined(__clang__)
#define LOWLEVEL_SHUFFLE(low, high, mask)                                                                 \
  ({                                                                                                      \
    const auto low_ = (low), high_ = (high);                                                              \
    const auto mask_ = (mask);                                                                            \
    auto chosen_ = low_;                                                                                  \
    constexpr int kCount_ = sizeof low_ / sizeof low_[0];                                                 \
    for (int i_ = 0; i_ < kCount_; ++i_)                                                                  \
      chosen_[i_] = static_cast<int>(mask_[i_]) < kCount_ ? low_[mask_[i_]] : high_[mask_[i_] - kCount_]; \
    chosen_;                                                                                              \
  })
#else
#define LOWLEVEL_SHUFFLE(low, high, mask) __builtin_shuffle(low, high, mask)
#endif
