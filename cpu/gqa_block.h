#pragma once

#include <vector>

#include "cpu/attention_block.h"
#include "cpu/gqa_attention.h"
#include "cpu/row_angles.h"
#include "cpu/step_slices.h"
#include "cpu/workers.h"

namespace moraine::cpu {

/// Grouped-query attention of Qwen2 and Llama (shared/spec/dense-distills.md §3).
class GqaBlock final : public AttentionBlock {
 public:
  /// Config and workers outlive this. `cache`: of keys and values, head_cache_type() of the model's projections.
  GqaBlock(const runtime::ModelConfig& config, Workers& workers, CacheType cache);

  std::unique_ptr<runtime::KvCache> make_cache() const override;
  void begin_step(const runtime::StepBatch& batch) override;
  const float* attend(int layer, const runtime::LayerWeights& weights, const float* normed) override;
  void commit() override { slices_.commit(); }

 private:
  /// to := normed·Wᵀ + bias, [rows, weight.rows].
  void project(const runtime::Matrix& weight, const std::vector<float>& bias, const float* normed, float* to);
  /// Rotates the `heads` heads of every row of x [rows, heads, head_dim].
  void rotate(float* x, int64_t heads);

  const runtime::ModelConfig& config_;
  Workers& workers_;
  CacheType cache_type_;
  GqaShape shape_;
  RowAngles angles_;
  StepSlices<HeadCache> slices_;
  FloatBuffer queries_;   // [rows, heads, head_dim]
  FloatBuffer keys_;      // [rows, kv heads, head_dim]
  FloatBuffer values_;    // [rows, kv heads, head_dim]
  FloatBuffer attended_;  // [rows, heads, head_dim]
  FloatBuffer partials_;  // of gqa_attention()
};

}  // namespace moraine::cpu
