#include "tools/model_sizes.h"

#include <gtest/gtest.h>

#include "quant/safetensors.h"
#include "runtime/expert_source.h"
#include "runtime/weight_loader.h"
#include "support/test_data.h"

namespace moraine::tools {
namespace {

TEST(ModelSizes, GroupsAreAllOfTheModel) {
  const auto config = runtime::ModelConfig::from_directory(testing::tiny_r1());
  const runtime::Model shape = runtime::model_shape(config);
  uint64_t sum = 0;
  for (const offload::ResidentGroup& group : resident_groups(shape)) {
    EXPECT_GT(group.size_bytes, 0u) << group.name;
    sum += group.size_bytes;
  }
  EXPECT_EQ(sum, shape.resident_bytes());
}

TEST(ModelSizes, NeedsOfTheEmbeddedModel) {
  const auto config = runtime::ModelConfig::from_directory(testing::tiny_r1());
  const auto checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const runtime::ExpertSource experts = runtime::open_expert_source(checkpoint, config, std::nullopt);
  const offload::MemoryNeeds needs = memory_needs(runtime::model_shape(config), experts.layouts, 512);
  EXPECT_EQ(needs.expert_count, experts.records->experts().size());
  EXPECT_EQ(needs.record_bytes, experts.records->max_record_bytes());
  EXPECT_EQ(needs.min_slots, 4u);
  EXPECT_EQ(needs.max_context_tokens, 8192);
  EXPECT_EQ(needs.kv_bytes_per_token, kv_bytes_per_token(runtime::model_shape(config)));
  EXPECT_EQ(needs.scratch_bytes, scratch_bytes(config, 512));
}

TEST(ModelSizes, R1NeedsItsPublishedCache) {
  runtime::Model shape;
  shape.config.num_hidden_layers = 61;
  shape.config.kv_lora_rank = 512;
  shape.config.qk_rope_head_dim = 64;
  shape.layers.resize(61);
  EXPECT_EQ(kv_bytes_per_token(shape), 35136u * 4u) << "plain weights: f32 latents";
  for (runtime::LayerWeights& layer : shape.layers) layer.kv_b_proj.view.type = quant::DType::kQ8_0;
  EXPECT_EQ(kv_bytes_per_token(shape), 35136u * 2u) << "block formats: bf16 latents";
  EXPECT_EQ(kv_bytes_per_token(shape, /*precise=*/true), 35136u * 4u);
}

}  // namespace
}  // namespace moraine::tools
