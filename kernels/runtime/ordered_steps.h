// OrderedSteps runs steps on several threads. A step is a piece of work on one or two groups of rows. The steps of a
// group run in the order in which they were added, and never two of them at the same time. So the threads of a kernel
// can add to rows that they share, without atomics.
//
// Guarantees:
// - Order. Of two steps that use the same group, the one that was added first ends before the other one begins. The
//   second step sees what the first one wrote.
// - Same result. Because of this order, the terms are always added to the sums of a group in the same order. The result
//   does not depend on the number of threads, on their speed, or on the order in which the ParallelFor starts calls.
// - No deadlock. The threads take the steps in the order in which they were added, and a step waits only for steps that
//   were added before it. Look at the first step that has not ended. All steps before it have ended, so it waits for
//   nothing. If a thread has taken it, that thread is running it. If no thread has taken it, then no thread has taken a
//   later step either, so no thread waits. Hence some thread always makes progress, even if there is only one.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "parallel_for.h"

namespace lowlevel_simclr {

struct Step {
  int kind;
  int64_t first, second;            // groups; second == first if the step uses only one group
  int64_t first_turn, second_turn;  // for each of the two groups, how many earlier steps use it
};

class OrderedSteps {
 public:
  explicit OrderedSteps(int64_t groups) : turns_(groups, 0), finished_(new std::atomic<int64_t>[groups]) {
    for (int64_t g = 0; g < groups; ++g) finished_[g].store(0, std::memory_order_relaxed);
  }

  void add(int kind, int64_t group) {
    steps_.push_back({kind, group, group, turns_[group], turns_[group]});
    ++turns_[group];
  }

  void add(int kind, int64_t first, int64_t second) {
    steps_.push_back({kind, first, second, turns_[first]++, turns_[second]++});
  }

  // Adds one step for each pair of groups. The pairs have the order of the games of a tournament: the pairs of one
  // round share no group, so their steps can run at the same time.
  void add_all_pairs(int kind) {
    const int64_t groups = static_cast<int64_t>(turns_.size());
    const int64_t players = groups + groups % 2, circle = players - 1;
    for (int64_t round = 0; round < circle; ++round) {
      for (int64_t seat = 0; seat < players / 2; ++seat) {
        const int64_t a = seat == 0 ? circle : (round + seat) % circle;
        const int64_t b = (round - seat + circle) % circle;
        if (std::max(a, b) < groups) add(kind, std::min(a, b), std::max(a, b));
      }
    }
  }

  // Calls body(step, worker) once for every step. `worker` is the number of the thread that runs the step, from 0 to
  // `workers` - 1. It lets each thread use its own scratch memory. Call `run` only once for each object.
  template <typename Body>
  void run(const ParallelFor& parallel, int64_t workers, Body& body) {
    std::atomic<int64_t> next{0};
    auto work = [&](int64_t worker) {
      const int64_t count = static_cast<int64_t>(steps_.size());
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
        const Step& step = steps_[i];
        await(step.first, step.first_turn);
        await(step.second, step.second_turn);
        body(step, worker);
        finished_[step.first].store(step.first_turn + 1, std::memory_order_release);
        if (step.second != step.first)
          finished_[step.second].store(step.second_turn + 1, std::memory_order_release);
      }
    };
    run_parallel(parallel, workers, work);
  }

 private:
  static constexpr int kSpins = 2000;  // take a few microseconds, less than to sleep and wake up

  // Waits until `turn` steps that use the group have ended.
  void await(int64_t group, int64_t turn) const {
    for (int spins = 0; finished_[group].load(std::memory_order_acquire) != turn; ++spins) {
      if (spins > kSpins) sched_yield();
#if defined(__x86_64__)
      else
        __builtin_ia32_pause();
#elif defined(__aarch64__)
      else
        __asm__ volatile("yield");
#endif
    }
  }

  std::vector<Step> steps_;
  std::vector<int64_t> turns_;
  std::unique_ptr<std::atomic<int64_t>[]> finished_;
};

}  // namespace lowlevel_simclr
