#pragma once

#include <vector>

#include "cpu/attention_block.h"
#include "cpu/mla_attention.h"
#include "cpu/row_angles.h"
#include "cpu/step_slices.h"
#include "cpu/workers.h"

namespace moraine::cpu {

/// Multi-head latent attention (shared/spec/deepseek-v3.md §3.1, §3.2).
class MlaBlock final : public AttentionBlock {
 public:
  /// Config and workers outlive this. `latents`: of the caches, latent_type() of the model's kv_b_proj.
  MlaBlock(const runtime::ModelConfig& config, Workers& workers, CacheType latents);

  std::unique_ptr<runtime::KvCache> make_cache() const override;
  void begin_step(const runtime::StepBatch& batch) override;
  const float* attend(int layer, const runtime::LayerWeights& weights, const float* normed) override;
  void commit() override { slices_.commit(); }

 private:
  void project_queries(const runtime::LayerWeights& weights, const float* normed);
  void append_latents(int layer, const runtime::LayerWeights& weights, const float* normed);

  const runtime::ModelConfig& config_;
  Workers& workers_;
  CacheType latents_type_;
  MlaShape shape_;
  RowAngles angles_;
  StepSlices<LatentCache> slices_;
  FloatBuffer query_latents_;  // [rows, q_lora_rank]
  FloatBuffer queries_;        // [rows, heads, nope | rope]
  FloatBuffer latents_;        // [rows, kv_lora_rank | rope]
  FloatBuffer attended_;       // [rows, heads, v]
};

}  // namespace moraine::cpu
