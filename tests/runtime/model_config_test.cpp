#include "runtime/model_config.h"

#include <gtest/gtest.h>

#include "quant/error.h"
#include "support/expect_error.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using quant::Json;
using testing::test_data;

Json r1() {
  return quant::read_json(test_data("configs/deepseek-r1.json"));
}
ModelConfig parse(const Json& json) {
  return ModelConfig::parse(json.dump(), "config.json");
}

TEST(ModelConfig, ReadsEveryFieldOfR1) {
  const ModelConfig config = parse(r1());
  EXPECT_EQ(config.model_type, "deepseek_v3");
  EXPECT_EQ(config.vocab_size, 129280);
  EXPECT_EQ(config.hidden_size, 7168);
  EXPECT_EQ(config.intermediate_size, 18432);
  EXPECT_EQ(config.moe_intermediate_size, 2048);
  EXPECT_EQ(config.num_hidden_layers, 61);
  EXPECT_EQ(config.num_nextn_predict_layers, 1);
  EXPECT_EQ(config.num_attention_heads, 128);
  EXPECT_EQ(config.n_shared_experts, 1);
  EXPECT_EQ(config.n_routed_experts, 256);
  EXPECT_EQ(config.num_experts_per_tok, 8);
  EXPECT_EQ(config.n_group, 8);
  EXPECT_EQ(config.topk_group, 4);
  EXPECT_EQ(config.first_k_dense_replace, 3);
  EXPECT_TRUE(config.norm_topk_prob);
  EXPECT_DOUBLE_EQ(config.routed_scaling_factor, 2.5);
  EXPECT_EQ(config.q_lora_rank, 1536);
  EXPECT_EQ(config.kv_lora_rank, 512);
  EXPECT_EQ(config.qk_head_dim(), 192);
  EXPECT_EQ(config.latent_width(), 576);
  EXPECT_EQ(config.v_head_dim, 128);
  EXPECT_EQ(config.max_position_embeddings, 163840);
  EXPECT_DOUBLE_EQ(config.rope_theta, 10000.0);
  EXPECT_TRUE(config.rope_scaling.yarn);
  EXPECT_DOUBLE_EQ(config.rope_scaling.factor, 40.0);
  EXPECT_EQ(config.rope_scaling.original_max_position_embeddings, 4096);
  EXPECT_DOUBLE_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.bos_token_id, 0);
  EXPECT_EQ(config.eos_token_ids, std::vector<int32_t>{1});
  EXPECT_TRUE(config.fp8_weights);
  EXPECT_FALSE(config.is_moe_layer(2));
  EXPECT_TRUE(config.is_moe_layer(3));
  EXPECT_NEAR(config.softmax_scale(), 0.1352337788608801, 1e-15);
}

TEST(ModelConfig, TakesTheNewerRopeParameters) {
  Json json = r1();
  Json parameters = json["rope_scaling"];
  parameters["rope_type"] = parameters["type"];
  parameters["rope_theta"] = 20000.0;
  parameters.erase("type");
  json.erase("rope_scaling");
  json.erase("rope_theta");
  json["rope_parameters"] = parameters;
  const ModelConfig config = parse(json);
  EXPECT_TRUE(config.rope_scaling.yarn);
  EXPECT_DOUBLE_EQ(config.rope_theta, 20000.0);
}

TEST(ModelConfig, IgnoresUnknownFieldsAndTakesAListOfEndTokens) {
  Json json = r1();
  json["auto_map"] = {{"AutoModel", "modeling.Remote"}};
  json["something_new"] = 7;
  json["eos_token_id"] = {1, 5};
  EXPECT_EQ(parse(json).eos_token_ids, (std::vector<int32_t>{1, 5}));
}

TEST(ModelConfig, NamesAnUnknownArchitecture) {
  const Json qwen = quant::read_json(test_data("configs/r1-distill-qwen-7b.json"));
  testing::expect_error(quant::ErrorKind::kBadFile, {"config.json", "model_type", "'qwen2' is not supported"},
                        [&] { parse(qwen); });
}

TEST(ModelConfig, ReportsEveryFaultAtOnce) {
  Json json = r1();
  json.erase("hidden_size");
  json["kv_lora_rank"] = -3;
  json["q_lora_rank"] = "wide";
  json["scoring_func"] = "softmax";
  json["rope_scaling"]["type"] = "linear";
  json["n_group"] = 7;
  testing::expect_error(quant::ErrorKind::kBadFile,
                        {"hidden_size: missing", "kv_lora_rank: expected", "q_lora_rank: expected an integer",
                         "'softmax'", "rope_scaling.type: 'linear'", "n_group: 256 experts cannot be split"},
                        [&] { parse(json); });
}

TEST(ModelConfig, RefusesSizesThatCouldOverflow) {
  for (const char* field :
       {"vocab_size", "hidden_size", "num_hidden_layers", "n_routed_experts", "moe_intermediate_size"}) {
    Json json = r1();
    json[field] = 9223372036854775807;
    testing::expect_error(quant::ErrorKind::kBadFile, {field, "expected 1 to"}, [&] { parse(json); });
    json[field] = 18446744073709551615u;
    testing::expect_error(quant::ErrorKind::kBadFile, {field, "expected 1 to"}, [&] { parse(json); });
    json[field] = 0;
    testing::expect_error(quant::ErrorKind::kBadFile, {field, "expected 1 to"}, [&] { parse(json); });
  }
}

TEST(ModelConfig, RefusesWhatItDoesNotBuild) {
  const std::pair<const char*, Json> unsupported[] = {
      {"attention_bias", true}, {"tie_word_embeddings", true}, {"hidden_act", "gelu"},  {"topk_method", "greedy"},
      {"moe_layer_freq", 2},    {"q_lora_rank", nullptr},      {"qk_rope_head_dim", 63}};
  for (const auto& [field, value] : unsupported) {
    Json json = r1();
    json[field] = value;
    testing::expect_error(quant::ErrorKind::kBadFile, {field}, [&] { parse(json); });
  }
  Json json = r1();
  json["quantization_config"]["weight_block_size"] = {64, 64};
  testing::expect_error(quant::ErrorKind::kBadFile, {"weight_block_size", "[64,64]"}, [&] { parse(json); });
}

TEST(ModelConfig, SaysWhatAModelDirectoryIs) {
  testing::expect_error(quant::ErrorKind::kBadFile, {"config.json is missing"},
                        [&] { ModelConfig::from_directory(test_data("vectors")); });
}

}  // namespace
}  // namespace moraine::runtime
