#include "tools/model_sizes.h"

namespace moraine::tools {

uint64_t kv_bytes_per_token(const runtime::ModelConfig& config) {
  constexpr int64_t kRowMultiple = 16;
  const auto padded = [](int64_t width) { return (width + kRowMultiple - 1) / kRowMultiple * kRowMultiple; };
  const int64_t floats = config.is_latent() ? padded(config.latent_width())
                                            : config.num_key_value_heads * (config.head_dim + padded(config.head_dim));
  return static_cast<uint64_t>(config.num_hidden_layers) * static_cast<uint64_t>(floats) * sizeof(float);
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

}  // namespace moraine::tools
