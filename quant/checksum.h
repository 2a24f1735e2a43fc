#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace moraine::quant {

/// XXH3-64 (seed 0) of the bytes.
uint64_t checksum(std::span<const std::byte> bytes);

/// XXH3-64 of bytes that come in pieces: equal to checksum() of their concatenation.
class ChecksumStream {
 public:
  ChecksumStream();
  ~ChecksumStream();
  ChecksumStream(ChecksumStream&&) noexcept;
  ChecksumStream& operator=(ChecksumStream&&) noexcept;

  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 16 lower-case hexadecimal digits.
std::string checksum_text(uint64_t value);

}  // namespace moraine::quant
