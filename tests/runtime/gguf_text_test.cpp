#include "runtime/gguf_text.h"

#include <gtest/gtest.h>

#include "quant/json.h"
#include "runtime/byte_alphabet.h"
#include "runtime/gguf_metadata.h"
#include "runtime/model_source.h"
#include "runtime/model_text.h"
#include "support/expect_error.h"
#include "support/gguf_model.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using quant::GgufArray;
using quant::GgufValue;
using testing::expect_error;
using testing::GgufBytes;
using testing::TempDir;

/// The tokens of all 256 bytes, "ab", a control token, a user-defined one and a padding row.
struct SmallVocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges = {"a b"};
  std::string pre = "deepseek-v3";

  SmallVocabulary() {
    for (int byte = 0; byte < 256; ++byte) add(bytes_to_alphabet(std::string(1, static_cast<char>(byte))), 1);
    add("ab", 1);
    add("<｜User｜>", 3);
    add("<think>", 4);
    add("[PAD259]", 5);
  }
  void add(const std::string& text, int32_t type) {
    tokens.push_back(text);
    types.push_back(type);
  }
  GgufBytes file() const {
    GgufBytes file;
    file.key("tokenizer.ggml.model", GgufValue::string("gpt2")).key("tokenizer.ggml.pre", GgufValue::string(pre));
    file.key("tokenizer.ggml.tokens", GgufValue::array(GgufArray::of_strings(tokens)));
    file.key("tokenizer.ggml.token_type", GgufValue::array(GgufArray::of_i32(types)));
    file.key("tokenizer.ggml.merges", GgufValue::array(GgufArray::of_strings(merges)));
    return file;
  }
};

class GgufText : public ::testing::Test {
 protected:
  quant::Gguf open(const GgufBytes& file) const { return quant::Gguf::open(dir_.write("model.gguf", file.file())); }
  Tokenizer tokenizer_of(const GgufBytes& file) const {
    return Tokenizer::from_json(gguf_tokenizer_json(open(file)), "model.gguf");
  }
  void expect_refused(const GgufBytes& file, std::initializer_list<std::string_view> parts) const {
    expect_error(quant::ErrorKind::kBadFile, parts, [&] { tokenizer_of(file); });
  }

  TempDir dir_;
};

TEST_F(GgufText, TypesOfTokensDecideWhatTextBecomes) {
  const SmallVocabulary small;
  ASSERT_EQ(small.tokens.size(), 260u);
  const Tokenizer tokenizer = tokenizer_of(small.file());
  EXPECT_EQ(tokenizer.encode("ab", AddedTokens::kAsText), std::vector<int32_t>{256});
  EXPECT_EQ(tokenizer.encode("<｜User｜>ab<think>", AddedTokens::kParse), (std::vector<int32_t>{257, 256, 258}));
  EXPECT_TRUE(tokenizer.is_special(257));
  EXPECT_FALSE(tokenizer.is_special(258));
  EXPECT_TRUE(tokenizer.is_added(258));
  EXPECT_EQ(tokenizer.vocab_size(), 259);  // the padding row is no token
}

TEST_F(GgufText, KnowsThePreTokenizersOfTheFamily) {
  SmallVocabulary small;
  for (const char* name : {"deepseek-v3", "qwen2", "deepseek-r1-qwen", "llama-bpe", "llama3", "llama-v3"}) {
    small.pre = name;
    EXPECT_FALSE(tokenizer_of(small.file()).encode("a b", AddedTokens::kAsText).empty()) << name;
  }
  small.pre = "deepseek-llm";  // right only for a vocabulary as large as V3's
  expect_refused(small.file(), {"tokenizer.ggml.pre", "'deepseek-llm'"});
}

TEST_F(GgufText, RefusesATokenizerThatDoesNotFitTogether) {
  SmallVocabulary small;
  small.types.pop_back();
  expect_refused(small.file(), {"model.gguf", "tokenizer.ggml.token_type", "259 entries for 260 tokens"});
  GgufBytes none;
  none.key("tokenizer.ggml.model", GgufValue::string("none"));
  expect_refused(none, {"has no tokenizer"});
  expect_refused(GgufBytes(), {"has no tokenizer"});
  GgufBytes spm;
  spm.key("tokenizer.ggml.model", GgufValue::string("llama"));
  expect_refused(spm, {"tokenizer.ggml.model", "gpt2", "llama"});
  GgufBytes bare;
  bare.key("tokenizer.ggml.model", GgufValue::string("gpt2"));
  bare.key("tokenizer.ggml.tokens", GgufValue::u32(3));
  expect_refused(bare, {"tokenizer.ggml.tokens: expected an array of strings, got u32", "merges: is missing"});
  SmallVocabulary broken;
  broken.tokens[256] = "\xFF\xFE";
  expect_refused(broken.file(), {"not valid UTF-8"});
}

TEST_F(GgufText, NamesSpecialTokensAndEnds) {
  GgufBytes file = SmallVocabulary().file();
  file.key("tokenizer.ggml.bos_token_id", GgufValue::u32(257)).key("tokenizer.ggml.eos_token_id", GgufValue::u32(258));
  file.key("tokenizer.ggml.eot_token_id", GgufValue::u32(256));
  file.key("tokenizer.chat_template", GgufValue::string("{{ bos_token }}"));
  file.key("general.sampling.temp", GgufValue::f32(0.6f)).key("general.sampling.top_k", GgufValue::i32(40));
  const quant::Gguf gguf = open(file);
  const quant::Json config = quant::parse_json(gguf_tokenizer_config_json(gguf), "config");
  EXPECT_EQ(config["bos_token"], "<｜User｜>");
  EXPECT_EQ(config["eos_token"], "<think>");
  EXPECT_FALSE(config.contains("pad_token"));
  EXPECT_EQ(config["chat_template"], "{{ bos_token }}");
  const quant::Json generation = quant::parse_json(gguf_generation_config_json(gguf), "generation");
  EXPECT_EQ(generation["eos_token_id"], quant::Json::array({258, 256}));
  EXPECT_EQ(generation["temperature"], 0.6);
  EXPECT_EQ(generation["top_k"], 40);

  GgufBytes bad = SmallVocabulary().file();
  bad.key("tokenizer.ggml.bos_token_id", GgufValue::u32(260));
  expect_error(quant::ErrorKind::kBadFile, {"bos_token_id", "260 is no token"},
               [&] { gguf_tokenizer_config_json(open(bad)); });
}

/// A model directory's text → GGUF metadata → text again.
TEST_F(GgufText, WhatIsWrittenReadsTheSame) {
  const auto source = ModelSource::open(testing::tiny_r1());
  const ModelConfig config = source->config();
  const ModelText text = ModelText::from_source(*source, config);
  quant::GgufWriter(dir_ / "tiny.gguf", gguf_metadata(*source, "tiny", quant::DType::kQ8_0), {}).finish();
  const auto written = ModelSource::open(dir_ / "tiny.gguf");
  EXPECT_EQ(written->kind(), "GGUF file");
  const ModelConfig config2 = written->config();
  EXPECT_EQ(config2.num_hidden_layers, config.num_hidden_layers);
  EXPECT_EQ(config2.n_group, config.n_group);
  EXPECT_EQ(config2.topk_group, config.topk_group);
  EXPECT_EQ(config2.softmax_scale(), config.softmax_scale());
  EXPECT_EQ(config2.rms_norm_eps, config.rms_norm_eps);
  const ModelText text2 = ModelText::from_source(*written, config2);
  EXPECT_EQ(text2.tokenizer.vocab_size(), text.tokenizer.vocab_size());
  for (int32_t id = 0; id < text.tokenizer.vocab_size(); ++id) {
    EXPECT_EQ(text2.tokenizer.token_bytes(id), text.tokenizer.token_bytes(id)) << id;
    EXPECT_EQ(text2.tokenizer.is_added(id), text.tokenizer.is_added(id)) << id;
  }
  EXPECT_EQ(text2.tokenizer.special().bos, text.tokenizer.special().bos);
  EXPECT_EQ(text2.tokenizer.special().eos, text.tokenizer.special().eos);
  EXPECT_EQ(text2.stop_tokens, text.stop_tokens);
  EXPECT_EQ(text2.think_token, text.think_token);
  EXPECT_EQ(text2.default_sampling.temperature, text.default_sampling.temperature);
  EXPECT_EQ(text2.default_sampling.top_p, text.default_sampling.top_p);
  const std::string sample = "12+345 = Ünïcödé 漢字\n\n  <think> the end";
  EXPECT_EQ(text2.tokenizer.encode(sample, AddedTokens::kParse), text.tokenizer.encode(sample, AddedTokens::kParse));
  const std::vector<Message> messages = {{"user", "What is 2+3?"}};
  ASSERT_TRUE(text2.chat_template.has_value());
  EXPECT_EQ(text2.tokenizer.encode(text2.chat_template->render(messages, true)),
            text.tokenizer.encode(text.chat_template->render(messages, true)));
}

}  // namespace
}  // namespace moraine::runtime
