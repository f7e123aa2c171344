// LOWLEVEL_SHUFFLE(low, high, mask): a vector with the lanes of low and high that mask names. The lanes of high count
// from the number of lanes on. Clang has no function for a mask that is a vector, and is only used to look for faults.
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
