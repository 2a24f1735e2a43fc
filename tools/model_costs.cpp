#include "tools/model_costs.h"

#include "quant/error.h"
#include "quant/packed_matrix.h"

namespace moraine::tools {
namespace {

/// A matrix times one vector.
Cost matrix_cost(quant::DType type, int64_t rows, int64_t cols) {
  return {.weight_bytes = static_cast<double>(quant::packed_bytes(type, rows, cols)),
          .flop = 2.0 * static_cast<double>(rows) * static_cast<double>(cols)};
}
Cost cost_of(const runtime::Matrix& matrix) {
  if (matrix.empty()) return {};
  return matrix_cost(matrix.view.type, matrix.view.rows, matrix.view.cols);
}
Cost cost_of(const quant::MatrixDesc& matrix) {
  return matrix_cost(matrix.type, matrix.rows, matrix.cols);
}
Cost cost_of(const std::vector<float>& vector) {
  return {.weight_bytes = static_cast<double>(vector.size() * sizeof(float))};
}
template <typename... Parts>
Cost sum_of(const Parts&... parts) {
  Cost sum;
  ((sum += cost_of(parts)), ...);
  return sum;
}

/// `cost` for `tokens` tokens that share one reading of the weights.
Cost shared_by(Cost cost, double tokens) {
  cost.flop *= tokens;
  return cost;
}
Cost times(const Cost& cost, double count) {
  return {cost.weight_bytes * count, cost.flop * count, cost.context_flop * count};
}

void add_context(StepCosts& costs, double flop) {
  costs[LayerKind::kAttention] += {.flop = flop, .context_flop = flop};
}

}  // namespace

Cost& Cost::operator+=(const Cost& other) {
  weight_bytes += other.weight_bytes;
  flop += other.flop;
  context_flop += other.context_flop;
  return *this;
}

Cost total_of(const StepCosts& costs) {
  Cost total;
  for (const LayerKind kind : kLayerKinds) total += costs[kind];
  return total;
}

ModelCosts::ModelCosts(const runtime::Model& model, std::span<const quant::ExpertLayout> layouts)
    : streams_ffns_(model.streams_ffn(0)), expert_(model.layers.size()), uses_(model.layers.size()) {
  const runtime::ModelConfig& config = model.config;
  MORAINE_CHECK(layouts.size() >= model.layers.size());
  for (size_t l = 0; l < model.layers.size(); ++l) {
    const runtime::LayerWeights& layer = model.layers[l];
    resident_[LayerKind::kAttention] +=
        sum_of(layer.input_layernorm, layer.q_proj, layer.k_proj, layer.v_proj, layer.q_bias, layer.k_bias,
               layer.v_bias, layer.q_a_proj, layer.q_a_layernorm, layer.q_b_proj, layer.kv_a_proj_with_mqa,
               layer.kv_a_layernorm, layer.kv_b_proj, layer.o_proj);
    const Cost ffn = sum_of(layer.ffn.gate_proj, layer.ffn.up_proj, layer.ffn.down_proj);
    const bool moe = config.is_moe_layer(static_cast<int64_t>(l));
    resident_[moe ? LayerKind::kShared : LayerKind::kDenseFfn] += ffn;
    // The norm before the FFN is a part of route() where the FFN is made of records.
    const bool has_records = moe || model.streams_ffn(static_cast<int64_t>(l));
    resident_[has_records ? LayerKind::kRoute : LayerKind::kDenseFfn] += cost_of(layer.post_attention_layernorm);
    if (!has_records) continue;
    resident_[LayerKind::kRoute] += sum_of(layer.gate, layer.e_score_correction_bias);
    expert_[l] = sum_of(layouts[l].gate, layouts[l].up, layouts[l].down);
    uses_[l] = moe ? config.num_experts_per_tok : 1;
  }
  resident_[LayerKind::kHead] = sum_of(model.norm, model.head());
  embed_row_.weight_bytes =
      cost_of(model.embed_tokens).weight_bytes / static_cast<double>(model.embed_tokens.view.rows);
  const auto heads = static_cast<double>(config.num_attention_heads);
  const auto layers = static_cast<double>(model.layers.size());
  if (config.is_latent()) {
    decode_seen_flop_ = layers * 2.0 * heads * static_cast<double>(2 * config.kv_lora_rank + config.qk_rope_head_dim);
    prefill_seen_flop_ = layers * 2.0 * heads * static_cast<double>(config.qk_head_dim() + config.v_head_dim);
  } else {
    decode_seen_flop_ = prefill_seen_flop_ = layers * 2.0 * heads * static_cast<double>(2 * config.head_dim);
  }
}

StepCosts ModelCosts::decode(double context) const {
  StepCosts costs = resident_;
  costs[LayerKind::kEmbed] = embed_row_;
  add_context(costs, decode_seen_flop_ * (context + 1.0));  // a token sees itself
  for (size_t l = 0; l < expert_.size(); ++l) {
    costs[LayerKind::kRouted] += times(expert_[l], static_cast<double>(uses_[l]));
  }
  return costs;
}

StepCosts ModelCosts::prefill(int64_t tokens, std::span<const int64_t> experts_touched) const {
  MORAINE_CHECK(tokens > 0 && experts_touched.size() == expert_.size());
  const auto count = static_cast<double>(tokens);
  StepCosts costs;
  for (const LayerKind kind : kLayerKinds) {
    costs[kind] = shared_by(resident_[kind], kind == LayerKind::kHead ? 1.0 : count);
  }
  costs[LayerKind::kEmbed] = times(embed_row_, count);
  add_context(costs, prefill_seen_flop_ * count * (count + 1.0) / 2.0);
  for (size_t l = 0; l < expert_.size(); ++l) {
    const int64_t touched = streams_ffns_ ? 1 : experts_touched[l];
    costs[LayerKind::kRouted] += {.weight_bytes = expert_[l].weight_bytes * static_cast<double>(touched),
                                  .flop = expert_[l].flop * count * static_cast<double>(uses_[l])};
  }
  return costs;
}

}  // namespace moraine::tools
