#include "tools/synth_presets.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/test_data.h"

namespace moraine::tools {
namespace {

/// Every field of the preset that changes a shape or a number is the published model's.
void expect_config_of(const char* preset, const std::filesystem::path& published_file) {
  const SynthPreset& wanted = find_synth_preset(preset);
  // Without quant::Json's order of fields, which means nothing here.
  const auto config = nlohmann::json::parse(wanted.config_json);
  const auto published = nlohmann::json::parse(quant::read_text(published_file, 1 << 20));
  for (const auto& [name, value] : config.items()) {
    if (name == "num_nextn_predict_layers") continue;  // no MTP layer is made
    // A distill's own token ids are beyond the embedded tokenizer's.
    if (wanted.moe_layers == 0 && name.ends_with("_token_id")) continue;
    EXPECT_EQ(value, published.at(name)) << name;
  }
  if (wanted.moe_layers > 0) {
    EXPECT_EQ(wanted.dense_layers, published.at("first_k_dense_replace"));
  }
  EXPECT_EQ(wanted.dense_layers + wanted.moe_layers, published.at("num_hidden_layers"));
}

TEST(SynthPresets, HaveThePublishedShapes) {
  expect_config_of("r1-671b", testing::test_data("configs/deepseek-r1.json"));
  expect_config_of("tiny", testing::tiny_r1() / "config.json");
  expect_config_of("qwen2-7b", testing::test_data("configs/r1-distill-qwen-7b.json"));
  expect_config_of("llama-8b", testing::test_data("configs/r1-distill-llama-8b.json"));
  EXPECT_EQ(synth_presets().size(), 5u);
}

// V2-Lite's own config.json could not be had; DeepSeek-V3's inference code has its shapes under other names.
TEST(SynthPresets, V2LiteHasTheReferencesShapes) {
  const SynthPreset& preset = find_synth_preset("v2-lite");
  const quant::Json config = quant::parse_json(preset.config_json, "preset");
  const quant::Json reference = quant::read_json(testing::test_data("configs/deepseek-16b-reference.json"));
  const std::pair<const char*, const char*> names[] = {{"hidden_size", "dim"},
                                                       {"intermediate_size", "inter_dim"},
                                                       {"moe_intermediate_size", "moe_inter_dim"},
                                                       {"num_attention_heads", "n_heads"},
                                                       {"n_routed_experts", "n_routed_experts"},
                                                       {"n_shared_experts", "n_shared_experts"},
                                                       {"num_experts_per_tok", "n_activated_experts"},
                                                       {"routed_scaling_factor", "route_scale"},
                                                       {"kv_lora_rank", "kv_lora_rank"},
                                                       {"qk_nope_head_dim", "qk_nope_head_dim"},
                                                       {"qk_rope_head_dim", "qk_rope_head_dim"},
                                                       {"v_head_dim", "v_head_dim"}};
  for (const auto& [name, reference_name] : names) EXPECT_EQ(config.at(name), reference.at(reference_name)) << name;
  EXPECT_EQ(reference.at("q_lora_rank"), 0);
  EXPECT_TRUE(config.at("q_lora_rank").is_null());
  EXPECT_EQ(config.at("rope_scaling").at("mscale"), reference.at("mscale"));
  EXPECT_EQ(preset.dense_layers, reference.at("n_dense_layers"));
  EXPECT_EQ(preset.dense_layers + preset.moe_layers, reference.at("n_layers"));
  EXPECT_EQ(preset.vocab_size, reference.at("vocab_size"));
}

TEST(SynthPresets, AnUnknownNameIsRefusedWithTheKnownOnes) {
  testing::expect_error(quant::ErrorKind::kUsage, {"gpt-9", "r1-671b, tiny, v2-lite"},
                        [] { find_synth_preset("gpt-9"); });
}

}  // namespace
}  // namespace moraine::tools
