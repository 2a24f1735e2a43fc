#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "quant/aligned_buffer.h"
#include "runtime/backend.h"

namespace moraine::cpu {

/// How a cache holds its numbers. bf16 takes half the memory and is what AMX multiplies.
enum class LatentType { kF32, kBf16 };

/// Numbers from one cached token's row to the next for `width` values: padded with zeros to what the products take at a
/// time.
int64_t latent_stride(LatentType type, int64_t width);
/// Bytes of a cached token in one layer.
int64_t latent_row_bytes(LatentType type, int64_t width);

/// One sequence's latents: per token and layer kv_lora_rank normalised latent values and qk_rope_head_dim values of the
/// rotated key, in pages of 64 tokens that are taken when tokens come.
class LatentCache final : public runtime::KvCache {
 public:
  static constexpr int64_t kPageTokens = 64;

  /// `width`: values per token and layer.
  LatentCache(int64_t layers, int64_t width, LatentType type);

  int64_t token_count() const override { return token_count_; }
  void truncate(int64_t token_count) override;
  uint64_t size_bytes() const override;

  int64_t layers() const { return layers_; }
  int64_t width() const { return width_; }
  LatentType type() const { return type_; }
  /// Numbers from one token's row to the next, the padding zero.
  int64_t stride() const { return stride_; }

  /// Makes the pages for tokens before `token_count`. Throws quant::Error(kNotEnough) and changes nothing.
  void reserve(int64_t token_count);
  /// Writes the row of a token with a page, whether counted yet or not: `width` values, rounded if the cache is bf16.
  void write(const KernelTable& kernels, int64_t layer, int64_t position, const float* values);
  /// First row of the page [kPageTokens, stride] with tokens kPageTokens · page_index and up. One for each type.
  const float* f32_page(int64_t layer, int64_t page_index) const;
  const Bf16* bf16_page(int64_t layer, int64_t page_index) const;
  /// Counts the tokens before `token_count`, whose rows have been written in all layers.
  void commit(int64_t token_count);

 private:
  std::byte* row(int64_t layer, int64_t position);
  const std::byte* page(LatentType type, int64_t layer, int64_t page_index) const;

  int64_t layers_;
  int64_t width_;
  LatentType type_;
  int64_t stride_;
  int64_t row_bytes_;
  int64_t token_count_ = 0;
  std::vector<quant::AlignedBuffer> pages_;  // each [layers, kPageTokens, stride]
};

}  // namespace moraine::cpu
