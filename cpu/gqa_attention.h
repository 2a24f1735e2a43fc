#pragma once

#include <cstdint>
#include <span>

#include "cpu/head_cache.h"
#include "cpu/workers.h"
#include "quant/dtype.h"

namespace moraine::cpu {

/// The dimensions of grouped-query attention, named as in config.json. Query head j uses kv head j / group().
struct GqaShape {
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  float softmax_scale = 0.0f;

  int64_t group() const { return num_attention_heads / num_key_value_heads; }
};

/// How keys and values are cached that come from projections of these formats (those of all layers): bf16 if all are
/// block formats, whose matrix products are rounded anyway, unless everything is to be precise.
CacheType head_cache_type(std::span<const quant::DType> projection_types, bool precise);

/// Rows of one sequence: batch rows [first_row, +row_count) at positions first_position and up, whose keys and values
/// (and all earlier ones) are in the cache's pages.
struct GqaSlice {
  const HeadCache* cache = nullptr;
  int64_t first_position = 0;
  int64_t first_row = 0;
  int64_t row_count = 0;
};

/// Causal attention of every slice over its own cache: an online softmax over blocks of cached tokens, so memory does
/// not grow with a prompt's context. The context is cut into spans of kGqaSpanTokens, merged in ascending order; few
/// rows have their spans computed side by side, and `partials` then holds what they gave. A page of a kv head is read
/// once for all of its query heads and up to 512 of their rows. Each (row, head) is computed by fixed chains of
/// operations: slices, threads and their division into tasks change no bit. Over a bf16 cache, queries, keys, weights
/// and values are rounded to bf16. q [rows, heads, head_dim] rotated, out [rows, heads, head_dim].
void gqa_attention(Workers& workers, const GqaShape& shape, int64_t layer, std::span<const GqaSlice> slices,
                   FloatBuffer& partials, const float* q, float* out);

}  // namespace moraine::cpu
