#include "runtime/normalizer.h"

#include <gtest/gtest.h>

#include <chrono>

#include "support/test_data.h"

namespace moraine::runtime {
namespace {

TEST(NormalizeNfc, EqualsPythonsUnicodedata) {
  const quant::Json cases = quant::read_json(testing::test_data("tokenizers/nfc.json"));
  ASSERT_GE(cases.size(), 200u);
  for (const auto& entry : cases) {
    EXPECT_EQ(normalize_nfc(entry["text"].get<std::string>()), entry["nfc"].get<std::string>()) << entry;
  }
}

TEST(NormalizeNfc, LeavesComposedTextAlone) {
  EXPECT_EQ(normalize_nfc(""), "");
  EXPECT_EQ(normalize_nfc("plain Größe"), "plain Größe");
  EXPECT_EQ(normalize_nfc("中文🦙 각"), "中文🦙 각");
  EXPECT_EQ(normalize_nfc(std::string_view("\u0301\0e\u0301", 6)), std::string_view("\u0301\0é", 5));
  EXPECT_EQ(normalize_nfc("ﬁ"), "ﬁ");  // compatibility characters stay
}

TEST(NormalizeNfc, MarksOfANewerUnicodeStayWhereTheyAre) {
  // U+0C4D has class 9 and U+0C3C, of Unicode 14, class 7: today's tables would swap them.
  EXPECT_EQ(normalize_nfc("\u0c15\u0c4d\u0c3c"), "\u0c15\u0c4d\u0c3c");
  EXPECT_EQ(normalize_nfc("e\u0c3c\u0301"), "e\u0c3c\u0301") << "nothing composes across one";
  EXPECT_EQ(normalize_nfc("e\u0301\u0c3ce\u0301"), "é\u0c3cé");
  EXPECT_EQ(normalize_nfc("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(normalize_nfc("\U00011938"), "\U00011938");
}

TEST(NormalizeNfc, WhatStandsBeforeTheTrailingConsonantsIsNone) {
  EXPECT_EQ(normalize_nfc("\uc5b4\u11a7"), "\uc5b4\u11a7");
  EXPECT_EQ(normalize_nfc("\uc5b4\u11a8"), "\uc5b5");
}

TEST(NormalizeNfc, PiledUpMarksTakeNoQuadraticTime) {
  std::string marks = "a";
  for (int i = 0; i < 150'000; ++i)
    marks += "\u0301\u0323";  // classes 230 and 220: every second one moves to the front
  const auto start = std::chrono::steady_clock::now();
  const std::string composed = normalize_nfc(marks);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(composed.substr(0, 7), "ạ\u0323\u0323");
  EXPECT_EQ(composed.size(), 3 + 2u * (300'000 - 1));
  EXPECT_LT(seconds.count(), 5.0);  // takes 0.05 s; quadratic time would be minutes
}

}  // namespace
}  // namespace moraine::runtime
