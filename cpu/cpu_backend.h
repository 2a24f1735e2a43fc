#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cpu/attention_block.h"
#include "cpu/isa.h"
#include "cpu/latent_cache.h"
#include "cpu/workers.h"
#include "runtime/backend.h"
#include "runtime/model.h"

namespace moraine::cpu {

struct CpuOptions {
  int threads = 0;             ///< 0: as many as cores this process may use
  bool reference = false;      ///< compute with the scalar kernels, the definition of the others
  bool precise = false;        ///< f32 activations for matrices in block formats, instead of int8
  std::vector<int> cpus = {};  ///< [threads] where the threads run; empty: where the system wants
  int32_t max_rows = 2048;     ///< largest number of rows in a step: more rows share one read of an expert
};

/// How the backend caches latents (mla_attention.h) or keys and values (gqa_attention.h) of a model, or of its shape
/// alone.
CacheType cache_type(const runtime::Model& model, bool precise);

/// Both ports on the CPU. Activations are f32; a matrix in a block format (Q8_0, Q4_0, Q4_K) is multiplied with
/// activations rounded to int8 unless options.precise is set; where kv_b_proj, or q, k and v_proj, are in one,
/// attention is in bf16 (mla_attention.h, gqa_attention.h). Every result is the same bits for any number of threads,
/// any instruction set and any company in the batch (cpu/kernels.h says what is computed in which order). Calls
/// complete before they return. Buffers grow to the largest step seen.
class CpuBackend final : public runtime::DenseBackend, public runtime::ExpertBackend {
 public:
  CpuBackend(std::shared_ptr<const runtime::Model> model, const CpuOptions& options);

  const char* isa_name() const { return workers_.kernels().name; }
  int threads() const { return workers_.threads(); }

  std::unique_ptr<runtime::KvCache> make_cache() override;
  int32_t max_rows() const override { return max_rows_; }
  /// Takes the pages for the batch's tokens. Throws quant::Error(kNotEnough) if the memory can't be had.
  void begin_step(const runtime::StepBatch& batch) override;
  void attention(int layer) override;
  void dense_ffn(int layer) override;
  void route(int layer, std::span<float> normed, std::span<float> logits) override;
  void predict_route(int layer, std::span<const float> routed, std::span<float> logits) override;
  void shared_expert(int layer) override;
  void combine(int layer, std::span<const float> routed) override;
  void head(std::span<const int32_t> rows, std::span<float> logits) override;
  void read_hidden(std::span<float> hidden) override;

  void begin_experts(std::span<const float> normed, int32_t row_count, const quant::ExpertLayout& layout,
                     int32_t slots_per_row) override;
  void compute_expert(std::span<const std::byte> record, std::span<const runtime::ExpertUse> uses) override;
  void compute_experts(std::span<const offload::ExpertLease> leases,
                       std::span<const std::span<const runtime::ExpertUse>> uses) override;
  void sum_so_far(std::span<float> sum) override;
  void finish_experts(std::span<float> routed) override;

 private:
  const runtime::LayerWeights& layer_weights(int layer) const;
  void embed(std::span<const int32_t> token_ids);
  /// to := RMSNorm(from), both [row_count, hidden].
  void norm(const float* from, std::span<const float> weight, int64_t row_count, float* to);
  /// out := FFN(normed), both [rows, hidden].
  void run_dense(const runtime::FfnWeights& ffn, const float* normed, float* out);
  void add_to_hidden(const float* delta);
  /// One expert's record with its uses, for compute_records().
  struct ExpertWork {
    const std::byte* record = nullptr;
    std::span<const runtime::ExpertUse> uses;
  };
  void compute_records(std::span<const ExpertWork> work);

  std::shared_ptr<const runtime::Model> model_;
  int32_t max_rows_;
  Workers workers_;
  std::unique_ptr<AttentionBlock> attention_;

  int64_t rows_ = 0;
  FloatBuffer hidden_;  // [rows, hidden] the residual stream x
  FloatBuffer normed_;  // [rows, hidden] what an RMSNorm of x gave; from route() on the layer's h
  FloatBuffer delta_;   // [rows, hidden] what is added to x
  FloatBuffer shared_;  // [rows, hidden] shared experts, until combine()
  FloatBuffer inner_;   // [rows, intermediate]

  quant::ExpertLayout layout_;
  int64_t expert_rows_ = 0;
  int64_t slots_per_row_ = 0;
  FloatBuffer expert_input_;          // [rows, hidden]
  FloatBuffer expert_inner_;          // [uses, moe_intermediate]
  FloatBuffer expert_output_;         // [rows, slots, hidden]
  std::vector<char> slot_filled_;     // [rows, slots]
  std::vector<int32_t> use_rows_;     // [uses] row of the input
  std::vector<int64_t> use_outputs_;  // [uses] row × slots + slot
  std::vector<float> use_weights_;    // [uses]
};

}  // namespace moraine::cpu
