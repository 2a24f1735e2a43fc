#pragma once

#include <algorithm>

#include "fuzz/json_mutator.h"

namespace moraine::fuzz {

/// The largest number in a header: where its last tensor ends.
inline uint64_t largest_number(std::string_view header) {
  uint64_t largest = 0, number = 0;
  for (const char letter : header) {
    const bool is_digit = letter >= '0' && letter <= '9';
    number = is_digit ? 10 * number + static_cast<uint64_t>(letter - '0') : 0;
    largest = std::max(largest, number);
  }
  return largest;
}

/// The mutation of an input that is a safetensors file, or nearly one: its header is changed as JSON, and mostly the
/// header's length and the bytes behind it follow.
inline size_t mutate_safetensors_input(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  constexpr size_t kLengthBytes = 8, kMostDataBytes = 1024;
  Random random(seed);
  uint64_t header_bytes = 0;
  if (n_bytes >= kLengthBytes) std::memcpy(&header_bytes, data, kLengthBytes);
  if (n_bytes < kLengthBytes || header_bytes > n_bytes - kLengthBytes || pick(random, 4) == 0) {
    return LLVMFuzzerMutate(data, n_bytes, max_bytes);
  }
  const std::string file(reinterpret_cast<const char*>(data), n_bytes);
  std::string header = file.substr(kLengthBytes, header_bytes);
  std::string tensors = file.substr(kLengthBytes + header_bytes);
  mutate_json(header, random);
  if (const uint64_t end = largest_number(header); end <= kMostDataBytes && pick(random, 2) == 0) tensors.resize(end);
  header_bytes = pick(random, 8) == 0 ? kTurningPoints[pick(random, kTurningPoints.size())] : header.size();
  const std::string length(reinterpret_cast<const char*>(&header_bytes), kLengthBytes);
  return hand_over(length + header + tensors, data, n_bytes, max_bytes);
}

}  // namespace moraine::fuzz
