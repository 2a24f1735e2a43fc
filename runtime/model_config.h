#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moraine::runtime {

/// How attention keeps keys and values.
enum class AttentionKind {
  kLatent,   ///< multi-head latent attention: one compressed latent for all heads (DeepSeek-V2, V3)
  kGrouped,  ///< grouped-query attention: a key and a value per kv head (Qwen2, Llama)
};

/// Which two components of a head rope turns together.
enum class RopePairs {
  kInterleaved,  ///< (x0, x1), (x2, x3), …
  kHalves,       ///< (x0, x[d/2]), (x1, x[d/2 + 1]), …
};

/// `rope_scaling` of config.json. Fields of another type, or without one, stay at "no scaling".
struct RopeScaling {
  enum class Type { kNone, kYarn, kLlama3 };
  Type type = Type::kNone;
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32.0;        // YaRN
  double beta_slow = 1.0;         // YaRN
  double mscale = 1.0;            // YaRN
  double mscale_all_dim = 0.0;    // YaRN
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 1.0;  // llama3
};

/// How a router turns logits into affinities.
enum class ScoringFunc { kSigmoid, kSoftmax };

/// How a router chooses experts by their affinities.
enum class TopkMethod {
  kNoauxTc,             ///< biased affinities; groups ranked by the sum of their two best (V3)
  kGreedy,              ///< the best of all (V2-Lite)
  kGroupLimitedGreedy,  ///< the best within the best groups, ranked by their best (V2)
};

/// config.json, field by field under its own names, of the architectures that this version runs: deepseek_v3 (and R1),
/// deepseek_v2, qwen2, llama (docs: DeepSeek-V3 inference/model.py, transformers' models of these names). Unknown
/// fields are ignored; a known field with an unsupported value is refused by name. What an architecture does not have
/// is zero.
struct ModelConfig {
  std::string model_type;
  AttentionKind attention = AttentionKind::kLatent;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_nextn_predict_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  ///< equals num_attention_heads in MLA
  int64_t n_shared_experts = 0;
  int64_t n_routed_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t n_group = 1;
  int64_t topk_group = 1;
  int64_t first_k_dense_replace = 0;
  ScoringFunc scoring_func = ScoringFunc::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  int64_t q_lora_rank = 0;  ///< 0: queries are projected directly, by q_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t head_dim = 0;   ///< of GQA
  bool qkv_bias = false;  ///< of GQA: q_proj, k_proj and v_proj have biases
  bool tie_word_embeddings = false;
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000.0;
  RopePairs rope_pairs = RopePairs::kInterleaved;
  RopeScaling rope_scaling;
  double rms_norm_eps = 1e-6;
  int32_t bos_token_id = 0;
  std::vector<int32_t> eos_token_ids;
  bool fp8_weights = false;  ///< quantization_config: fp8, e4m3, 128×128 blocks

  /// Width of one head's q and k: nope | rope in MLA, all of it rotated in GQA.
  int64_t qk_head_dim() const { return is_latent() ? qk_nope_head_dim + qk_rope_head_dim : head_dim; }
  /// Values of a head that rope turns.
  int64_t rope_dim() const { return is_latent() ? qk_rope_head_dim : head_dim; }
  /// Width of what MLA's cache keeps per token and layer: latent | rotated key.
  int64_t latent_width() const { return kv_lora_rank + qk_rope_head_dim; }
  bool is_latent() const { return attention == AttentionKind::kLatent; }
  bool has_experts() const { return n_routed_experts > 0; }
  bool is_moe_layer(int64_t layer) const { return has_experts() && layer >= first_k_dense_replace; }
  /// True if the router's selection is corrected by a bias per expert.
  bool has_correction_bias() const { return has_experts() && topk_method == TopkMethod::kNoauxTc; }
  int64_t shared_intermediate_size() const { return moe_intermediate_size * n_shared_experts; }
  /// Multiplies q·k before the softmax: qk_head_dim^(-1/2), in MLA with YaRN × mscale(factor, mscale_all_dim)².
  double softmax_scale() const;

  /// Parses config.json. Throws quant::Error(kBadFile) that lists every fault of the file at once: missing fields,
  /// wrong types, impossible values, unsupported architectures and features, each by its name.
  static ModelConfig parse(std::string_view json_text, const std::filesystem::path& file);
  static ModelConfig from_directory(const std::filesystem::path& directory);
};

/// YaRN's magnitude factor: 1 if scale ≤ 1, else 0.1·mscale·ln(scale) + 1.
double yarn_mscale(double scale, double mscale);

}  // namespace moraine::runtime
