#include "runtime/deepseek_config.h"

#include <fmt/format.h>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

void read_latent_attention(ConfigReader& reader, ModelConfig& config) {
  config.attention = AttentionKind::kLatent;
  config.num_key_value_heads = reader.integer_or("num_key_value_heads", 1, kMaxHeads, config.num_attention_heads);
  if (config.num_key_value_heads != config.num_attention_heads) {
    reader.fault("num_key_value_heads",
                 fmt::format("expected num_attention_heads ({}): MLA has one key per head, got {}",
                             config.num_attention_heads, config.num_key_value_heads));
  }
  config.q_lora_rank = reader.integer_or("q_lora_rank", 1, kMaxDim, 0);
  config.kv_lora_rank = reader.integer("kv_lora_rank", 1, kMaxDim);
  config.qk_nope_head_dim = reader.integer("qk_nope_head_dim", 1, kMaxHeads);
  config.qk_rope_head_dim = reader.integer("qk_rope_head_dim", 2, kMaxHeads);
  if (config.qk_rope_head_dim % 2 != 0) reader.fault("qk_rope_head_dim", "expected an even number: rope turns pairs");
  config.v_head_dim = reader.integer("v_head_dim", 1, kMaxHeads);
  config.rope_pairs = RopePairs::kInterleaved;
  reader.expect_boolean("attention_bias", false);
  reader.expect_boolean("rope_interleave", true);
}

void read_groups(ConfigReader& reader, ModelConfig& config) {
  config.n_group = reader.integer("n_group", 1, 1024);
  config.topk_group = reader.integer("topk_group", 1, 1024);
  if (config.n_routed_experts % config.n_group != 0) {
    reader.fault("n_group", fmt::format("{} experts cannot be split into {} equal groups", config.n_routed_experts,
                                        config.n_group));
  } else if (config.topk_group > config.n_group) {
    reader.fault("topk_group", fmt::format("keeps {} of {} groups", config.topk_group, config.n_group));
  }
}

void read_v3_router(ConfigReader& reader, ModelConfig& config) {
  reader.expect_text("scoring_func", "sigmoid");
  reader.expect_text("topk_method", "noaux_tc");
  config.scoring_func = ScoringFunc::kSigmoid;
  config.topk_method = TopkMethod::kNoauxTc;
  config.norm_topk_prob = reader.boolean_or("norm_topk_prob", true);
  read_groups(reader, config);
}

void read_v2_router(ConfigReader& reader, ModelConfig& config) {
  reader.expect_text("scoring_func", "softmax");
  config.scoring_func = ScoringFunc::kSoftmax;
  // With normalised weights V2's own code leaves the scaling factor out and transformers does not normalise: no V2
  // model has it, and no reference says what it would mean.
  reader.expect_boolean("norm_topk_prob", false);
  config.norm_topk_prob = false;
  const std::string method = reader.text_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    config.topk_method = TopkMethod::kGroupLimitedGreedy;
    read_groups(reader, config);
  } else {
    config.topk_method = TopkMethod::kGreedy;
    if (method == "greedy") return;
    reader.fault("topk_method", fmt::format("'{}' is not supported; this version knows 'greedy' and "
                                            "'group_limited_greedy' for deepseek_v2",
                                            quant::printable(method)));
  }
}

void read_experts(ConfigReader& reader, ModelConfig& config) {
  config.moe_intermediate_size = reader.integer("moe_intermediate_size", 1, kMaxDim);
  config.n_shared_experts = reader.integer("n_shared_experts", 1, 64);
  config.n_routed_experts = reader.integer("n_routed_experts", 1, kMaxExperts);
  config.num_experts_per_tok = reader.integer("num_experts_per_tok", 1, 1024);
  config.first_k_dense_replace = reader.integer("first_k_dense_replace", 0, kMaxLayers);
  config.routed_scaling_factor = reader.number_or("routed_scaling_factor", 1e-6, 1e6, 1.0);
  if (reader.integer_or("moe_layer_freq", 1, kMaxLayers, 1) != 1) reader.fault("moe_layer_freq", "only 1 is supported");
  if (config.model_type == "deepseek_v2") {
    read_v2_router(reader, config);
  } else {
    read_v3_router(reader, config);
  }
  const int64_t eligible = config.topk_group * (config.n_routed_experts / config.n_group);
  if (config.num_experts_per_tok > eligible) {
    reader.fault("num_experts_per_tok", fmt::format("{} experts are wanted, the {} groups kept have {}",
                                                    config.num_experts_per_tok, config.topk_group, eligible));
  }
}

}  // namespace

void read_deepseek(ConfigReader& reader, ModelConfig& config) {
  config.num_nextn_predict_layers = reader.integer_or("num_nextn_predict_layers", 0, 16, 0);
  read_latent_attention(reader, config);
  read_experts(reader, config);
}

}  // namespace moraine::runtime
