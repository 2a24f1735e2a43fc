#pragma once

#include <cstdint>

#include "cpu/flash_bf16.h"
#include "cpu/flash_block.h"
#include "cpu/head_cache.h"
#include "cpu/workers.h"

namespace moraine::cpu {

/// The context is taken in spans of so many positions, each with a softmax of its own, which are then merged in
/// ascending order. So spans can be computed side by side, and who computes them changes no bit.
constexpr int64_t kGqaSpanTokens = 1024;
static_assert(kGqaSpanTokens % kFlashTokens == 0);

/// Query rows that share a kv head: for each of `row_count` tokens its `group` heads, the token at first_position
/// first.
struct GqaQueries {
  int64_t row_count = 0;
  int64_t group = 0;
  int64_t first_position = 0;
  float scale = 1.0f;
  const float* q = nullptr;  // [row_count, group, head_dim], rows row_stride apart
  int64_t row_stride = 0;

  int64_t count() const { return row_count * group; }
  int64_t position(int64_t i) const { return first_position + i / group; }
};

/// The queries over a kv head of an f32 cache. Lives in a worker's scratch.
class GqaF32Rows {
 public:
  GqaF32Rows(const KernelTable& kernels, WorkerScratch& scratch, const HeadCache& cache, const GqaQueries& queries);

  /// Computes the rows' attention over positions first … end − 1 of layer and kv head, and nothing else. `first` is a
  /// multiple of kGqaSpanTokens.
  void run(int64_t layer, int64_t kv_head, int64_t first, int64_t end);
  /// What the latest run() gave row i, which saw one of the positions at least: its softmax and Σ weight · value,
  /// [value_stride].
  SoftmaxState softmax(int64_t i) const { return rows_.softmax[i]; }
  const float* mixed(int64_t i) const { return rows_.mixed + i * rows_.value_width; }

 private:
  const KernelTable& kernels_;
  const HeadCache& cache_;
  FlashRows rows_;
};

/// The same over a bf16 cache: queries, keys, weights and values are bf16, sums f32.
class GqaBf16Rows {
 public:
  GqaBf16Rows(const KernelTable& kernels, WorkerScratch& scratch, const HeadCache& cache, const GqaQueries& queries);

  void run(int64_t layer, int64_t kv_head, int64_t first, int64_t end);
  SoftmaxState softmax(int64_t i) const { return rows_.softmax(i); }
  const float* mixed(int64_t i) const { return rows_.mixed(i); }

 private:
  void prefetch(int64_t layer, int64_t kv_head, int64_t position) const;

  const HeadCache& cache_;
  FlashBf16 rows_;
};

}  // namespace moraine::cpu
