#include "tools/model_sizes.h"

#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/head_cache.h"
#include "quant/error.h"
#include "quant/huge_pages.h"
#include "quant/packed_matrix.h"

namespace moraine::tools {
namespace {

uint64_t bytes_of(const runtime::Matrix& matrix) {
  if (matrix.view.rows == 0) return 0;
  return quant::mapped_bytes(quant::packed_bytes(matrix.view.type, matrix.view.rows, matrix.view.cols));
}
uint64_t bytes_of(const std::vector<float>& vector) {
  return vector.size() * sizeof(float);
}
template <typename... Parts>
uint64_t sum_of(const Parts&... parts) {
  return (bytes_of(parts) + ...);
}

}  // namespace

uint64_t kv_bytes_per_token(const runtime::Model& shape, bool precise) {
  const runtime::ModelConfig& config = shape.config;
  const auto layers = static_cast<uint64_t>(config.num_hidden_layers);
  const cpu::CacheType type = cpu::cache_type(shape, precise);
  if (config.is_latent()) {
    return layers * static_cast<uint64_t>(cpu::latent_row_bytes(type, config.latent_width()));
  }
  return layers * static_cast<uint64_t>(cpu::head_token_bytes(type, config.num_key_value_heads, config.head_dim));
}

uint64_t scratch_bytes(const runtime::ModelConfig& config, int64_t rows) {
  constexpr uint64_t kFixedBytes = 64u << 20;  // staging of reads, tables, vocabulary
  // Per row: residual, normed and summed hidden states, one output per chosen expert, q, k, v and attention output of
  // all heads, gate, up and product of the widest FFN, router logits.
  const int64_t v_head_dim = config.is_latent() ? config.v_head_dim : config.head_dim;
  const int64_t floats = config.hidden_size * (6 + config.num_experts_per_tok) +
                         config.num_attention_heads * 2 * (config.qk_head_dim() + v_head_dim) +
                         3 * config.intermediate_size + config.n_routed_experts;
  return kFixedBytes + static_cast<uint64_t>(rows) * static_cast<uint64_t>(floats) * sizeof(float);
}

uint64_t ffn_staging_bytes(uint64_t record_bytes) {
  return 2 * record_bytes;  // one is read while the one before it is re-laid-out
}

std::vector<offload::ResidentGroup> resident_groups(const runtime::Model& shape) {
  offload::ResidentGroup attention{.name = "attention", .needs_kv = true}, router{.name = "router"},
      shared{.name = "shared experts"}, dense{.name = "dense FFN"}, head{.name = "head"},
      embedding{.name = "embedding", .gpu_computes = false};
  for (size_t l = 0; l < shape.layers.size(); ++l) {
    const runtime::LayerWeights& layer = shape.layers[l];
    attention.size_bytes += sum_of(layer.input_layernorm, layer.q_proj, layer.k_proj, layer.v_proj, layer.q_bias,
                                   layer.k_bias, layer.v_bias, layer.q_a_proj, layer.q_a_layernorm, layer.q_b_proj,
                                   layer.kv_a_proj_with_mqa, layer.kv_a_layernorm, layer.kv_b_proj, layer.o_proj);
    const bool moe = shape.config.is_moe_layer(static_cast<int64_t>(l));
    offload::ResidentGroup& ffn = moe ? shared : dense;
    ffn.size_bytes += sum_of(layer.ffn.gate_proj, layer.ffn.up_proj, layer.ffn.down_proj);
    router.size_bytes += sum_of(layer.post_attention_layernorm, layer.gate, layer.e_score_correction_bias);
  }
  head.size_bytes = sum_of(shape.norm, shape.lm_head);
  embedding.size_bytes = bytes_of(shape.embed_tokens);
  return {attention, router, shared, dense, head, embedding};
}

offload::MemoryNeeds memory_needs(const runtime::Model& shape, std::span<const quant::ExpertLayout> layouts,
                                  int64_t chunk_rows, bool precise) {
  const runtime::ModelConfig& config = shape.config;
  offload::MemoryNeeds needs{.resident = resident_groups(shape),
                             .kv_bytes_per_token = kv_bytes_per_token(shape, precise),
                             .max_context_tokens = config.max_position_embeddings,
                             .scratch_bytes = scratch_bytes(config, chunk_rows)};
  MORAINE_CHECK(layouts.size() >= shape.layers.size());
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const bool moe = config.is_moe_layer(l);
    if (!moe && !shape.streams_ffn(l)) continue;
    needs.record_bytes = std::max(needs.record_bytes, layouts[static_cast<size_t>(l)].record_bytes);
    needs.expert_count += moe ? static_cast<uint64_t>(config.n_routed_experts) : 1;
  }
  if (needs.expert_count == 0) return needs;
  needs.min_slots = static_cast<uint64_t>(std::max<int64_t>(config.num_experts_per_tok, 1));
  if (!config.has_experts()) needs.scratch_bytes += ffn_staging_bytes(needs.record_bytes);
  return needs;
}

}  // namespace moraine::tools
