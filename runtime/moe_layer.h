#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "offload/expert_store.h"
#include "quant/expert_pack.h"
#include "runtime/backend.h"
#include "runtime/guess_precision.h"
#include "runtime/hint_budget.h"
#include "runtime/model.h"
#include "runtime/router.h"
#include "runtime/router_predictor.h"

namespace moraine::runtime {

/// The MoE part of a layer: route, hint the next layer's experts, acquire this layer's, compute them in the order in
/// which they arrive while the shared expert runs, combine.
class MoeLayer {
 public:
  MoeLayer(const Model& model, DenseBackend& dense, ExpertBackend& experts, offload::ExpertStore& store,
           std::vector<quant::ExpertLayout> layouts, std::shared_ptr<const LinearPredictor> trained = {});

  /// Runs `layer` for the step's rows. Returns the experts chosen, valid until the next call: [rows,
  /// num_experts_per_tok].
  std::span<const RoutedExpert> run(int layer, int32_t row_count);
  /// Hints the experts that the first MoE layer behind `layer` is likely to want of the step's rows, if there is one.
  /// `is_whole`: x has the layer's FFN in it, not its attention alone. Layer −1 is the embedding.
  void hint_next(int layer, bool is_whole, int32_t row_count);

 private:
  void route(int layer, int32_t row_count);
  /// Sorts chosen_ by expert: fills wanted_, and for wanted_[i] its uses.
  void group_by_expert(int layer, int32_t row_count);
  void compute(int layer, int32_t row_count);
  /// Hints again what was hinted behind `layer`, better, because most of its experts are computed: while the last are
  /// still being read, so in time for the drive.
  void refine_hint(int layer);
  /// The first MoE layer behind `layer`; num_hidden_layers if there is none.
  int next_moe(int layer) const;
  /// Hints what is likely at `place`, reading at most `most_reads` of it.
  void hint_likely(int layer, int place, int32_t most_reads);

  const Model& model_;
  DenseBackend& dense_;
  ExpertBackend& experts_;
  offload::ExpertStore& store_;
  std::vector<quant::ExpertLayout> layouts_;  // [layer]
  Router router_;
  RouterPredictor predictor_;
  HintBudget budget_;
  GuessPrecision precision_;
  int32_t budgeted_ = 0;  // what the budget allows behind the layer under way; 0: nothing was hinted

  std::vector<float> normed_;                               // [rows, hidden]
  std::vector<float> logits_;                               // [rows, n_routed_experts]
  std::vector<float> routed_;                               // [rows, hidden]
  std::vector<float> routed_so_far_;                        // [hidden] of the last row
  std::vector<RoutedExpert> chosen_;                        // [rows, num_experts_per_tok]
  std::vector<offload::ExpertId> wanted_;                   // experts with a use, ascending
  std::vector<ExpertUse> uses_;                             // [rows × num_experts_per_tok], grouped by expert
  std::vector<std::span<const ExpertUse>> uses_of_expert_;  // [n_routed_experts], into uses_
};

}  // namespace moraine::runtime
