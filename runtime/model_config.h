#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moraine::runtime {

/// `rope_scaling` of config.json, type "yarn". Without it the fields stay at "no scaling".
struct RopeScaling {
  bool yarn = false;
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 0.0;
};

/// config.json of a DeepSeek-V3-architecture model, field by field under its own names (docs: DeepSeek-V3
/// inference/model.py, transformers `deepseek_v3`). Unknown fields are ignored; a known field with an unsupported value
/// is refused by name.
struct ModelConfig {
  std::string model_type;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_nextn_predict_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t n_shared_experts = 0;
  int64_t n_routed_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t n_group = 1;
  int64_t topk_group = 1;
  int64_t first_k_dense_replace = 0;
  int64_t moe_layer_freq = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  int64_t q_lora_rank = 0;
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  double rms_norm_eps = 1e-6;
  int32_t bos_token_id = 0;
  std::vector<int32_t> eos_token_ids;
  bool fp8_weights = false;  ///< quantization_config: fp8, e4m3, 128×128 blocks

  /// Width of one head's q and k: nope | rope.
  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  /// Width of what the cache keeps per token and layer: latent | rotated key.
  int64_t latent_width() const { return kv_lora_rank + qk_rope_head_dim; }
  bool is_moe_layer(int64_t layer) const { return layer >= first_k_dense_replace; }
  int64_t shared_intermediate_size() const { return moe_intermediate_size * n_shared_experts; }
  /// Multiplies q·k before the softmax: qk_head_dim^(-1/2) × mscale(factor, mscale_all_dim)².
  double softmax_scale() const;

  /// Parses config.json. Throws quant::Error(kBadFile) that lists every fault of the file at once: missing fields,
  /// wrong types, impossible values, unsupported architectures and features, each by its name.
  static ModelConfig parse(std::string_view json_text, const std::filesystem::path& file);
  static ModelConfig from_directory(const std::filesystem::path& directory);
};

/// YaRN's magnitude factor: 1 if scale ≤ 1, else 0.1·mscale·ln(scale) + 1.
double yarn_mscale(double scale, double mscale);

}  // namespace moraine::runtime
