#pragma once

#include <cstdint>
#include <span>

#include "cpu/latent_cache.h"
#include "cpu/workers.h"
#include "quant/packed_matrix.h"

namespace moraine::cpu {

/// The dimensions of multi-head latent attention, named as in config.json.
struct MlaShape {
  int64_t num_attention_heads = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t kv_lora_rank = 0;
  float softmax_scale = 0.0f;

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  /// Rows of kv_b_proj per head: k_nope | v.
  int64_t kv_head_rows() const { return qk_nope_head_dim + v_head_dim; }
};

/// The two forms of the same attention (shared/spec/deepseek-v3.md §3.1 and §3.2).
enum class MlaForm {
  kAbsorbed,  ///< queries brought into latent space: cheap for few rows
  kExpanded,  ///< keys and values of the cached tokens computed from their latents: cheap for many rows
};

/// The form with fewer multiply-adds per cached token for a slice of `row_count` rows; in bf16 the absorbed form must
/// have half as many, because bringing rows into and out of latent space costs as much as hundreds of cached tokens
/// (docs/kernels.md). Depends on nothing else, so that a row's result does not depend on the other sequences of a batch
/// or on the threads.
MlaForm cheaper_form(const MlaShape& shape, int64_t row_count, CacheType type);

/// How the latents are cached that attention with kv_b_proj of these formats (one per layer) reads: bf16 if all are
/// block formats that bf16 attention takes, whose matrix products are rounded anyway, unless everything is to be
/// precise.
CacheType latent_type(std::span<const quant::DType> kv_b_proj_types, bool precise);

/// Rows of one sequence: batch rows [first_row, +row_count) at positions first_position and up, whose latents (and all
/// earlier ones) are in the cache's pages.
struct MlaSlice {
  const LatentCache* cache = nullptr;
  int64_t first_position = 0;
  int64_t first_row = 0;
  int64_t row_count = 0;
  MlaForm form = MlaForm::kAbsorbed;
};

/// Causal attention of every slice over its own cache, an online softmax (Milakov and Gimelshein, 2018; Dao et al.,
/// "FlashAttention", 2022) over pages of 64 cached tokens, so memory does not grow with the context. Each (row, head)
/// is computed by fixed chains of operations: slices, threads and their division into tasks change no bit. Over a bf16
/// cache, kv_b_proj must be in a block format, and queries, keys, weights and values are rounded to bf16. kv_b_proj:
/// [heads × (nope | v), kv_lora_rank]. q [rows, heads, nope | rotated rope], out [rows, heads, v].
void mla_attention(Workers& workers, const MlaShape& shape, const quant::PackedView& kv_b_proj, int64_t layer,
                   std::span<const MlaSlice> slices, const float* q, float* out);

}  // namespace moraine::cpu
