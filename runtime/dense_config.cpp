#include "runtime/dense_config.h"

#include <fmt/format.h>

namespace moraine::runtime {

void read_dense(ConfigReader& reader, ModelConfig& config) {
  config.attention = AttentionKind::kGrouped;
  // A Llama in a GGUF file has rows of q and k permuted for neighbouring pairs (runtime/gguf_config.h).
  config.rope_pairs = reader.boolean_or("rope_interleave", false) ? RopePairs::kInterleaved : RopePairs::kHalves;
  config.num_key_value_heads = reader.integer_or("num_key_value_heads", 1, kMaxHeads, config.num_attention_heads);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.fault("num_key_value_heads", fmt::format("{} heads cannot share {} keys evenly", config.num_attention_heads,
                                                    config.num_key_value_heads));
  }
  config.head_dim = reader.integer_or("head_dim", 2, kMaxHeads, config.hidden_size / config.num_attention_heads);
  if (config.head_dim < 2 || config.head_dim % 2 != 0) {
    reader.fault("head_dim", "expected an even number: rope turns pairs");
  }
  config.first_k_dense_replace = config.num_hidden_layers;
  reader.expect_boolean("mlp_bias", false);
  if (config.model_type == "qwen2") {
    config.qkv_bias = true;
    reader.expect_boolean("use_sliding_window", false);
    reader.expect_boolean("use_mrope", false);
  } else {
    reader.expect_boolean("attention_bias", false);
  }
}

}  // namespace moraine::runtime
