#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace moraine::quant {

/// SHA-256 (FIPS 180-4) of bytes that come in pieces: what publishers state of their files. Our own files have the
/// faster ChecksumStream.
class Sha256 {
 public:
  /// `use_instructions`: with the processor's SHA instructions where it has them. The digest is the same.
  explicit Sha256(bool use_instructions = true);

  void update(std::span<const std::byte> bytes);
  /// 64 lower-case hexadecimal digits. Nothing may follow.
  std::string hex_digest();

 private:
  static constexpr size_t kBlockBytes = 64;

  void add_blocks(const std::byte* blocks, size_t count);

  std::array<uint32_t, 8> state_;
  std::array<std::byte, kBlockBytes> rest_{};  // bytes that fill no block yet
  uint64_t total_bytes_ = 0;
  bool use_instructions_;
};

}  // namespace moraine::quant
