#include "runtime/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "support/small_tokenizer.h"
#include "support/test_data.h"

namespace moraine::runtime {
namespace {

using ::testing::ElementsAre;
using enum PreTokenizerKind;

std::vector<std::string> split(PreTokenizerKind kind, std::string_view text) {
  std::vector<std::string> pieces;
  for (const std::string_view piece : PreTokenizer(kind).split(text)) pieces.emplace_back(piece);
  return pieces;
}

TEST(PreTokenizer, CutsLikeHuggingFace) {
  const quant::Json cases = quant::read_json(testing::test_data("tokenizers/pretokenizer_splits.json"));
  ASSERT_GE(cases.size(), 200u);
  for (const auto& [kind, name] : {std::pair(kDeepSeekV3, "deepseek_v3"), {kQwen2, "qwen2"}, {kLlama3, "llama3"}}) {
    for (const auto& entry : cases) {
      EXPECT_EQ(split(kind, entry["text"].get<std::string>()), entry[name].get<std::vector<std::string>>())
          << name << ": " << entry["text"];
    }
  }
}

TEST(PreTokenizer, Digits) {
  EXPECT_THAT(split(kDeepSeekV3, "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(split(kLlama3, "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(split(kQwen2, "123"), ElementsAre("1", "2", "3"));
}

TEST(PreTokenizer, KnowsTheCharactersOfUnicode16) {
  // A letter (CJK extension H, Unicode 15) and a digit (Myanmar, Unicode 16) that Debian 12's PCRE2 does not know.
  for (const auto kind : {kDeepSeekV3, kQwen2, kLlama3}) {
    EXPECT_THAT(split(kind, "a\U00031350b"), ElementsAre("a\U00031350b"));
    EXPECT_THAT(split(kind, "a\U000116D0"), ElementsAre("a", "\U000116D0"));
  }
  EXPECT_THAT(split(kLlama3, "\U000116D0\U000116D1"), ElementsAre("\U000116D0\U000116D1"));
}

TEST(PreTokenizer, ARunOfSpacesLeavesItsLastToTheWord) {
  for (const auto kind : {kDeepSeekV3, kQwen2, kLlama3}) {
    EXPECT_THAT(split(kind, "a   b"), ElementsAre("a", "  ", " b"));
    EXPECT_THAT(split(kind, "a   "), ElementsAre("a", "   "));
    EXPECT_THAT(split(kind, "a \n\n  b"), ElementsAre("a", " \n\n", " ", " b"));
  }
}

TEST(PreTokenizer, WhiteSpaceIsTheUnicodeProperty) {
  for (const char* space : {"\u0085", "\u00a0", "\u1680", "\u2003", "\u2028", "\u3000", "\x0b", "\x0c"}) {
    const std::string run = std::string(space) + space;
    for (const auto kind : {kDeepSeekV3, kQwen2, kLlama3}) {
      EXPECT_THAT(split(kind, "." + run), ElementsAre(".", run)) << space;
    }
  }
  // U+180E is none: it counts as punctuation would for Qwen2 and Llama-3, and fits no rule of DeepSeek.
  EXPECT_THAT(split(kQwen2, ".\u180e "), ElementsAre(".\u180e", " "));
  EXPECT_THAT(split(kLlama3, ".\u180e "), ElementsAre(".\u180e", " "));
  EXPECT_THAT(split(kDeepSeekV3, ".\u180e "), ElementsAre(".", "\u180e", " "));
}

TEST(PreTokenizer, ContractionsFoldCaseAsUnicodeDoes) {
  EXPECT_THAT(split(kQwen2, "x'ſa"), ElementsAre("x", "'ſ", "a"));
  EXPECT_THAT(split(kLlama3, "x'SA"), ElementsAre("x", "'S", "A"));
  EXPECT_THAT(split(kLlama3, "we'Ll"), ElementsAre("we", "'Ll"));
  EXPECT_THAT(split(kDeepSeekV3, "x'ſa"), ElementsAre("x", "'", "ſa"));
}

TEST(PreTokenizer, DeepSeekCutsDigitsAndHanFirst) {
  EXPECT_THAT(split(kDeepSeekV3, "a中1ぁb"), ElementsAre("a", "中", "1", "ぁ", "b"));
  EXPECT_THAT(split(kDeepSeekV3, " 中"), ElementsAre(" ", "中"));
  EXPECT_THAT(split(kDeepSeekV3, "龥龦"), ElementsAre("龥", "龦"));  // U+9FA6 is outside the class
  EXPECT_THAT(split(kDeepSeekV3, "if(x"), ElementsAre("if", "(x"));
}

TEST(PreTokenizer, PiecesJoinToTheText) {
  const std::string text("\0\x01 中\u0378\u0301 a\n", 13);
  for (const auto kind : {kDeepSeekV3, kQwen2, kLlama3}) {
    std::string joined;
    for (const std::string& piece : split(kind, text)) {
      EXPECT_FALSE(piece.empty());
      joined += piece;
    }
    EXPECT_EQ(joined, text);
    EXPECT_TRUE(split(kind, "").empty());
  }
}

TEST(PreTokenizer, LongRunsOfAnyClassAreLinear) {
  for (const auto kind : {kDeepSeekV3, kQwen2, kLlama3}) {
    const PreTokenizer pre_tokenizer(kind);
    for (const std::string unit : {"a", " ", "\n", " \n", "1", ".", "中", "\u0301", "\x01", "<a", "'s", "\u0085"}) {
      std::string text;
      while (text.size() < 500'000) text += unit;
      const auto start = std::chrono::steady_clock::now();
      EXPECT_FALSE(pre_tokenizer.split(text).empty());
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 5.0) << unit;  // takes 0.02 s; quadratic time would be minutes
    }
  }
}

TEST(PreTokenizer, ARunLongerThanTheEnginesDefaultLimitIsCut) {
  const std::string spaces(11'000'000, ' ');
  EXPECT_THAT(split(kQwen2, spaces + "x"), ElementsAre(spaces.substr(1), " x"));
}

TEST(FindPreTokenizer, KnowsExactlyThreeSequences) {
  for (const auto kind : {kDeepSeekV3, kQwen2, kLlama3}) {
    EXPECT_EQ(find_pre_tokenizer(testing::split_regexes(kind)), kind);
  }
  EXPECT_EQ(find_pre_tokenizer({}), std::nullopt);
  std::vector<std::string> regexes = testing::split_regexes(kDeepSeekV3);
  std::swap(regexes[0], regexes[1]);
  EXPECT_EQ(find_pre_tokenizer(regexes), std::nullopt);
  regexes.pop_back();
  EXPECT_EQ(find_pre_tokenizer(regexes), std::nullopt);
  const std::vector<std::string> other = {testing::split_regexes(kQwen2)[0] + "|x"};
  EXPECT_EQ(find_pre_tokenizer(other), std::nullopt);
}

}  // namespace
}  // namespace moraine::runtime
