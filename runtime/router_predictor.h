#pragma once

#include <span>
#include <vector>

#include "offload/expert_predictor.h"
#include "runtime/backend.h"
#include "runtime/model.h"
#include "runtime/router.h"

namespace moraine::runtime {

/// Guesses a layer's experts by applying its router early, to the residual stream of the layer before it. Published
/// recall for R1: 72–77 % of the top-8. A prefill chunk wants nearly all experts of a layer, so there it names all.
class RouterPredictor final : public offload::ExpertPredictor {
 public:
  RouterPredictor(const Model& model, DenseBackend& dense, const Router& router);

  /// The rows of the step under way.
  void set_row_count(int32_t row_count) { row_count_ = row_count; }
  std::span<const offload::ExpertId> likely(int layer) override;

 private:
  const Model& model_;
  DenseBackend& dense_;
  const Router& router_;
  int32_t row_count_ = 0;
  std::vector<float> logits_;  // [n_routed_experts]
  std::vector<offload::ExpertId> likely_;
};

}  // namespace moraine::runtime
