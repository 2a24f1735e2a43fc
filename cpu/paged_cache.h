#pragma once

#include <cstdint>
#include <vector>

#include "quant/aligned_buffer.h"
#include "runtime/backend.h"

namespace moraine::cpu {

/// How a cache holds its numbers. bf16 takes half the memory and is what AMX multiplies.
enum class CacheType { kF32, kBf16 };

/// A sequence's cache in pages of 64 tokens that are taken when tokens come; what a page holds is its heirs' concern.
class PagedCache : public runtime::KvCache {
 public:
  static constexpr int64_t kPageTokens = 64;

  int64_t token_count() const override { return token_count_; }
  void truncate(int64_t token_count) override;
  uint64_t size_bytes() const override;

  /// Makes the pages for tokens before `token_count`. Throws quant::Error(kNotEnough) and changes nothing.
  void reserve(int64_t token_count);
  /// Counts the tokens before `token_count`, which have been written in all layers.
  void commit(int64_t token_count);

 protected:
  explicit PagedCache(int64_t page_bytes) : page_bytes_(page_bytes) {}

  /// The page with tokens kPageTokens · page_index and up, which has been made.
  std::byte* page(int64_t page_index);
  const std::byte* page(int64_t page_index) const;

 private:
  int64_t page_bytes_;
  int64_t token_count_ = 0;
  std::vector<quant::AlignedBuffer> pages_;
};

}  // namespace moraine::cpu
