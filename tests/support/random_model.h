#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quant/expert_pack.h"
#include "runtime/model.h"
#include "support/random_matrix.h"

/// A small random DeepSeek-V3-architecture model, made in memory, for backend tests.
namespace moraine::testing {

/// Dimensions without any common factor, one dense and two MoE layers.
inline runtime::ModelConfig odd_config() {
  runtime::ModelConfig config;
  config.model_type = "deepseek_v3";
  config.vocab_size = 37;
  config.hidden_size = 24;
  config.intermediate_size = 41;
  config.moe_intermediate_size = 19;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 3;
  config.n_shared_experts = 2;
  config.n_routed_experts = 6;
  config.num_experts_per_tok = 2;
  config.first_k_dense_replace = 1;
  config.q_lora_rank = 9;
  config.kv_lora_rank = 11;
  config.qk_nope_head_dim = 5;
  config.qk_rope_head_dim = 4;
  config.v_head_dim = 7;
  config.max_position_embeddings = 1024;
  config.eos_token_ids = {1};
  return config;
}

/// Dimensions that every weight format takes.
inline runtime::ModelConfig even_config() {
  runtime::ModelConfig config = odd_config();
  config.vocab_size = 64;
  config.hidden_size = 256;
  config.intermediate_size = 256;
  config.moe_intermediate_size = 128;
  config.q_lora_rank = 96;
  config.kv_lora_rank = 64;
  config.qk_nope_head_dim = 16;
  config.qk_rope_head_dim = 8;
  config.v_head_dim = 32;
  return config;
}

/// Resident weights and the routed experts' records, all experts of a layer one after the other.
struct RandomModel {
  std::shared_ptr<runtime::Model> model;
  quant::ExpertLayout layout;
  std::vector<quant::AlignedBuffer> experts;  // [layers], empty for dense layers; each [n_routed_experts, record]

  std::span<const std::byte> record(int64_t layer, int64_t expert) const {
    return experts[static_cast<size_t>(layer)].span().subspan(static_cast<size_t>(expert) * layout.record_bytes,
                                                              layout.record_bytes);
  }
};

inline runtime::Matrix random_weights(quant::DType type, int64_t rows, int64_t cols, RandomValues& random) {
  RandomMatrix matrix =
      random_matrix(quant::packable_type(type, cols), rows, cols, random, 0.8 / std::sqrt(static_cast<double>(cols)));
  return {std::move(matrix.storage), matrix.view};
}

/// Gains around 1, as a trained model's norms have.
inline std::vector<float> random_gains(int64_t count, RandomValues& random) {
  std::vector<float> gains = random_values(count, 0.2, random);
  for (float& gain : gains) gain += 1.0f;
  return gains;
}

inline runtime::FfnWeights random_ffn(quant::DType type, int64_t hidden, int64_t intermediate, RandomValues& random) {
  return {random_weights(type, intermediate, hidden, random), random_weights(type, intermediate, hidden, random),
          random_weights(type, hidden, intermediate, random)};
}

inline runtime::LayerWeights random_layer(const runtime::ModelConfig& config, bool moe, quant::DType type,
                                          RandomValues& random) {
  const int64_t hidden = config.hidden_size, heads = config.num_attention_heads;
  runtime::LayerWeights layer;
  layer.input_layernorm = random_gains(hidden, random);
  layer.post_attention_layernorm = random_gains(hidden, random);
  layer.q_a_proj = random_weights(type, config.q_lora_rank, hidden, random);
  layer.q_a_layernorm = random_gains(config.q_lora_rank, random);
  layer.q_b_proj = random_weights(type, heads * config.qk_head_dim(), config.q_lora_rank, random);
  layer.kv_a_proj_with_mqa = random_weights(type, config.latent_width(), hidden, random);
  layer.kv_a_layernorm = random_gains(config.kv_lora_rank, random);
  layer.kv_b_proj =
      random_weights(type, heads * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank, random);
  layer.o_proj = random_weights(type, hidden, heads * config.v_head_dim, random);
  layer.ffn = random_ffn(type, hidden, moe ? config.shared_intermediate_size() : config.intermediate_size, random);
  if (moe) layer.gate = random_weights(quant::DType::kF32, config.n_routed_experts, hidden, random);
  if (moe) layer.e_score_correction_bias = random_values(config.n_routed_experts, 0.1, random);
  return layer;
}

/// `type`: of all matrices, where their rows are multiples of its block (quant::packable_type).
inline RandomModel random_model(const runtime::ModelConfig& config, quant::DType type, uint64_t seed) {
  RandomValues random(seed);
  const int64_t hidden = config.hidden_size, inner = config.moe_intermediate_size;
  RandomModel made;
  made.model = std::make_shared<runtime::Model>();
  made.model->config = config;
  made.model->embed_tokens = random_weights(quant::DType::kBF16, config.vocab_size, hidden, random);
  made.model->norm = random_gains(hidden, random);
  made.model->lm_head = random_weights(type, config.vocab_size, hidden, random);
  made.layout = quant::ExpertLayout::make(type, hidden, inner);
  made.experts.resize(static_cast<size_t>(config.num_hidden_layers));
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    made.model->layers.push_back(random_layer(config, config.is_moe_layer(l), type, random));
    if (!config.is_moe_layer(l)) continue;
    quant::AlignedBuffer& records = made.experts[static_cast<size_t>(l)];
    records = quant::AlignedBuffer(static_cast<uint64_t>(config.n_routed_experts) * made.layout.record_bytes);
    for (int64_t e = 0; e < config.n_routed_experts; ++e) {
      std::byte* record = records.data() + static_cast<uint64_t>(e) * made.layout.record_bytes;
      const runtime::FfnWeights ffn = random_ffn(type, hidden, inner, random);
      const auto place = [&](const runtime::Matrix& matrix, uint64_t offset) {
        std::copy_n(matrix.storage.data(), quant::packed_bytes(matrix.view.type, matrix.view.rows, matrix.view.cols),
                    record + offset);
      };
      place(ffn.gate_proj, 0);
      place(ffn.up_proj, made.layout.up_offset_bytes);
      place(ffn.down_proj, made.layout.down_offset_bytes);
    }
  }
  return made;
}

}  // namespace moraine::testing
