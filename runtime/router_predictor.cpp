#include "runtime/router_predictor.h"

#include <algorithm>
#include <utility>

namespace moraine::runtime {

RouterPredictor::RouterPredictor(const Model& model, DenseBackend& dense, const Router& router,
                                 std::shared_ptr<const LinearPredictor> trained)
    : model_(model),
      dense_(dense),
      router_(router),
      trained_(std::move(trained)),
      count_(router.num_experts_per_tok()),
      logits_(static_cast<size_t>(model.config.n_routed_experts)) {}

void RouterPredictor::set_router_input(int layer, std::span<const float> normed) {
  input_layer_ = layer;
  input_ = normed;
}

bool RouterPredictor::wants_all(int32_t row_count) const {
  return row_count * router_.num_experts_per_tok() >= static_cast<int32_t>(model_.config.n_routed_experts);
}

bool RouterPredictor::is_moe(int layer) const {
  return layer < model_.config.num_hidden_layers && model_.config.is_moe_layer(layer);
}

void RouterPredictor::add(int layer, int32_t count) {
  if (count <= 0 || !is_moe(layer)) return;
  dense_.predict_route(layer, routed_, logits_);
  if (trained_ != nullptr && routed_.empty() && input_layer_ == layer - 1 && trained_->corrects(layer)) {
    trained_->correct(layer, input_, logits_);
  }
  const std::span<const float> bias = model_.layers[static_cast<size_t>(layer)].e_score_correction_bias;
  for (const int32_t e : router_.likeliest(logits_, bias, count)) likely_.push_back({layer, e});
}

std::span<const offload::ExpertId> RouterPredictor::likely(int layer) {
  likely_.clear();
  if (!is_moe(layer)) return likely_;
  const auto n_experts = static_cast<int32_t>(model_.config.n_routed_experts);
  const int32_t top_k = router_.num_experts_per_tok();
  if (wants_all(row_count_)) {
    for (int32_t e = 0; e < n_experts; ++e) likely_.push_back({layer, e});
    return likely_;
  }
  add(layer, std::min(count_, top_k));
  add(layer + 1, std::min(count_ - top_k, top_k));
  return likely_;
}

}  // namespace moraine::runtime
