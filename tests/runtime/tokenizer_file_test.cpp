#include "runtime/tokenizer_file.h"

#include <gtest/gtest.h>

#include <functional>

#include "support/expect_error.h"
#include "support/small_tokenizer.h"

namespace moraine::runtime {
namespace {

using quant::ErrorKind;
using quant::Json;
using testing::expect_error;

Json small_json() {
  return testing::small_tokenizer_json(PreTokenizerKind::kDeepSeekV3, {{"a", "b"}, {"ab", "c"}});
}

TokenizerFile parse(const Json& json) {
  return parse_tokenizer_file(json.dump(), "dir/tokenizer.json");
}

TEST(TokenizerFile, ReadsEverything) {
  const TokenizerFile file = parse(small_json());
  EXPECT_EQ(file.vocabulary.size(), 258u);
  ASSERT_EQ(file.merges.size(), 2u);
  EXPECT_EQ(file.merges[1].left, 256);
  EXPECT_EQ(file.merges[1].right, 'c');
  EXPECT_EQ(file.merges[1].result, 257);
  ASSERT_EQ(file.added.size(), 5u);
  EXPECT_EQ(file.added[0].token.id, 258);
  EXPECT_EQ(file.added[0].token.bytes, "<think>");
  EXPECT_FALSE(file.added[0].special);
  EXPECT_TRUE(file.added[4].special);
  EXPECT_FALSE(file.ignore_merges);
  EXPECT_EQ(file.normalizer, NormalizerKind::kNone);
  EXPECT_EQ(file.pre_tokenizer, PreTokenizerKind::kDeepSeekV3);
}

TEST(TokenizerFile, BothFormsOfMergesAreTheSame) {
  Json json = small_json();
  json["model"]["merges"] = {"a b", "ab c"};
  const TokenizerFile file = parse(json);
  ASSERT_EQ(file.merges.size(), 2u);
  EXPECT_EQ(file.merges[1].left, 256);
  EXPECT_EQ(file.merges[1].right, 'c');
  EXPECT_EQ(file.merges[1].result, 257);
}

TEST(TokenizerFile, NormalizersThatAreKnown) {
  Json json = small_json();
  json["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(parse(json).normalizer, NormalizerKind::kNfc);
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  EXPECT_EQ(parse(json).normalizer, NormalizerKind::kNone);
  json["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
  EXPECT_EQ(parse(json).normalizer, NormalizerKind::kNfc);
  json.erase("normalizer");
  EXPECT_EQ(parse(json).normalizer, NormalizerKind::kNone);
}

TEST(TokenizerFile, OptionalPartsMayBeAbsent) {
  Json json = small_json();
  json.erase("added_tokens");
  json.erase("decoder");
  json["model"].erase("ignore_merges");
  EXPECT_TRUE(parse(json).added.empty());
}

TEST(TokenizerFile, AMergeToAnAddedTokenDoesNotExist) {
  Json json = small_json();
  json["added_tokens"].push_back({{"id", 257}, {"content", "abc"}});
  const TokenizerFile file = parse(json);
  EXPECT_EQ(file.merges.size(), 1u);
  EXPECT_EQ(file.vocabulary.size(), 257u);
  EXPECT_EQ(file.added.back().token.id, 257);
}

TEST(TokenizerFile, ATokenOutsideTheAlphabetIsOnlyDecoded) {
  Json json = small_json();
  json["model"]["vocab"]["｜"] = 900;
  const TokenizerFile file = parse(json);
  EXPECT_EQ(file.vocabulary.size(), 258u);
  ASSERT_EQ(file.unreachable.size(), 1u);
  EXPECT_EQ(file.unreachable[0].bytes, "｜");
}

struct Fault {
  const char* name;
  std::function<void(Json&)> make;
  std::vector<std::string> message;  // parts that the error must have
};

std::vector<Fault> vocabulary_faults() {
  return {
      {"no model", [](Json& j) { j.erase("model"); }, {"'model'", "missing"}},
      {"model no object", [](Json& j) { j["model"] = 3; }, {"'model'", "number"}},
      {"no type", [](Json& j) { j["model"].erase("type"); }, {"'model.type'", "missing"}},
      {"other type", [](Json& j) { j["model"]["type"] = "Unigram"; }, {"'model.type'", "BPE", "Unigram"}},
      {"no vocab", [](Json& j) { j["model"].erase("vocab"); }, {"'model.vocab'", "missing"}},
      {"vocab list", [](Json& j) { j["model"]["vocab"] = Json::array(); }, {"'model.vocab'", "array"}},
      {"empty vocab",
       [](Json& j) {
         j["model"]["vocab"] = Json::object();
         j["model"]["merges"] = Json::array();
       },
       {"'model.vocab'", "byte 0x00"}},
      {"byte missing", [](Json& j) { j["model"]["vocab"].erase("z"); }, {"'model.vocab'", "byte 0x7a"}},
      {"byte is added",
       [](Json& j) {
         j["added_tokens"].push_back({{"id", int{'z'}}, {"content", "z"}});
       },
       {"'model.vocab'", "byte 0x7a"}},
      {"same id", [](Json& j) { j["model"]["vocab"]["zz"] = 65; }, {"'model.vocab.zz'", "65"}},
      {"id of an added token", [](Json& j) { j["model"]["vocab"]["zz"] = 258; }, {"'model.vocab.zz'", "258"}},
      {"two ids", [](Json& j) { j["model"]["vocab"]["<think>"] = 900; }, {"'model.vocab.<think>'", "258", "900"}},
      {"negative", [](Json& j) { j["model"]["vocab"]["zz"] = -1; }, {"'model.vocab.zz'", "-1"}},
      {"too high", [](Json& j) { j["model"]["vocab"]["zz"] = (1 << 24) + 1; }, {"'model.vocab.zz'", "16777217"}},
      {"huge", [](Json& j) { j["model"]["vocab"]["zz"] = UINT64_MAX; }, {"'model.vocab.zz'", "18446744073709551615"}},
      {"fraction", [](Json& j) { j["model"]["vocab"]["zz"] = 1.5; }, {"'model.vocab.zz'", "number"}},
      {"id text", [](Json& j) { j["model"]["vocab"]["zz"] = "7"; }, {"'model.vocab.zz'", "string"}},
      {"no merges", [](Json& j) { j["model"].erase("merges"); }, {"'model.merges'", "missing"}},
      {"merges object", [](Json& j) { j["model"]["merges"] = Json::object(); }, {"'model.merges'", "object"}},
      {"unknown part", [](Json& j) { j["model"]["merges"][1] = "a zz"; }, {"'model.merges[1]'", "zz"}},
      {"unknown result", [](Json& j) { j["model"]["merges"][1] = "a x"; }, {"'model.merges[1]'", "ax"}},
      {"one part", [](Json& j) { j["model"]["merges"][1] = "ab"; }, {"'model.merges[1]'", "ab"}},
      {"three parts", [](Json& j) { j["model"]["merges"][1] = "a b c"; }, {"'model.merges[1]'", "a b c"}},
      {"three strings",
       [](Json& j) {
         j["model"]["merges"][1] = {"a", "b", "c"};
       },
       {"'model.merges[1]'", "array"}},
      {"numbers",
       [](Json& j) {
         j["model"]["merges"][1] = {1, 2};
       },
       {"'model.merges[1]'", "array"}},
      {"merge null", [](Json& j) { j["model"]["merges"][1] = nullptr; }, {"'model.merges[1]'", "null"}},
      {"prefix", [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; }, {"continuing_subword_prefix", "##"}},
      {"suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, {"end_of_word_suffix", "</w>"}},
      {"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, {"'model.dropout'", "0.1"}},
      {"ignore_merges", [](Json& j) { j["model"]["ignore_merges"] = 1; }, {"'model.ignore_merges'", "number"}},
  };
}

std::vector<Fault> other_faults() {
  return {
      {"added object", [](Json& j) { j["added_tokens"] = Json::object(); }, {"'added_tokens'", "object"}},
      {"added number", [](Json& j) { j["added_tokens"][1] = 4; }, {"'added_tokens[1]'", "number"}},
      {"added no id", [](Json& j) { j["added_tokens"][1].erase("id"); }, {"'added_tokens[1].id'", "missing"}},
      {"added negative", [](Json& j) { j["added_tokens"][1]["id"] = -5; }, {"'added_tokens[1].id'", "-5"}},
      {"added same id", [](Json& j) { j["added_tokens"][1]["id"] = 258; }, {"'added_tokens[1].id'", "258"}},
      {"added no content", [](Json& j) { j["added_tokens"][1].erase("content"); }, {"'added_tokens[1].content'"}},
      {"added empty", [](Json& j) { j["added_tokens"][1]["content"] = ""; }, {"'added_tokens[1].content'", "got 0"}},
      {"added long", [](Json& j) { j["added_tokens"][1]["content"] = std::string(257, 'x'); }, {"got 257"}},
      {"added twice", [](Json& j) { j["added_tokens"][1]["content"] = "<think>"; }, {"'added_tokens[1].content'"}},
      {"lstrip", [](Json& j) { j["added_tokens"][1]["lstrip"] = true; }, {"'added_tokens[1].lstrip'"}},
      {"single_word", [](Json& j) { j["added_tokens"][1]["single_word"] = true; }, {"single_word"}},
      {"special", [](Json& j) { j["added_tokens"][1]["special"] = "yes"; }, {"'added_tokens[1].special'", "string"}},
      {"normalizer",
       [](Json& j) {
         j["normalizer"] = {{"type", "Lowercase"}};
       },
       {"'normalizer.type'", "Lowercase"}},
      {"normalizer text", [](Json& j) { j["normalizer"] = "NFC"; }, {"'normalizer'", "string"}},
      {"normalizers",
       [](Json& j) {
         j["normalizer"] = {{"type", "Sequence"}, {"normalizers", 1}};
       },
       {"'normalizer.normalizers'"}},
      {"in sequence",
       [](Json& j) {
         j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFD"}}}}};
       },
       {"'normalizer.normalizers[0].type'", "NFD"}},
      {"no pre_tokenizer", [](Json& j) { j.erase("pre_tokenizer"); }, {"'pre_tokenizer'", "missing"}},
      {"null pre_tokenizer", [](Json& j) { j["pre_tokenizer"] = nullptr; }, {"'pre_tokenizer'", "null"}},
      {"other one",
       [](Json& j) { j["pre_tokenizer"]["type"] = "Metaspace"; },
       {"'pre_tokenizer'", "Metaspace", "Qwen2"}},
      {"none in it", [](Json& j) { j["pre_tokenizer"]["pretokenizers"] = Json::array(); }, {"pretokenizers"}},
      {"other inside", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["type"] = "Digits"; }, {"Digits"}},
      {"other regex", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\d"; }, {"\\d"}},
      {"string",
       [](Json& j) {
         j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", "x"}};
       },
       {"Regex"}},
      {"behavior", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }, {"Removed"}},
      {"invert", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = true; }, {"invert"}},
      {"no bytes", [](Json& j) { j["pre_tokenizer"]["pretokenizers"].erase(3); }, {"'pre_tokenizer'", "Split"}},
      {"prefix space",
       [](Json& j) { j["pre_tokenizer"]["pretokenizers"][3]["add_prefix_space"] = true; },
       {"pretokenizers[3].add_prefix_space"}},
      {"use_regex", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][3].erase("use_regex"); }, {"use_regex"}},
      {"decoder", [](Json& j) { j["decoder"]["type"] = "WordPiece"; }, {"'decoder.type'", "WordPiece"}},
  };
}

TEST(TokenizerFile, EveryFaultIsNamed) {
  for (const auto& faults : {vocabulary_faults(), other_faults()}) {
    for (const Fault& fault : faults) {
      SCOPED_TRACE(fault.name);
      Json json = small_json();
      fault.make(json);
      expect_error(ErrorKind::kBadFile, {"dir/tokenizer.json"}, [&] { parse(json); });
      for (const std::string& part : fault.message) {
        expect_error(ErrorKind::kBadFile, {part}, [&] { parse(json); });
      }
    }
  }
}

TEST(TokenizerFile, WhatIsNoTokenizerIsRefused) {
  for (const char* text : {"", "[]", "3", "null", "{", "{\"model\": {}} x", "\xff", "{\"model\":1,\"model\":1}"}) {
    expect_error(ErrorKind::kBadFile, {"t.json"}, [&] { parse_tokenizer_file(text, "t.json"); });
  }
}

TEST(SpecialTokenNames, StringsAndObjects) {
  const auto names = parse_special_token_names(
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null})", "c.json");
  EXPECT_EQ(names.bos, "<s>");
  EXPECT_EQ(names.eos, "</s>");
  EXPECT_EQ(names.pad, std::nullopt);
  EXPECT_EQ(parse_special_token_names("{}", "c.json").bos, std::nullopt);
}

TEST(SpecialTokenNames, OtherShapesAreNamed) {
  for (const char* text : {R"({"eos_token": 3})", R"({"eos_token": {"content": 3}})", R"({"eos_token": {}})"}) {
    expect_error(ErrorKind::kBadFile, {"c.json", "'eos_token'"}, [&] { parse_special_token_names(text, "c.json"); });
  }
  expect_error(ErrorKind::kBadFile, {"c.json"}, [] { parse_special_token_names("[]", "c.json"); });
}

}  // namespace
}  // namespace moraine::runtime
