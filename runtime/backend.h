#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "offload/expert_store.h"
#include "quant/expert_pack.h"

namespace moraine::runtime {

/// What attention keeps of one sequence, in the memory of the backend that made it. Pages are taken as tokens come.
class KvCache {
 public:
  virtual ~KvCache() = default;
  /// Tokens held, the same in every layer between steps.
  virtual int64_t token_count() const = 0;
  /// Forgets every token from `token_count` on.
  virtual void truncate(int64_t token_count) = 0;
  virtual uint64_t size_bytes() const = 0;
};

/// The tokens that one sequence has in a step: rows [first_row, first_row + row_count) of the batch, at positions
/// first_position, first_position + 1, … of the sequence. first_position equals the cache's token_count() at the start.
struct SequenceSlice {
  KvCache* cache = nullptr;
  int64_t first_position = 0;
  int32_t first_row = 0;
  int32_t row_count = 0;
};

/// One step's work: prefill chunks and single tokens of any number of sequences. Rows are computed as if alone: what
/// else is in the batch changes no bit of a row's result.
struct StepBatch {
  std::span<const int32_t> token_ids;     // [rows]
  std::span<const SequenceSlice> slices;  // in row order, covering all rows
};

/// The dense part of the model on one device. Asynchronous by contract: a call enqueues work in order and may return
/// before it is done; calls with an output span wait for that output alone. Spans are host memory and are copied before
/// the call returns (inputs) or when it returns (outputs). The backend holds one residual stream x [rows, hidden] per
/// step.
class DenseBackend {
 public:
  virtual ~DenseBackend() = default;

  virtual std::unique_ptr<KvCache> make_cache() = 0;
  /// Largest number of rows a step may have.
  virtual int32_t max_rows() const = 0;

  /// x := embedding of the tokens.
  virtual void begin_step(const StepBatch& batch) = 0;
  /// x += Attention(RMSNorm(x, input_layernorm)); appends to the caches.
  virtual void attention(int layer) = 0;
  /// x += FFN(RMSNorm(x, post_attention_layernorm)) of a dense layer.
  virtual void dense_ffn(int layer) = 0;
  /// h := RMSNorm(x, post_attention_layernorm) of a MoE layer, and its router's logits; of a dense layer whose FFN is
  /// streamed, h alone. Waits for both.
  virtual void route(int layer, std::span<float> normed /* [rows, hidden] */,
                     std::span<float> logits /* [rows, n_routed_experts] */) = 0;
  /// The router of `layer`, a later MoE layer, applied early to the batch's last row: to the present x, or, if `routed`
  /// is not empty, to what combine() would make of x with it. Waits.
  virtual void predict_route(int layer, std::span<const float> routed /* [hidden], or empty */,
                             std::span<float> logits /* [n_routed_experts] */) = 0;
  /// Computes the shared experts, if there are any, on the h of route(), to be added by combine().
  virtual void shared_expert(int layer) = 0;
  /// x += shared + routed.
  virtual void combine(int layer, std::span<const float> routed /* [rows, hidden] */) = 0;
  /// Final norm and head for the given rows of the batch. Waits.
  virtual void head(std::span<const int32_t> rows, std::span<float> logits /* [rows.size(), vocab] */) = 0;
  /// The present x. Waits. For evaluation and tests.
  virtual void read_hidden(std::span<float> hidden /* [rows, hidden] */) = 0;
};

/// One use of an expert: row of the batch, its place among the row's chosen experts, its weight.
struct ExpertUse {
  int32_t row = 0;
  int32_t slot = 0;  ///< 0 … num_experts_per_tok − 1
  float weight = 0.0f;
};

/// The routed experts' arithmetic. Experts come one by one, in the order in which their bytes arrive; results are added
/// in the order of slots, so that the arrival order changes no bit.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;

  /// Starts a MoE layer's routed part: the layer's input, how its experts are laid out, slots per row.
  virtual void begin_experts(std::span<const float> normed /* [rows, hidden] */, int32_t row_count,
                             const quant::ExpertLayout& layout, int32_t slots_per_row) = 0;
  /// weight · FFN_expert(h[row]) for every use, into the (row, slot) it names. The record must stay until this returns.
  virtual void compute_expert(std::span<const std::byte> record, std::span<const ExpertUse> uses) = 0;
  /// Several experts at once, for a decode step whose experts are all in RAM: same results as one by one.
  virtual void compute_experts(std::span<const offload::ExpertLease> leases,
                               std::span<const std::span<const ExpertUse>> uses) = 0;
  /// sum := Σ over the slots of the last row that were computed so far, ascending.
  virtual void sum_so_far(std::span<float> sum /* [hidden] */) = 0;
  /// routed[row] := Σ over slots, ascending.
  virtual void finish_experts(std::span<float> routed /* [rows, hidden] */) = 0;
};

}  // namespace moraine::runtime
