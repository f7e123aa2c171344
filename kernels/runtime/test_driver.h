// Functions for test drivers. A test driver is a program that runs an op without TensorFlow. It checks the op with
// random inputs (cases) for some seconds, or with inputs that a fuzzer chooses.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <thread>

namespace lowlevel_simclr {

// Checks random cases in two threads. The arguments of the program are the number of seconds and the seed. Returns the
// exit code.
template <std::size_t kWords>
int check_random_cases(int count, char** arguments, bool (*check)(const std::array<unsigned, kWords>&)) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 10;
  const unsigned seed = count > 2 ? static_cast<unsigned>(std::atoi(arguments[2])) : 0;
  const std::time_t end = std::time(nullptr) + static_cast<std::time_t>(seconds);
  std::atomic<long> cases{0}, wrong{0};
  const auto work = [&](unsigned number) {
    std::mt19937 random(seed * 2 + number);
    do {
      std::array<unsigned, kWords> words;
      for (unsigned& word : words) word = static_cast<unsigned>(random());
      if (!check(words)) ++wrong;
      ++cases;
    } while (std::time(nullptr) < end);
  };
  std::thread other(work, 1u);
  work(0);
  other.join();
  std::printf("%ld cases, %ld wrong\n", cases.load(), wrong.load());
  return wrong > 0 ? 1 : 0;
}

// Checks the case that a fuzzer chose. If it gave too few bytes, the others count as zero. The process ends if the
// result is wrong.
template <std::size_t kWords>
void check_chosen_case(const uint8_t* data, std::size_t size,
                       bool (*check)(const std::array<unsigned, kWords>&)) {
  std::array<unsigned, kWords> words{};
  std::memcpy(words.data(), data, size < sizeof words ? size : sizeof words);
  if (!check(words)) std::abort();
}

}  // namespace lowlevel_simclr
