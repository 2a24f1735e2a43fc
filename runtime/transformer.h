#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "offload/expert_store.h"
#include "quant/expert_pack.h"
#include "runtime/backend.h"
#include "runtime/model.h"
#include "runtime/moe_layer.h"
#include "runtime/router.h"
#include "runtime/streamed_ffn.h"

namespace moraine::runtime {

/// Sees what a step computes, for evaluation and tests. Every method may be left as it is.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  /// True if hidden() is to be called: reading the residual stream back costs a wait per layer.
  virtual bool wants_hidden() const { return false; }
  /// Residual stream after `layer_count` layers (0 = embedding).
  virtual void hidden(int /*layer_count*/, std::span<const float> /* [rows, hidden] */) {}
  /// What the router of a MoE layer chose.
  virtual void routed(int /*layer*/, std::span<const RoutedExpert> /* [rows, num_experts_per_tok] */) {}
};

/// Thrown out of a step that was asked to stop.
class StopRequested : public std::exception {
 public:
  const char* what() const noexcept override { return "stopped"; }
};

/// The loop over layers. One step takes a batch of rows of any sequences through the model.
class Transformer {
 public:
  /// `layouts`: per decoder layer how its experts' records, or that of its streamed FFN, are laid out (unused for
  /// layers that are in the model as a whole). All references outlive this. `trained`: helps to tell experts ahead; may
  /// be null.
  Transformer(const Model& model, DenseBackend& dense, ExpertBackend& experts, offload::ExpertStore& store,
              std::vector<quant::ExpertLayout> layouts, std::shared_ptr<const LinearPredictor> trained = {});

  /// Logits of the rows in `logit_rows`. `stop` is asked before every layer. Throws quant::Error if an expert can't be
  /// read, or StopRequested; the caches are then as before the step.
  void step(const StepBatch& batch, std::span<const int32_t> logit_rows,
            std::span<float> logits /* [logit_rows.size(), vocab_size] */, const std::function<bool()>& stop = {},
            StepObserver* observer = nullptr);

  const ModelConfig& config() const { return model_.config; }
  /// Rows of one prefill chunk. Chunk borders lie at multiples of it, counted from the sequence's start.
  int32_t chunk_rows() const { return dense_.max_rows(); }
  /// Rows of the next chunk of a sequence that stands at `position` and has `remaining` tokens to take: up to the next
  /// border, so that a restored prefix meets the same borders.
  int32_t next_chunk_rows(int64_t position, int64_t remaining) const {
    return static_cast<int32_t>(std::min(remaining, chunk_rows() - position % chunk_rows()));
  }

 private:
  void walk(const StepBatch& batch, const std::function<bool()>& stop, StepObserver* observer);

  const Model& model_;
  DenseBackend& dense_;
  std::vector<quant::ExpertLayout> layouts_;  // [num_hidden_layers]
  MoeLayer moe_layer_;
  StreamedFfn streamed_ffn_;
  std::vector<float> hidden_;  // [rows, hidden] only for observers
};

}  // namespace moraine::runtime
