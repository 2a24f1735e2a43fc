#include "runtime/model_config.h"

#include <gtest/gtest.h>

#include <cmath>

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
Json v2_lite() {
  return quant::read_json(test_data("oracle/models/v2-lite/config.json"));
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
  EXPECT_EQ(config.rope_scaling.type, RopeScaling::Type::kYarn);
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
  EXPECT_EQ(config.rope_scaling.type, RopeScaling::Type::kYarn);
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
  Json json = r1();
  json["model_type"] = "mixtral";
  testing::expect_error(
      quant::ErrorKind::kBadFile,
      {"config.json", "model_type: 'mixtral' is not supported", "deepseek_v3, deepseek_v2, qwen2, llama"},
      [&] { parse(json); });
}

TEST(ModelConfig, KnowsAnArchitectureByItsClass) {
  Json json = quant::read_json(test_data("configs/r1-distill-qwen-7b.json"));
  json.erase("model_type");
  EXPECT_EQ(parse(json).model_type, "qwen2");
}

TEST(ModelConfig, ReadsV2Lite) {
  const ModelConfig config = parse(v2_lite());
  EXPECT_EQ(config.attention, AttentionKind::kLatent);
  EXPECT_EQ(config.q_lora_rank, 0);
  EXPECT_EQ(config.scoring_func, ScoringFunc::kSoftmax);
  EXPECT_EQ(config.topk_method, TopkMethod::kGreedy);
  EXPECT_FALSE(config.norm_topk_prob);
  EXPECT_FALSE(config.has_correction_bias());
  EXPECT_EQ(config.shared_intermediate_size(), 128);
  EXPECT_TRUE(config.is_moe_layer(1));
  const double m = 0.1 * 0.707 * std::log(40.0) + 1.0;
  EXPECT_DOUBLE_EQ(config.softmax_scale(), m * m / std::sqrt(48.0));
}

TEST(ModelConfig, ReadsTheGroupsOfV2) {
  Json json = v2_lite();
  json["topk_method"] = "group_limited_greedy";
  json["n_group"] = 8;
  json["topk_group"] = 3;
  json["routed_scaling_factor"] = 16.0;
  const ModelConfig config = parse(json);
  EXPECT_EQ(config.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(config.n_group, 8);
  EXPECT_EQ(config.topk_group, 3);
  // Groups mean nothing to the greedy method, whatever the file says of them.
  json["topk_method"] = "greedy";
  EXPECT_EQ(parse(json).n_group, 1);
}

TEST(ModelConfig, RefusesWhatV2DoesNotHave) {
  const std::pair<const char*, Json> unsupported[] = {
      {"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}, {"norm_topk_prob", true}};
  for (const auto& [field, value] : unsupported) {
    Json json = v2_lite();
    json[field] = value;
    testing::expect_error(quant::ErrorKind::kBadFile, {field}, [&] { parse(json); });
  }
}

TEST(ModelConfig, ReadsTheDistills) {
  const ModelConfig qwen = parse(quant::read_json(test_data("configs/r1-distill-qwen-7b.json")));
  EXPECT_EQ(qwen.attention, AttentionKind::kGrouped);
  EXPECT_EQ(qwen.rope_pairs, RopePairs::kHalves);
  EXPECT_EQ(qwen.rope_scaling.type, RopeScaling::Type::kNone);
  EXPECT_TRUE(qwen.qkv_bias);
  EXPECT_FALSE(qwen.tie_word_embeddings);
  EXPECT_EQ(qwen.num_key_value_heads, 4);
  EXPECT_EQ(qwen.head_dim, 128);
  EXPECT_EQ(qwen.rope_dim(), 128);
  EXPECT_FALSE(qwen.has_experts());
  EXPECT_FALSE(qwen.is_moe_layer(27));
  EXPECT_DOUBLE_EQ(qwen.softmax_scale(), 1.0 / std::sqrt(128.0));

  const ModelConfig llama = parse(quant::read_json(test_data("configs/r1-distill-llama-8b.json")));
  EXPECT_EQ(llama.model_type, "llama");
  EXPECT_FALSE(llama.qkv_bias);
  EXPECT_EQ(llama.rope_scaling.type, RopeScaling::Type::kLlama3);
  EXPECT_DOUBLE_EQ(llama.rope_scaling.factor, 8.0);
  EXPECT_DOUBLE_EQ(llama.rope_scaling.high_freq_factor, 4.0);
  EXPECT_EQ(llama.rope_scaling.original_max_position_embeddings, 8192);
}

TEST(ModelConfig, RefusesWhatTheDistillsDoNotHave) {
  const std::pair<const char*, Json> unsupported[] = {
      {"num_key_value_heads", 3}, {"head_dim", 127}, {"mlp_bias", true}, {"use_sliding_window", true}};
  for (const auto& [field, value] : unsupported) {
    Json json = quant::read_json(test_data("configs/r1-distill-qwen-7b.json"));
    json[field] = value;
    testing::expect_error(quant::ErrorKind::kBadFile, {field}, [&] { parse(json); });
  }
  Json json = quant::read_json(test_data("configs/r1-distill-llama-8b.json"));
  json["rope_scaling"]["high_freq_factor"] = 1.0;
  testing::expect_error(quant::ErrorKind::kBadFile, {"rope_scaling.high_freq_factor"}, [&] { parse(json); });
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
  const std::pair<const char*, Json> unsupported[] = {{"attention_bias", true},
                                                      {"hidden_act", "gelu"},
                                                      {"topk_method", "greedy"},
                                                      {"moe_layer_freq", 2},
                                                      {"qk_rope_head_dim", 63}};
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
