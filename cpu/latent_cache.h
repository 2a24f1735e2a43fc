#pragma once

#include <cstdint>
#include <vector>

#include "quant/aligned_buffer.h"
#include "runtime/backend.h"

namespace moraine::cpu {

/// One sequence's latents: per token and layer kv_lora_rank normalised latent values and qk_rope_head_dim values of the
/// rotated key, f32, in pages of 64 tokens that are taken when tokens come.
class LatentCache final : public runtime::KvCache {
 public:
  static constexpr int64_t kPageTokens = 64;

  /// `width`: values per token and layer.
  LatentCache(int64_t layers, int64_t width);

  int64_t token_count() const override { return token_count_; }
  void truncate(int64_t token_count) override;
  uint64_t size_bytes() const override;

  int64_t layers() const { return layers_; }
  int64_t width() const { return width_; }
  /// Floats from one token's row to the next: width rounded up to 16, the padding zero.
  int64_t stride() const { return stride_; }

  /// Makes the pages for tokens before `token_count`. Throws quant::Error(kNotEnough) and changes nothing.
  void reserve(int64_t token_count);
  /// Row of a token with a page, whether counted yet or not.
  float* row(int64_t layer, int64_t position);
  /// First row of the page [kPageTokens, stride] with tokens kPageTokens · page_index and up.
  const float* page(int64_t layer, int64_t page_index) const;
  /// Counts the tokens before `token_count`, whose rows have been written in all layers.
  void commit(int64_t token_count);

 private:
  int64_t layers_;
  int64_t width_;
  int64_t stride_;
  int64_t token_count_ = 0;
  std::vector<quant::AlignedBuffer> pages_;  // each [layers, kPageTokens, stride]
};

}  // namespace moraine::cpu
