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
