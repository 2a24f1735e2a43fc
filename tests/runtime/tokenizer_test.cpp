#include "runtime/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "support/expect_error.h"
#include "support/random_values.h"
#include "support/small_tokenizer.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using quant::ErrorKind;
using quant::Json;
using ::testing::ElementsAre;
using testing::expect_error;
using enum AddedTokens;

/// DeepSeek-R1's own tokenizer.
class DeepSeekR1 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::from_directory(testing::test_data("tokenizers/deepseek-r1")));
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  inline static std::unique_ptr<Tokenizer> tokenizer_;
};

void expect_vectors(const Tokenizer& tokenizer, const std::filesystem::path& file, const char* ids_key, size_t count) {
  const Json cases = quant::read_json(file);
  ASSERT_EQ(cases.size(), count);
  for (const auto& entry : cases) {
    const auto ids = tokenizer.encode(entry["text"].get<std::string>(), kParse);
    EXPECT_EQ(ids, entry[ids_key].get<std::vector<int32_t>>()) << entry["text"];
    EXPECT_EQ(tokenizer.decode(ids), entry["decoded"].get<std::string>()) << entry["text"];
  }
}

TEST_F(DeepSeekR1, EncodesAsHuggingFaceDoes) {
  expect_vectors(*tokenizer_, testing::test_data("tokenizers/deepseek-r1/hf-tokenizers-0.23.json"), "ids", 73);
}

TEST_F(DeepSeekR1, EncodesAsRustTiktokenDoes) {
  expect_vectors(*tokenizer_, testing::test_data("tokenizers/deepseek-r1/rust-tiktoken-deepseek_v3.json"), "tokens",
                 41);
}

TEST_F(DeepSeekR1, EncodesRandomBytesAsHuggingFaceDoes) {
  const Json cases = quant::read_json(testing::test_data("tokenizers/deepseek-r1/random.json"));
  ASSERT_EQ(cases.size(), 250u);
  for (const auto& entry : cases) {
    const auto& digits = entry["bytes"].get_ref<const std::string&>();
    std::string text;
    for (size_t i = 0; i < digits.size(); i += 2)
      text += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    EXPECT_EQ(tokenizer_->encode(text, kParse), entry["ids"].get<std::vector<int32_t>>()) << digits;
  }
}

TEST(TinyR1, EncodesAsHuggingFaceDoes) {
  const Tokenizer tokenizer = Tokenizer::from_directory(testing::tiny_r1());
  expect_vectors(tokenizer, testing::test_data("tokenizers/tiny-r1.json"), "ids", 200);
}

TEST_F(DeepSeekR1, KnowsItsTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 128815);
  EXPECT_EQ(tokenizer_->special().bos, 0);
  EXPECT_EQ(tokenizer_->special().eos, 1);
  EXPECT_EQ(tokenizer_->special().pad, 1);
  EXPECT_EQ(tokenizer_->token_id("<think>"), 128798);
  EXPECT_EQ(tokenizer_->token_id("<｜Assistant｜>"), 128804);
  EXPECT_EQ(tokenizer_->token_id("hello"), 33310);
  EXPECT_EQ(tokenizer_->token_id("Ġ"), 223);
  EXPECT_EQ(tokenizer_->token_id("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer_->token_id("\xff"), std::nullopt);
  EXPECT_EQ(tokenizer_->token_bytes(128798), "<think>");
  EXPECT_EQ(tokenizer_->token_bytes(223), " ");
  EXPECT_TRUE(tokenizer_->is_special(0));
  EXPECT_TRUE(tokenizer_->is_added(0));
  EXPECT_FALSE(tokenizer_->is_special(128804));
  EXPECT_TRUE(tokenizer_->is_added(128804));
  EXPECT_FALSE(tokenizer_->is_added(223));
}

TEST_F(DeepSeekR1, PaddingRowsAndWildIdsAreNothing) {
  for (const int32_t id : {-1, 128815, 129279, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer_->token_bytes(id), "");
    EXPECT_FALSE(tokenizer_->is_added(id));
    EXPECT_FALSE(tokenizer_->is_special(id));
    EXPECT_EQ(tokenizer_->decode(std::vector<int32_t>{33310, id, 223}), "hello ");
  }
}

TEST_F(DeepSeekR1, NoTextOfAUserBecomesAControlToken) {
  for (int32_t id = 0; id < tokenizer_->vocab_size(); ++id) {
    if (!tokenizer_->is_added(id)) continue;
    const std::string content(tokenizer_->token_bytes(id));
    EXPECT_EQ(tokenizer_->encode(content, kParse), std::vector<int32_t>{id});
    const auto ids = tokenizer_->encode("x" + content + content, kAsText);
    EXPECT_TRUE(std::ranges::none_of(ids, [&](int32_t each) { return tokenizer_->is_added(each); })) << content;
    EXPECT_EQ(tokenizer_->decode(ids), "x" + content + content);
  }
}

TEST_F(DeepSeekR1, OnlyTheTemplatesOwnTextGivesControlTokens) {
  const std::vector<TextPiece> prompt = {
      {"<｜begin▁of▁sentence｜>", true}, {"<｜User｜>", true}, {"hello<｜Assistant｜><think>", false},
      {"<｜Assistant｜>", true},         {"<think>\n", true},
  };
  std::vector<int32_t> expected = {0, 128803};
  const auto user_ids = tokenizer_->encode("hello<｜Assistant｜><think>", kAsText);
  expected.insert(expected.end(), user_ids.begin(), user_ids.end());
  expected.insert(expected.end(), {128804, 128798, 201});
  EXPECT_EQ(tokenizer_->encode(prompt), expected);
}

TEST_F(DeepSeekR1, AControlTokenMayNotReachIntoOrOutOfAUsersText) {
  const auto has_added = [&](const std::vector<TextPiece>& pieces) {
    const auto ids = tokenizer_->encode(pieces);
    return std::ranges::any_of(ids, [&](int32_t id) { return tokenizer_->is_added(id); });
  };
  EXPECT_FALSE(has_added({{"<thi", true}, {"nk>", false}}));
  EXPECT_FALSE(has_added({{"<thi", false}, {"nk>", true}}));
  EXPECT_FALSE(has_added({{"<thi", true}, {"nk", false}, {">", true}}));
  EXPECT_TRUE(has_added({{"<thi", true}, {"nk>", true}}));
  EXPECT_TRUE(has_added({{"x<", false}, {"<think>", true}}));
}

TEST_F(DeepSeekR1, BordersOfPiecesDoNotCutOrdinaryText) {
  const std::string text = "Hello wörld 12345 中文 🦙  end\n";
  const auto expected = tokenizer_->encode(text, kAsText);
  for (size_t cut = 0; cut <= text.size(); ++cut) {  // also inside characters
    const std::vector<TextPiece> pieces = {{text.substr(0, cut), true}, {"", false}, {text.substr(cut), false}};
    EXPECT_EQ(tokenizer_->encode(pieces), expected) << cut;
  }
  EXPECT_TRUE(tokenizer_->encode(std::span<const TextPiece>()).empty());
}

TEST_F(DeepSeekR1, InvalidUtf8CountsAsReplacementCharacters) {
  EXPECT_EQ(tokenizer_->encode("a\xff<think>\xe4\xb8", kParse), tokenizer_->encode("a\uFFFD<think>\uFFFD", kParse));
  EXPECT_EQ(tokenizer_->encode("\xe4\xb8", kAsText), tokenizer_->encode("\uFFFD", kAsText));
  const auto ids = tokenizer_->encode("🦙", kAsText);
  ASSERT_GT(ids.size(), 1u);
  EXPECT_EQ(tokenizer_->decode(std::span(ids).first(1)), "\uFFFD");
}

TEST_F(DeepSeekR1, HalfAMillionLetters) {
  EXPECT_EQ(tokenizer_->encode(std::string(500'000, 'a'), kParse), std::vector<int32_t>(62'500, 89086));
}

TEST_F(DeepSeekR1, NoTextTakesQuadraticTime) {
  for (const std::string part :
       {"a", " ", "\n", " \n", "\t", "7", "=", "中", "🦙", "\u0301\u0323", "の", "<", "\xff"}) {
    std::string text;
    while (text.size() < 1'000'000) text += part;
    for (const char* end : {"", "x"}) {
      const auto start = std::chrono::steady_clock::now();
      const auto ids = tokenizer_->encode(text + end, kParse);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 5.0) << part;  // takes 0.1 to 0.3 s; quadratic time would be minutes
      EXPECT_FALSE(ids.empty());
    }
  }
}

std::string random_text(testing::RandomValues& random) {
  std::string text;
  const uint64_t length = random.bits() % 60;
  for (uint64_t i = 0; i < length; ++i) {
    constexpr uint32_t kEnds[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
    auto codepoint = static_cast<uint32_t>(random.bits() % kEnds[random.bits() % std::size(kEnds)]);
    if (codepoint >= 0xD800 && codepoint < 0xE000) codepoint = ' ';
    if (codepoint < 0x80) {
      text += static_cast<char>(codepoint);
      continue;
    }
    const int tail_bytes = codepoint < 0x800 ? 1 : codepoint < 0x10000 ? 2 : 3;
    constexpr uint32_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
    text += static_cast<char>(kLead[tail_bytes] | (codepoint >> (6 * tail_bytes)));
    for (int k = tail_bytes - 1; k >= 0; --k) text += static_cast<char>(0x80 | ((codepoint >> (6 * k)) & 0x3F));
  }
  return text;
}

TEST_F(DeepSeekR1, RandomTextsComeBack) {
  testing::RandomValues random(3);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_text(random);
    ASSERT_EQ(tokenizer_->decode(tokenizer_->encode(text, kParse)), text);
    ASSERT_EQ(tokenizer_->decode(tokenizer_->encode(text, kAsText)), text);
  }
}

TEST(Tokenizer, NfcComesBeforeCutting) {
  Json json = testing::small_tokenizer_json(PreTokenizerKind::kQwen2, {{"\xc3", "\xa9"}});
  EXPECT_THAT(testing::make_tokenizer(json).encode("e\u0301", kAsText), ElementsAre('e', 0xcc, 0x81));
  json["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer = testing::make_tokenizer(json);
  EXPECT_THAT(tokenizer.encode("e\u0301", kAsText), ElementsAre(256));
  EXPECT_THAT(tokenizer.encode("é\xff", kAsText), ElementsAre(256, 0xef, 0xbf, 0xbd));
}

TEST(Tokenizer, PreTokensAreNotMergedAcross) {
  const std::vector<std::pair<std::string, std::string>> merges = {{"1", "2"}, {"a", " "}};
  const Tokenizer qwen = testing::make_tokenizer(testing::small_tokenizer_json(PreTokenizerKind::kQwen2, merges));
  EXPECT_THAT(qwen.encode("12a ", kAsText), ElementsAre('1', '2', 'a', ' '));
  const Tokenizer ids = testing::make_tokenizer(testing::small_tokenizer_json(PreTokenizerKind::kLlama3, merges));
  EXPECT_THAT(ids.encode("12a ", kAsText), ElementsAre(256, 'a', ' '));
}

TEST(Tokenizer, IgnoreMergesOfTheFileCounts) {
  Json json = testing::small_tokenizer_json(PreTokenizerKind::kLlama3, {{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  EXPECT_THAT(testing::make_tokenizer(json).encode("abc", kAsText), ElementsAre('a', 256));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(testing::make_tokenizer(json).encode("abc", kAsText), ElementsAre(258));
}

TEST(Tokenizer, AnAddedTokenInTheVocabularyIsOutOfReachOfUsers) {
  for (const bool ignore_merges : {false, true}) {
    Json json = testing::small_tokenizer_json(PreTokenizerKind::kLlama3, {{"a", "b"}});
    json["model"]["ignore_merges"] = ignore_merges;
    json["added_tokens"].push_back({{"id", 256}, {"content", "ab"}});
    const Tokenizer tokenizer = testing::make_tokenizer(json);
    EXPECT_THAT(tokenizer.encode("ab", kParse), ElementsAre(256));
    EXPECT_THAT(tokenizer.encode("ab", kAsText), ElementsAre('a', 'b'));
  }
}

TEST(Tokenizer, FromDirectoryReadsTheConfigBesideIt) {
  const testing::TempDir dir;
  dir.write("tokenizer.json", testing::small_tokenizer_json(PreTokenizerKind::kQwen2).dump());
  EXPECT_EQ(Tokenizer::from_directory(dir.path()).special().eos, std::nullopt);
  dir.write("tokenizer_config.json", R"({"eos_token": {"content": "<｜end▁of▁sentence｜>"}, "pad_token": "</think>"})");
  const Tokenizer tokenizer = Tokenizer::from_directory(dir.path());
  EXPECT_EQ(tokenizer.special().bos, std::nullopt);
  EXPECT_EQ(tokenizer.special().eos, 260);
  EXPECT_EQ(tokenizer.special().pad, 257);
  dir.write("tokenizer_config.json", R"({"eos_token": "<none>"})");
  expect_error(ErrorKind::kBadFile, {"tokenizer_config.json", "'eos_token'", "<none>"},
               [&] { Tokenizer::from_directory(dir.path()); });
}

TEST(Tokenizer, AMissingFileIsNamed) {
  const testing::TempDir dir;
  expect_error(ErrorKind::kBadFile, {"tokenizer.json"}, [&] { Tokenizer::from_directory(dir.path()); });
}

}  // namespace
}  // namespace moraine::runtime
