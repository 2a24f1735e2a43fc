#include "runtime/utf8.h"

#include <gtest/gtest.h>

namespace moraine::runtime {
namespace {

TEST(Utf8, ValidTextIsLeftAlone) {
  for (const std::string_view text :
       {"", "a", "long enough for a word of eight", "é中🦙", "12345678é", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf",
        "\xee\x80\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}) {
    EXPECT_TRUE(is_valid_utf8(text)) << text;
    EXPECT_EQ(repair_utf8(text), text);
  }
  EXPECT_TRUE(is_valid_utf8(std::string_view("a\0b", 3)));
}

TEST(Utf8, EveryMaximalInvalidPartBecomesOneReplacement) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"\x80", "\uFFFD"},                                // continuation alone
      {"\xc0\xaf", "\uFFFD\uFFFD"},                      // overlong, C0 never begins
      {"\xe0\x80\xaf", "\uFFFD\uFFFD\uFFFD"},            // overlong of three
      {"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},            // surrogate
      {"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // beyond U+10FFFF
      {"\xf5", "\uFFFD"},
      {"a\xe4\xb8z", "a\uFFFDz"},  // broken off
      {"\xf0\x9f\xa6\xf0\x9f\xa6\x99", "\uFFFD🦙"},
      {"\xe4\xb8", "\uFFFD"},
      {"12345678\xff"
       "12345678\xff",
       "12345678\uFFFD12345678\uFFFD"},
  };
  for (const auto& [bytes, repaired] : cases) {
    EXPECT_FALSE(is_valid_utf8(bytes));
    EXPECT_EQ(repair_utf8(bytes), repaired);
  }
}

TEST(Utf8, OnlyWhatCanStillBecomeACharacterIsIncomplete) {
  EXPECT_EQ(incomplete_suffix_bytes(""), 0u);
  EXPECT_EQ(incomplete_suffix_bytes("abc"), 0u);
  EXPECT_EQ(incomplete_suffix_bytes("é"), 0u);
  EXPECT_EQ(incomplete_suffix_bytes("a\xc3"), 1u);
  EXPECT_EQ(incomplete_suffix_bytes("a\xe4\xb8"), 2u);
  EXPECT_EQ(incomplete_suffix_bytes("a\xf0\x9f\xa6"), 3u);
  EXPECT_EQ(incomplete_suffix_bytes("\xff"), 0u);
  EXPECT_EQ(incomplete_suffix_bytes("\x80\x80"), 0u);
  EXPECT_EQ(incomplete_suffix_bytes("\xed\xa0"), 0u);  // would become a surrogate
  EXPECT_EQ(incomplete_suffix_bytes("\xf0\x9f\xa6\x99"), 0u);
}

}  // namespace
}  // namespace moraine::runtime
