#include "tools/inspection.h"

#include <gtest/gtest.h>

#include "support/test_data.h"

namespace moraine::tools {
namespace {

TEST(TensorGroupName, KnowsThePartsOfTheModel) {
  runtime::ModelConfig config;
  config.num_hidden_layers = 61;
  const auto group = [&](const char* name) { return tensor_group_name(name, config); };
  EXPECT_EQ(group("model.embed_tokens.weight"), "embedding");
  EXPECT_EQ(group("model.norm.weight"), "norms");
  EXPECT_EQ(group("model.layers.3.input_layernorm.weight"), "norms");
  EXPECT_EQ(group("model.layers.3.self_attn.kv_a_layernorm.weight"), "attention");
  EXPECT_EQ(group("model.layers.3.self_attn.q_b_proj.weight_scale_inv"), "attention");
  EXPECT_EQ(group("model.layers.0.mlp.up_proj.weight"), "dense FFN");
  EXPECT_EQ(group("model.layers.3.mlp.gate.weight"), "router");
  EXPECT_EQ(group("model.layers.0.mlp.gate_proj.weight"), "dense FFN");
  EXPECT_EQ(group("model.layers.3.mlp.shared_experts.up_proj.weight"), "shared experts");
  EXPECT_EQ(group("model.layers.3.mlp.experts.255.up_proj.weight"), "routed experts");
  EXPECT_EQ(group("model.layers.61.mlp.experts.255.up_proj.weight"), "MTP");
  EXPECT_EQ(group("lm_head.weight"), "head");
  EXPECT_EQ(group("surprise"), "other");
  EXPECT_EQ(group("model.layers.99999999999.x"), "other");
}

TEST(Inspection, SaysWhatTheEmbeddedModelIs) {
  const Inspection inspection = inspect_model(testing::tiny_r1(), {});
  EXPECT_FALSE(inspection.is_pack);
  EXPECT_TRUE(inspection.has_mtp);
  EXPECT_EQ(inspection.expert_type, "F8_E4M3");
  EXPECT_EQ(inspection.expert_count, 7u * 32u);
  EXPECT_EQ(inspection.expert_bytes, inspection.expert_count * inspection.record_bytes);
  EXPECT_EQ(inspection.kv_bytes_per_token, 8u * 80u * 4u);
  EXPECT_TRUE(inspection.fallbacks.empty());
  EXPECT_GT(inspection.resident_bytes, 0u);
  uint64_t stored_bytes = 0;
  int64_t tensors = 0;
  for (const TensorGroup& group : inspection.groups) {
    stored_bytes += group.size_bytes;
    tensors += group.tensor_count;
  }
  EXPECT_EQ(tensors, static_cast<int64_t>(inspection.tensors.size()));
  EXPECT_GT(stored_bytes, uint64_t{28'000'000});
}

TEST(Inspection, SaysWhichMatricesFallBack) {
  const Inspection inspection = inspect_model(testing::tiny_r1(), quant::DType::kQ4_K);
  EXPECT_EQ(inspection.expert_type, "Q4_K (down Q4_0)");
  ASSERT_EQ(inspection.fallbacks.size(), 1u);
  EXPECT_EQ(inspection.fallbacks[0], "down_proj rows of 128 are no multiple of Q4_K's 256: stored as Q4_0");
  EXPECT_NE(inspection_text(inspection, false).find(inspection.fallbacks[0]), std::string::npos);
}

TEST(Inspection, SaysWhatQuantizingResidentMatricesGives) {
  const Inspection stored = inspect_model(testing::tiny_r1(), {});
  const Inspection wide = inspect_model(testing::tiny_r1(), {}, quant::DType::kBF16);
  EXPECT_EQ(inspection_json(stored, false)["resident"]["type"], "as stored");
  EXPECT_EQ(inspection_json(wide, false)["resident"]["type"], "BF16");
  EXPECT_GT(wide.resident_bytes, stored.resident_bytes);
  EXPECT_GT(wide.bytes_per_token, stored.bytes_per_token);
}

TEST(Inspection, TheCacheIsHalvedWhereBlockFormatsRoundAnyway) {
  const auto kv_bytes = [](std::optional<quant::DType> resident) {
    return inspect_model(testing::tiny_r1(), {}, resident).kv_bytes_per_token;
  };
  EXPECT_EQ(kv_bytes(quant::DType::kBF16), 8u * 80u * 4u);
  EXPECT_EQ(kv_bytes(quant::DType::kQ8_0), 8u * 96u * 2u);  // rows of 32
}

TEST(Inspection, TextAndJsonHaveTheSameNumbers) {
  const Inspection inspection = inspect_model(testing::tiny_r1(), {});
  const quant::Json json = inspection_json(inspection, true);
  EXPECT_EQ(json["tiers"]["resident_bytes"], inspection.resident_bytes);
  EXPECT_EQ(json["experts"]["count"], 224);
  EXPECT_EQ(json["mtp"], true);
  EXPECT_EQ(json["config"]["kv_lora_rank"], 64);
  EXPECT_EQ(json["tensors"].size(), inspection.tensors.size());
  EXPECT_FALSE(inspection_json(inspection, false).contains("tensors"));
  const std::string text = inspection_text(inspection, true);
  EXPECT_NE(text.find("model.layers.8."), std::string::npos);
  EXPECT_NE(text.find("224 of"), std::string::npos);
}

}  // namespace
}  // namespace moraine::tools
