#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace moraine::quant {

/// Owned bytes whose address is a multiple of `kAlignment`: enough for O_DIRECT reads and every SIMD load. Zeroed. From
/// 2 MiB on in huge pages where the system has them (huge_pages.h), and then untouched until it is used.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  /// Throws quant::Error(kNotEnough) with the size if the memory can't be had.
  explicit AlignedBuffer(uint64_t size_bytes);

  std::byte* data() { return bytes_.get(); }
  const std::byte* data() const { return bytes_.get(); }
  size_t size() const { return size_bytes_; }
  std::span<std::byte> span() { return {data(), size()}; }
  std::span<const std::byte> span() const { return {data(), size()}; }

 private:
  struct Free {
    size_t size_bytes;
    void operator()(std::byte* bytes) const;
  };
  std::unique_ptr<std::byte[], Free> bytes_;
  size_t size_bytes_ = 0;
};

}  // namespace moraine::quant
