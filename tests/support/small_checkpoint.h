#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "quant/dequantize.h"
#include "quant/json.h"
#include "quant/safetensors.h"

namespace moraine::testing {

/// A DeepSeek-V3-architecture checkpoint of a few kilobytes, BF16, random: 3 layers (the first dense), 4 experts in 2
/// groups.
class SmallCheckpoint {
 public:
  struct Tensor {
    quant::DType dtype = quant::DType::kBF16;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;
  };

  quant::Json config = quant::Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 32,
    "intermediate_size": 48, "moe_intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "n_shared_experts": 1, "n_routed_experts": 4, "routed_scaling_factor": 2.5, "kv_lora_rank": 16, "q_lora_rank": 24,
    "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 8, "topk_method": "noaux_tc", "n_group": 2,
    "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "norm_topk_prob": true,
    "scoring_func": "sigmoid", "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1})");
  std::map<std::string, Tensor> tensors;

  SmallCheckpoint() {
    bf16("model.embed_tokens.weight", {40, 32});
    bf16("lm_head.weight", {40, 32});
    bf16("model.norm.weight", {32});
    for (int layer = 0; layer < 3; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      const std::string attention = prefix + "self_attn.";
      bf16(prefix + "input_layernorm.weight", {32});
      bf16(prefix + "post_attention_layernorm.weight", {32});
      bf16(attention + "q_a_proj.weight", {24, 32});
      bf16(attention + "q_a_layernorm.weight", {24});
      bf16(attention + "q_b_proj.weight", {24, 24});
      bf16(attention + "kv_a_proj_with_mqa.weight", {20, 32});
      bf16(attention + "kv_a_layernorm.weight", {16});
      bf16(attention + "kv_b_proj.weight", {32, 16});
      bf16(attention + "o_proj.weight", {32, 16});
      if (layer == 0) {
        ffn(prefix + "mlp.", 48);
        continue;
      }
      bf16(prefix + "mlp.gate.weight", {4, 32});
      bf16(prefix + "mlp.gate.e_score_correction_bias", {4});
      ffn(prefix + "mlp.shared_experts.", 32);
      for (int e = 0; e < 4; ++e) ffn(prefix + fmt::format("mlp.experts.{}.", e), 32);
    }
  }

  /// Writes config.json and one model.safetensors into `directory`.
  void write(const std::filesystem::path& directory) const {
    std::vector<quant::TensorInfo> list;
    for (const auto& [name, tensor] : tensors) {
      list.push_back({.name = name, .dtype = tensor.dtype, .shape = tensor.shape, .size_bytes = tensor.bytes.size()});
    }
    quant::SafetensorsWriter writer(directory / "model.safetensors", list, quant::BlockFormats::kAllowed);
    for (const auto& [name, tensor] : tensors) writer.write(tensor.bytes);
    writer.finish();
    std::ofstream(directory / "config.json") << config.dump(1);
  }

  /// A tensor's numbers as f32.
  std::vector<float> values(const std::string& name) const {
    const Tensor& tensor = tensors.at(name);
    int64_t count = 1;
    for (const int64_t dim : tensor.shape) count *= dim;
    std::vector<float> values(static_cast<size_t>(count));
    quant::dequantize_row(tensor.dtype, tensor.bytes, values);
    return values;
  }

 private:
  void bf16(const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    Tensor tensor{.shape = std::move(shape), .bytes = std::vector<std::byte>(static_cast<size_t>(count) * 2)};
    std::uniform_real_distribution<float> uniform(-0.5f, 0.5f);
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t value = quant::bf16_from_f32(uniform(random_));
      std::memcpy(tensor.bytes.data() + 2 * i, &value, 2);
    }
    tensors[name] = std::move(tensor);
  }
  void ffn(const std::string& prefix, int64_t intermediate) {
    bf16(prefix + "gate_proj.weight", {intermediate, 32});
    bf16(prefix + "up_proj.weight", {intermediate, 32});
    bf16(prefix + "down_proj.weight", {32, intermediate});
  }

  std::mt19937 random_{42};
};

}  // namespace moraine::testing
