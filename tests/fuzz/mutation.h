#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

// libFuzzer's own mutation: bytes, words of the dictionary, what comparisons looked for.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t n_bytes, size_t max_bytes);

namespace moraine::fuzz {

using Random = std::minstd_rand;

/// A number below `count`, which is not 0.
inline size_t pick(Random& random, size_t count) {
  return static_cast<size_t>(random()) % count;
}

/// Numbers at which sizes, counts and products turn: around 0, the widths of types, what a size times 4 or 34 wraps at.
constexpr std::array<uint64_t, 26> kTurningPoints = {0,
                                                     1,
                                                     2,
                                                     3,
                                                     4,
                                                     31,
                                                     32,
                                                     33,
                                                     255,
                                                     256,
                                                     257,
                                                     4096,
                                                     65535,
                                                     65536,
                                                     1u << 20,
                                                     1u << 30,
                                                     1u << 31,
                                                     0xFFFFFFFF,
                                                     1ull << 32,
                                                     1ull << 48,
                                                     0x3FFFFFFFFFFFFFFF,
                                                     1ull << 62,
                                                     0x7FFFFFFFFFFFFFFF,
                                                     1ull << 63,
                                                     0xFFFFFFFFFFFFFFE0,
                                                     0xFFFFFFFFFFFFFFFF};

/// libFuzzer's mutation of a text that stands inside an input; at most `more_bytes` longer.
inline void mutate_bytes(std::string& text, size_t more_bytes) {
  const size_t n_bytes = text.size();
  text.resize(n_bytes + more_bytes);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), n_bytes, text.size()));
}

/// Gives libFuzzer `input` as the new content of `data`; what is too long is mutated as bytes instead.
inline size_t hand_over(const std::string& input, uint8_t* data, size_t n_bytes, size_t max_bytes) {
  if (input.size() > max_bytes || input.empty()) return LLVMFuzzerMutate(data, n_bytes, max_bytes);
  std::memcpy(data, input.data(), input.size());
  return input.size();
}

}  // namespace moraine::fuzz
