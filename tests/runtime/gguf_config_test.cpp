#include "runtime/gguf_config.h"

#include <gtest/gtest.h>

#include "quant/json.h"
#include "runtime/model_config.h"
#include "support/expect_error.h"
#include "support/gguf_model.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using quant::GgufMetadata;
using quant::GgufValue;
using quant::Json;
using testing::expect_error;
using testing::GgufBytes;
using testing::TempDir;

class GgufConfig : public ::testing::Test {
 protected:
  quant::Gguf open(const GgufBytes& file) const { return quant::Gguf::open(dir_.write("model.gguf", file.file())); }
  Json config_of(const GgufBytes& file) const { return quant::parse_json(gguf_config_json(open(file)), "config.json"); }
  void expect_refused(const GgufBytes& file, std::initializer_list<std::string_view> parts) const {
    expect_error(quant::ErrorKind::kBadFile, parts, [&] { gguf_config_json(open(file)); });
  }

  /// R1's metadata without the key, or with another value.
  static GgufBytes r1_with(const std::string& key, const std::optional<GgufValue>& value) {
    const GgufBytes all = testing::r1_metadata();
    GgufBytes changed;
    const std::string bytes = all.file();
    const auto read = [&](std::span<std::byte> out, uint64_t offset) {
      std::memcpy(out.data(), bytes.data() + offset, out.size());
    };
    for (const auto& [name, old] : quant::parse_gguf(read, bytes.size(), "r1").metadata) {
      if (name != key) changed.key(name, old);
    }
    if (value) changed.key(key, *value);
    return changed;
  }
  static GgufBytes r1_without(const std::string& key) { return r1_with(key, std::nullopt); }

  TempDir dir_;
};

TEST_F(GgufConfig, IsThePublishedConfigOfR1) {
  const Json got = config_of(testing::r1_metadata());
  Json published = quant::read_json(testing::test_data("configs/deepseek-r1.json"));
  published["num_nextn_predict_layers"] = 0;  // its layer is not in the file
  for (const auto& [name, value] : got.items()) {
    if (name == "rope_scaling") {
      for (const auto& [field, number] : value.items()) EXPECT_EQ(number, published[name][field]) << field;
      continue;
    }
    EXPECT_EQ(value, published[name]) << name;
  }
  const ModelConfig config = ModelConfig::parse(got.dump(), "config.json");
  EXPECT_EQ(config.qk_nope_head_dim, 128);
  EXPECT_DOUBLE_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_NEAR(config.softmax_scale(), 0.1352337788608801, 1e-15);
}

TEST_F(GgufConfig, ReadsTheFilesOfEarly2025) {
  // One key per head, the head's own widths, and nothing said of groups.
  GgufBytes old = testing::r1_metadata();
  const std::string bytes = old.file();
  const auto read = [&](std::span<std::byte> out, uint64_t offset) {
    std::memcpy(out.data(), bytes.data() + offset, out.size());
  };
  GgufBytes file;
  for (const auto& [name, value] : quant::parse_gguf(read, bytes.size(), "r1").metadata) {
    if (name.ends_with("_mla") || name.find("expert_group") != std::string::npos) continue;
    if (name.ends_with("head_count_kv") || name.ends_with("key_length") || name.ends_with("value_length")) continue;
    file.key(name, value);
  }
  file.key("deepseek2.attention.head_count_kv", GgufValue::u32(128));
  file.key("deepseek2.attention.key_length", GgufValue::u32(192));
  file.key("deepseek2.attention.value_length", GgufValue::u64(128));  // any integer will do
  EXPECT_EQ(config_of(file), config_of(testing::r1_metadata()));
}

TEST_F(GgufConfig, CountsPredictionLayersApart) {
  GgufBytes file = r1_with("deepseek2.block_count", GgufValue::u32(62));
  file.key("deepseek2.nextn_predict_layers", GgufValue::u32(1));
  const Json config = config_of(file);
  EXPECT_EQ(config["num_hidden_layers"], 61);
  EXPECT_EQ(config["num_nextn_predict_layers"], 1);
}

TEST_F(GgufConfig, TakesTheVocabularyFromTheEmbedding) {
  GgufBytes file = r1_without("deepseek2.vocab_size");
  file.tensor("token_embd.weight", {32, 5}, 8, 0).bytes(std::string(5 * 34, 'x'));
  EXPECT_EQ(config_of(file)["vocab_size"], 5);
  EXPECT_EQ(config_of(file)["tie_word_embeddings"], true);
  file.tensor("output.weight", {32, 1}, 8, 192).bytes(std::string(64, 'x'));
  EXPECT_EQ(config_of(file)["tie_word_embeddings"], false);
}

TEST_F(GgufConfig, ASoftmaxRouterIsV2) {
  const Json config = config_of(r1_with("deepseek2.expert_gating_func", GgufValue::u32(1)));
  EXPECT_EQ(config["model_type"], "deepseek_v2");
  EXPECT_EQ(config["scoring_func"], "softmax");
}

TEST_F(GgufConfig, DescribesDenseDistills) {
  for (const std::string architecture : {"qwen2", "llama"}) {
    GgufBytes file;
    file.key("general.architecture", GgufValue::string(architecture));
    for (const auto& [name, value] : {std::pair{".block_count", 28u},
                                      {".embedding_length", 3584u},
                                      {".feed_forward_length", 18944u},
                                      {".attention.head_count", 28u},
                                      {".attention.head_count_kv", 4u},
                                      {".context_length", 131072u},
                                      {".vocab_size", 152064u}}) {
      file.key(architecture + name, GgufValue::u32(value));
    }
    file.key(architecture + ".attention.layer_norm_rms_epsilon", GgufValue::f32(1e-6f));
    file.key(architecture + ".rope.freq_base", GgufValue::f32(10000.0f));
    const Json config = config_of(file);
    EXPECT_EQ(config["model_type"], architecture);
    EXPECT_EQ(config["num_key_value_heads"], 4);
    EXPECT_EQ(config["num_hidden_layers"], 28);
    EXPECT_EQ(config.contains("rope_interleave"), architecture == "llama");
  }
}

/// A Llama's metadata and its divisors, those of shared/spec/dense-distills.md §3 with `factor`.
GgufBytes llama3(float factor, float last) {
  GgufBytes file;
  file.key("general.architecture", GgufValue::string("llama"));
  for (const char* name : {".block_count", ".embedding_length", ".feed_forward_length", ".attention.head_count",
                           ".context_length", ".vocab_size"}) {
    file.key("llama" + std::string(name), GgufValue::u32(1));
  }
  file.key("llama.attention.layer_norm_rms_epsilon", GgufValue::f32(1e-5f));
  file.key("llama.rope.freq_base", GgufValue::f32(500000.0f));
  file.tensor("rope_freqs.weight", {64}, 0, 0);
  const float ramp[] = {1.20748f, 1.55341f, 2.02631f, 2.69453f, 3.68425f, 5.25733f};
  for (int pair = 0; pair < 64; ++pair) {
    float divisor = pair < 29 ? 1.0f : pair < 35 ? ramp[pair - 29] : factor;
    if (pair == 63) divisor = last;
    file.bytes(GgufBytes::number(divisor));
  }
  return file;
}

TEST_F(GgufConfig, ReadsLlama3sScalingOutOfItsDivisors) {
  const Json scaling = config_of(llama3(8.0f, 8.0f))["rope_scaling"];
  EXPECT_EQ(scaling["rope_type"], "llama3");
  EXPECT_EQ(scaling["factor"], 8.0);
  EXPECT_EQ(scaling["original_max_position_embeddings"], 8192);
  expect_refused(llama3(8.0f, 32.0f), {"rope_freqs.weight", "not Llama 3's scaling"});
}

TEST_F(GgufConfig, ReportsEveryFaultAtOnce) {
  GgufBytes file;
  file.key("general.architecture", GgufValue::string("deepseek2"));
  file.key("deepseek2.block_count", GgufValue::string("many"));
  expect_refused(file, {"model.gguf", "deepseek2.block_count: expected an integer, got string",
                        "deepseek2.embedding_length: is missing", "deepseek2.expert_count: is missing"});
  expect_refused(r1_with("deepseek2.rope.scaling.type", GgufValue::string("linear")),
                 {"deepseek2.rope.scaling.type", "'linear'"});
  expect_refused(r1_with("deepseek2.rope.dimension_count", GgufValue::u32(192)),
                 {"deepseek2.attention.key_length_mla", "not more than"});
}

TEST_F(GgufConfig, ComparesTheHalvesOfKvBWithTheHeads) {
  GgufBytes file = testing::r1_metadata();
  file.tensor("blk.0.attn_k_b.weight", {64, 2, 3}, 0, 0).bytes(std::string(2048, 'x'));
  expect_refused(file, {"key_length_mla", "leaves 128", "blk.0.attn_k_b.weight has 64"});
}

TEST_F(GgufConfig, NamesAnUnknownArchitecture) {
  GgufBytes file;
  file.key("general.architecture", GgufValue::string("mamba"));
  expect_refused(file, {"general.architecture", "deepseek2, qwen2 or llama", "mamba"});
  expect_refused(GgufBytes(), {"general.architecture", "got none"});
}

}  // namespace
}  // namespace moraine::runtime
