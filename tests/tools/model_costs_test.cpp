#include "tools/model_costs.h"

#include <gtest/gtest.h>

namespace moraine::tools {
namespace {

runtime::Matrix matrix(quant::DType type, int64_t rows, int64_t cols) {
  runtime::Matrix shape_alone;
  shape_alone.view = {.type = type, .rows = rows, .cols = cols};
  return shape_alone;
}

runtime::FfnWeights ffn(quant::DType type, int64_t hidden, int64_t intermediate) {
  return {matrix(type, intermediate, hidden), matrix(type, intermediate, hidden), matrix(type, hidden, intermediate)};
}

/// R1's shapes with `dense` + `moe` layers, without any weights.
runtime::Model r1_shapes(int64_t dense, int64_t moe, quant::DType resident) {
  runtime::Model model;
  runtime::ModelConfig& config = model.config;
  config.vocab_size = 129280;
  config.hidden_size = 7168;
  config.intermediate_size = 18432;
  config.moe_intermediate_size = 2048;
  config.num_hidden_layers = dense + moe;
  config.num_attention_heads = 128;
  config.n_shared_experts = 1;
  config.n_routed_experts = 256;
  config.num_experts_per_tok = 8;
  config.first_k_dense_replace = dense;
  config.q_lora_rank = 1536;
  config.kv_lora_rank = 512;
  config.qk_nope_head_dim = 128;
  config.qk_rope_head_dim = 64;
  config.v_head_dim = 128;
  model.embed_tokens = matrix(quant::DType::kBF16, 129280, 7168);
  model.norm.resize(7168);
  model.lm_head = matrix(resident, 129280, 7168);
  for (int64_t l = 0; l < dense + moe; ++l) {
    runtime::LayerWeights& layer = model.layers.emplace_back();
    layer.input_layernorm.resize(7168);
    layer.post_attention_layernorm.resize(7168);
    layer.q_a_proj = matrix(resident, 1536, 7168);
    layer.q_a_layernorm.resize(1536);
    layer.q_b_proj = matrix(resident, 24576, 1536);
    layer.kv_a_proj_with_mqa = matrix(resident, 576, 7168);
    layer.kv_a_layernorm.resize(512);
    layer.kv_b_proj = matrix(resident, 32768, 512);
    layer.o_proj = matrix(resident, 7168, 16384);
    layer.ffn = ffn(resident, 7168, l < dense ? 18432 : 2048);
    if (l < dense) continue;
    layer.gate = matrix(quant::DType::kF32, 256, 7168);
    layer.e_score_correction_bias.resize(256);
  }
  return model;
}

std::vector<quant::ExpertLayout> layouts(const runtime::Model& model, quant::DType type) {
  return std::vector<quant::ExpertLayout>(model.layers.size(), quant::ExpertLayout::make(type, 7168, 2048));
}

// The counts of shared/spec/deepseek-v3.md §6, and its FLOP per cached token of §3.2.
constexpr double kAttentionWeights = 187107328.0 - 1536 - 512;  // without the two latent norms
constexpr double kDenseFfnWeights = 396361728.0;
constexpr double kExpertWeights = 44040192.0;
constexpr double kGateWeights = 256.0 * 7168;
constexpr double kHeadWeights = 926679040.0;

TEST(ModelCosts, FlopOfAnR1TokenIsTwicePerActiveParameter) {
  const runtime::Model model = r1_shapes(3, 58, quant::DType::kQ8_0);
  const StepCosts costs = ModelCosts(model, layouts(model, quant::DType::kQ4_K)).decode(0.0);
  const double self = 61 * 2.0 * 139264;  // a token attends to itself
  EXPECT_DOUBLE_EQ(costs[LayerKind::kAttention].flop, 61 * 2 * kAttentionWeights + self);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kDenseFfn].flop, 3 * 2 * kDenseFfnWeights);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kRoute].flop, 58 * 2 * kGateWeights);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kShared].flop, 58 * 2 * kExpertWeights);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kRouted].flop, 2 * 20434649088.0);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kHead].flop, 2 * kHeadWeights);
  EXPECT_EQ(costs[LayerKind::kEmbed].flop, 0.0);
}

TEST(ModelCosts, BytesFollowTheFormats) {
  const runtime::Model model = r1_shapes(1, 2, quant::DType::kQ8_0);
  const StepCosts costs = ModelCosts(model, layouts(model, quant::DType::kQ4_K)).decode(0.0);
  const double q8 = 8.5 / 8, q4 = 4.5 / 8;
  EXPECT_DOUBLE_EQ(costs[LayerKind::kAttention].weight_bytes, 3 * (kAttentionWeights * q8 + 4.0 * (7168 + 1536 + 512)));
  EXPECT_DOUBLE_EQ(costs[LayerKind::kDenseFfn].weight_bytes, kDenseFfnWeights * q8 + 4.0 * 7168);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kRoute].weight_bytes, 2 * 4.0 * (kGateWeights + 256 + 7168));
  EXPECT_DOUBLE_EQ(costs[LayerKind::kShared].weight_bytes, 2 * kExpertWeights * q8);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kRouted].weight_bytes, 2 * 8 * kExpertWeights * q4);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kHead].weight_bytes, kHeadWeights * q8 + 4.0 * 7168);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kEmbed].weight_bytes, 2.0 * 7168);
}

TEST(ModelCosts, ContextCostsAbsorbedAttentionWhenDecoding) {
  const runtime::Model model = r1_shapes(1, 2, quant::DType::kQ8_0);
  const ModelCosts costs(model, layouts(model, quant::DType::kQ4_K));
  const Cost far = total_of(costs.decode(8192.0)), near = total_of(costs.decode(0.0));
  EXPECT_DOUBLE_EQ(far.context_flop, 3 * 2.0 * 139264 * 8193);  // issue: 2.3 GFLOP per layer and token
  EXPECT_DOUBLE_EQ(far.flop - near.flop, far.context_flop - near.context_flop);
  EXPECT_EQ(far.weight_bytes, near.weight_bytes);
}

TEST(ModelCosts, APromptSharesWeightsAndCountsPairs) {
  const runtime::Model model = r1_shapes(1, 2, quant::DType::kQ8_0);
  const ModelCosts costs(model, layouts(model, quant::DType::kQ4_K));
  const std::vector<int64_t> touched = {0, 256, 200};
  const StepCosts prompt = costs.prefill(100, touched), token = costs.decode(0.0);
  EXPECT_DOUBLE_EQ(prompt[LayerKind::kAttention].context_flop, 3 * 2.0 * 40960 * (100 * 101 / 2));
  EXPECT_DOUBLE_EQ(prompt[LayerKind::kAttention].flop - prompt[LayerKind::kAttention].context_flop,
                   100 * 3 * 2 * kAttentionWeights);
  EXPECT_EQ(prompt[LayerKind::kAttention].weight_bytes, token[LayerKind::kAttention].weight_bytes);
  EXPECT_DOUBLE_EQ(prompt[LayerKind::kRouted].flop, 100 * token[LayerKind::kRouted].flop);
  EXPECT_DOUBLE_EQ(prompt[LayerKind::kRouted].weight_bytes, 456 * kExpertWeights * 4.5 / 8);
  EXPECT_EQ(prompt[LayerKind::kHead].flop, token[LayerKind::kHead].flop) << "logits of the last token only";
  EXPECT_DOUBLE_EQ(prompt[LayerKind::kEmbed].weight_bytes, 100 * 2.0 * 7168);
}

TEST(ModelCosts, ADenseModelReadsEverythingOnce) {
  runtime::Model model;
  model.config.attention = runtime::AttentionKind::kGrouped;
  model.config.num_hidden_layers = 1;
  model.config.num_attention_heads = 28;
  model.config.num_key_value_heads = 4;
  model.config.head_dim = 128;
  model.embed_tokens = matrix(quant::DType::kBF16, 1024, 3584);
  model.norm.resize(3584);
  runtime::LayerWeights& layer = model.layers.emplace_back();
  layer.q_proj = matrix(quant::DType::kBF16, 3584, 3584);
  layer.k_proj = matrix(quant::DType::kBF16, 512, 3584);
  layer.v_proj = matrix(quant::DType::kBF16, 512, 3584);
  layer.o_proj = matrix(quant::DType::kBF16, 3584, 3584);
  layer.q_bias.resize(3584);
  layer.ffn = ffn(quant::DType::kBF16, 3584, 18944);
  const StepCosts costs = ModelCosts(model, std::vector<quant::ExpertLayout>(1)).decode(9.0);
  const double weights = 2 * 3584.0 * (3584 + 512);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kAttention].weight_bytes, 2 * weights + 4 * 3584.0);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kAttention].flop, 2 * weights + 10 * 4 * 28 * 128.0);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kDenseFfn].flop, 2 * 3 * 3584.0 * 18944);
  EXPECT_DOUBLE_EQ(costs[LayerKind::kHead].weight_bytes, 2 * 3584.0 * 1024 + 4 * 3584) << "the embedding is the head";
  EXPECT_EQ(costs[LayerKind::kRouted].flop + costs[LayerKind::kShared].flop + costs[LayerKind::kRoute].flop, 0.0);
}

}  // namespace
}  // namespace moraine::tools
