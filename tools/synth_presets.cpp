#include "tools/synth_presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <vector>

#include "quant/error.h"

namespace moraine::tools {
namespace {

/// config.json of deepseek-ai/DeepSeek-R1 (tests/data/configs/deepseek-r1.json).
constexpr std::string_view kR1 = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
  "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
  "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "attention_bias": false,
  "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
  "moe_layer_freq": 1, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
  "routed_scaling_factor": 2.5, "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
  "max_position_embeddings": 163840, "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40,
  "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
  "num_nextn_predict_layers": 0, "bos_token_id": 0, "eos_token_id": 1})";

/// config.json of tools/models/tiny-r1.
constexpr std::string_view kTiny = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
  "hidden_size": 256, "intermediate_size": 768, "moe_intermediate_size": 128,
  "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 96, "kv_lora_rank": 64,
  "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "attention_bias": false,
  "n_routed_experts": 32, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2,
  "moe_layer_freq": 1, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
  "routed_scaling_factor": 2.5, "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
  "max_position_embeddings": 8192, "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 8,
  "original_max_position_embeddings": 1024, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
  "num_nextn_predict_layers": 0, "bos_token_id": 0, "eos_token_id": 1})";

/// DeepSeek-V2-Lite: the shapes of DeepSeek-V3's inference/configs/config_16B.json, the rest from
/// shared/spec/deepseek-v3.md §1.
constexpr std::string_view kV2Lite = R"({
  "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "torch_dtype": "bfloat16",
  "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
  "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "attention_bias": false,
  "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1,
  "moe_layer_freq": 1, "norm_topk_prob": false, "scoring_func": "softmax", "topk_method": "greedy",
  "routed_scaling_factor": 1.0, "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
  "max_position_embeddings": 163840, "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40,
  "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707,
  "mscale_all_dim": 0.707}, "bos_token_id": 0, "eos_token_id": 1})";

/// config.json of DeepSeek-R1-Distill-Qwen-7B (tests/data/configs/r1-distill-qwen-7b.json); the token ids are the
/// embedded tokenizer's.
constexpr std::string_view kQwen7b = R"({
  "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
  "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
  "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "use_sliding_window": false,
  "max_position_embeddings": 131072, "rope_theta": 10000, "bos_token_id": 0, "eos_token_id": 1})";

/// config.json of DeepSeek-R1-Distill-Llama-8B (tests/data/configs/r1-distill-llama-8b.json), likewise.
constexpr std::string_view kLlama8b = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
  "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
  "head_dim": 128, "attention_bias": false, "mlp_bias": false, "hidden_act": "silu", "rms_norm_eps": 1e-5,
  "tie_word_embeddings": false, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": {
  "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192}, "bos_token_id": 0, "eos_token_id": 1})";

// R1's vocabulary of 129280 would drown a few layers in the head, of which 61 layers have only one: 4096 unless asked
// for, as in measurements of other programs on such a model.
constexpr std::array kPresets = {
    SynthPreset{.name = "r1-671b", .config_json = kR1, .dense_layers = 3, .moe_layers = 58, .vocab_size = 4096},
    SynthPreset{.name = "tiny", .config_json = kTiny, .dense_layers = 1, .moe_layers = 7, .vocab_size = 768},
    SynthPreset{.name = "v2-lite", .config_json = kV2Lite, .dense_layers = 1, .moe_layers = 26, .vocab_size = 102400},
    SynthPreset{.name = "qwen2-7b", .config_json = kQwen7b, .dense_layers = 28, .vocab_size = 152064},
    SynthPreset{.name = "llama-8b", .config_json = kLlama8b, .dense_layers = 32, .vocab_size = 128256},
};

}  // namespace

std::span<const SynthPreset> synth_presets() {
  return kPresets;
}

std::string synth_preset_names() {
  std::vector<std::string_view> names;
  for (const SynthPreset& preset : kPresets) names.push_back(preset.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

const SynthPreset& find_synth_preset(std::string_view name) {
  for (const SynthPreset& preset : kPresets) {
    if (preset.name == name) return preset;
  }
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = "no such preset", .item = quant::printable(name), .expected = synth_preset_names()});
}

}  // namespace moraine::tools
