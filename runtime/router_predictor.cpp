#include "runtime/router_predictor.h"

namespace moraine::runtime {

RouterPredictor::RouterPredictor(const Model& model, DenseBackend& dense, const Router& router)
    : model_(model), dense_(dense), router_(router), logits_(static_cast<size_t>(model.config.n_routed_experts)) {}

std::span<const offload::ExpertId> RouterPredictor::likely(int layer) {
  likely_.clear();
  if (layer >= model_.config.num_hidden_layers || !model_.config.is_moe_layer(layer)) return likely_;
  const auto n_experts = static_cast<int32_t>(model_.config.n_routed_experts);
  if (row_count_ * router_.num_experts_per_tok() >= n_experts) {
    for (int32_t e = 0; e < n_experts; ++e) likely_.push_back({layer, e});
    return likely_;
  }
  dense_.predict_route(layer, logits_);
  const std::span<const float> bias = model_.layers[static_cast<size_t>(layer)].e_score_correction_bias;
  for (const int32_t e : router_.likeliest(logits_, bias, router_.num_experts_per_tok())) likely_.push_back({layer, e});
  return likely_;
}

}  // namespace moraine::runtime
