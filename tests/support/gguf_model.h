#pragma once

#include <string>

#include "support/gguf_bytes.h"

namespace moraine::testing {

/// Metadata of a GGUF of DeepSeek-R1 as llama.cpp's converter has written it since autumn 2025 (shared/spec/gguf.md
/// §3), without a tokenizer.
inline GgufBytes r1_metadata() {
  using quant::GgufValue;
  GgufBytes file;
  file.key("general.architecture", GgufValue::string("deepseek2"));
  const auto u32 = [&](const char* name, uint32_t value) {
    file.key(std::string("deepseek2.") + name, GgufValue::u32(value));
  };
  const auto f32 = [&](const char* name, float value) {
    file.key(std::string("deepseek2.") + name, GgufValue::f32(value));
  };
  u32("block_count", 61);
  u32("context_length", 163840);
  u32("embedding_length", 7168);
  u32("feed_forward_length", 18432);
  u32("vocab_size", 129280);
  u32("attention.head_count", 128);
  u32("attention.head_count_kv", 1);
  u32("attention.q_lora_rank", 1536);
  u32("attention.kv_lora_rank", 512);
  u32("attention.key_length", 576);
  u32("attention.value_length", 512);
  u32("attention.key_length_mla", 192);
  u32("attention.value_length_mla", 128);
  f32("attention.layer_norm_rms_epsilon", 1e-6f);
  u32("rope.dimension_count", 64);
  f32("rope.freq_base", 10000.0f);
  file.key("deepseek2.rope.scaling.type", GgufValue::string("yarn"));
  f32("rope.scaling.factor", 40.0f);
  u32("rope.scaling.original_context_length", 4096);
  f32("rope.scaling.yarn_log_multiplier", 0.1f);
  u32("leading_dense_block_count", 3);
  u32("expert_count", 256);
  u32("expert_used_count", 8);
  u32("expert_shared_count", 1);
  u32("expert_feed_forward_length", 2048);
  u32("expert_gating_func", 2);
  file.key("deepseek2.expert_weights_norm", GgufValue::boolean(true));
  f32("expert_weights_scale", 2.5f);
  u32("expert_group_count", 8);
  u32("expert_group_used_count", 4);
  return file;
}

}  // namespace moraine::testing
