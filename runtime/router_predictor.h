#pragma once

#include <memory>
#include <span>
#include <vector>

#include "offload/expert_predictor.h"
#include "runtime/backend.h"
#include "runtime/linear_predictor.h"
#include "runtime/model.h"
#include "runtime/router.h"

namespace moraine::runtime {

/// Guesses a layer's experts by applying its router early, to the residual stream as it is now: behind the attention of
/// the layer before (published recall for R1: 72–77 % of the top-8), or with what was computed of that layer's experts.
/// A trained predictor corrects the former where there is one.
/// Where more than a token's experts are asked for, the rest are guesses for the layer after (docs/memory_plan.md has
/// the recall of all). A prefill chunk wants nearly all experts of a layer, so there it names all.
class RouterPredictor final : public offload::ExpertPredictor {
 public:
  /// `trained` may be null.
  RouterPredictor(const Model& model, DenseBackend& dense, const Router& router,
                  std::shared_ptr<const LinearPredictor> trained = {});

  /// Whether a step of so many rows wants nearly all experts of a layer: then likely() names all.
  bool wants_all(int32_t row_count) const;
  /// The rows of the step under way.
  void set_row_count(int32_t row_count) { row_count_ = row_count; }
  /// How many experts likely() names of a decoded token; at first num_experts_per_tok.
  void set_count(int32_t count) { count_ = count; }
  /// Of the layer under way, what its experts add to the last row as far as they are computed: guesses go by what x
  /// will be with it. Empty: by the present x. Valid until the next call.
  void set_routed(std::span<const float> routed /* [hidden], or empty */) { routed_ = routed; }
  /// What the router of `layer` saw of the step's last row: what a trained predictor goes by. Valid until the next
  /// step.
  void set_router_input(int layer, std::span<const float> normed /* [hidden] */);
  std::span<const offload::ExpertId> likely(int layer) override;

 private:
  bool is_moe(int layer) const;
  /// Appends the `count` likeliest of `layer`.
  void add(int layer, int32_t count);

  const Model& model_;
  DenseBackend& dense_;
  const Router& router_;
  const std::shared_ptr<const LinearPredictor> trained_;
  int32_t row_count_ = 0;
  int32_t count_;
  int input_layer_ = -1;
  std::span<const float> input_;   // [hidden] of the router of input_layer_
  std::span<const float> routed_;  // [hidden], or empty
  std::vector<float> logits_;      // [n_routed_experts]
  std::vector<offload::ExpertId> likely_;
};

}  // namespace moraine::runtime
