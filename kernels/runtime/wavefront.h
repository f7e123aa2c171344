// Steps with an order: the schedule of kernels that accumulate into shared groups of rows without atomics.
//
// Each step uses one or two groups of rows, alone. The steps of a group run in the order in which they were
// added, whichever threads run them, so what is accumulated into a group is added in one fixed order: the
// result does not depend on the number of threads.
//
// Threads take steps in the order of the list and wait until the groups of their step are free. The step that
// was taken first among the unfinished ones never waits, hence no deadlock, in whatever order the bodies of
// the ParallelFor start.
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
  int64_t first, second;            // groups; second == first where a step uses one group only
  int64_t first_turn, second_turn;  // how many steps of that group come before
};

class Wavefront {
 public:
  explicit Wavefront(int64_t groups) : turns_(groups, 0), finished_(new std::atomic<int64_t>[groups]) {
    for (int64_t g = 0; g < groups; ++g) finished_[g].store(0, std::memory_order_relaxed);
  }

  void add(int kind, int64_t group) {
    steps_.push_back({kind, group, group, turns_[group], turns_[group]});
    ++turns_[group];
  }

  void add(int kind, int64_t first, int64_t second) {
    steps_.push_back({kind, first, second, turns_[first]++, turns_[second]++});
  }

  // One step for each pair of groups, in the rounds of a tournament: the pairs of a round share no group.
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

  // Runs body(step, worker) for every step; worker < workers numbers the threads for their scratch memory.
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
  static constexpr int kSpins = 2000;  // some microseconds: less than a sleep and a wake cost

  void await(int64_t group, int64_t turn) const {
    for (int spins = 0; finished_[group].load(std::memory_order_acquire) != turn; ++spins) {
      if (spins > kSpins) sched_yield();
#if defined(__x86_64__)
      else
        __builtin_ia32_pause();
#endif
    }
  }

  std::vector<Step> steps_;
  std::vector<int64_t> turns_;
  std::unique_ptr<std::atomic<int64_t>[]> finished_;
};

}  // namespace lowlevel_simclr
