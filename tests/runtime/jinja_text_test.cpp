#include "runtime/jinja_text.h"

#include <gtest/gtest.h>

namespace moraine::runtime::jinja {
namespace {

/// The runs of a text, untrusted ones in brackets.
std::string shown(const Text& text) {
  std::string result;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    const std::string part(text.bytes().substr(begin, run.end - begin));
    result += run.trusted ? part : "[" + part + "]";
    begin = run.end;
  }
  EXPECT_EQ(begin, text.size());
  return result;
}

Text mixed() {
  Text text("ab", true);
  text.append("cd", false);
  text.append("ef", true);
  return text;
}

TEST(JinjaText, MergesRunsOfOneOrigin) {
  Text text;
  text.append("", true);
  EXPECT_EQ(text.runs().size(), 0u);
  text.append("a", true);
  text.append("b", true);
  text.append("", false);
  text.append("c", true);
  EXPECT_EQ(text.runs().size(), 1u);
  EXPECT_EQ(shown(mixed()), "ab[cd]ef");
}

TEST(JinjaText, CutsKeepTheOriginOfEveryByte) {
  const Text text = mixed();
  for (size_t begin = 0; begin <= text.size(); ++begin) {
    for (size_t end = begin; end <= text.size(); ++end) {
      const Text part = text.part(begin, end);
      ASSERT_EQ(part.bytes(), text.bytes().substr(begin, end - begin));
      for (size_t i = begin; i < end; ++i) ASSERT_EQ(part.trusted_at(i - begin), text.trusted_at(i));
    }
  }
  EXPECT_EQ(shown(text.part(1, 5)), "b[cd]e");
}

TEST(JinjaText, StrayBytesAreCodePoints) {
  const std::string_view text = "a\xff\xc3|\xe2\x82";
  EXPECT_EQ(count_code_points(text), 6u);
  EXPECT_EQ(code_point_offsets("é｜x"), (std::vector<size_t>{0, 2, 5, 6}));
  std::string again;
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    append_utf8(again, point.value);
    at += point.length;
  }
  EXPECT_EQ(again, text);
}

TEST(JinjaText, FindsLongNeedles) {
  const std::string needle = std::string(40, 'a') + "b";
  const std::string text = std::string(100, 'a') + "b" + std::string(60, 'a') + "bc";
  EXPECT_EQ(find_text(text, needle), 60u);
  EXPECT_EQ(find_text(text, needle, 61), text.find(needle, 61));
  EXPECT_EQ(find_text(text, needle, 140), std::string_view::npos);
  EXPECT_EQ(find_text(text, needle, 1000), std::string_view::npos);
  EXPECT_EQ(find_text(text, "bc"), text.size() - 2);
  EXPECT_EQ(find_text(text, ""), 0u);
}

TEST(JinjaText, FindingTakesLinearTime) {
  const std::string text(4'000'000, 'a'), needle = std::string(2'000'000, 'a') + "b";
  EXPECT_EQ(find_text(text, needle), std::string_view::npos);  // 8e12 comparisons the simple way
}

TEST(JinjaText, StripsWhiteSpaceOrCharacters) {
  const auto stripped = [](std::string_view text, std::optional<std::string_view> chars, bool left, bool right) {
    const auto [begin, end] = strip_range(text, chars, left, right);
    return std::string(text.substr(begin, end - begin));
  };
  EXPECT_EQ(stripped(" \t\n\u00a0\u3000x\u2003 ", std::nullopt, true, true), "x");
  EXPECT_EQ(stripped("  x  ", std::nullopt, true, false), "x  ");
  EXPECT_EQ(stripped("  x  ", std::nullopt, false, true), "  x");
  EXPECT_EQ(stripped("é｜aé｜", "｜é", true, true), "a");
  EXPECT_EQ(stripped("｜｜", "｜", true, true), "");
  EXPECT_EQ(stripped("a\xff ", std::nullopt, false, true), "a\xff");
  EXPECT_EQ(stripped("\u200b", std::nullopt, true, true), "\u200b");  // no white space
}

TEST(JinjaText, ChangesCaseByCharacter) {
  Text text("straße ", true);
  text.append("wÖRLD-x", false);
  EXPECT_EQ(shown(change_case(text, Case::kUpper)), "STRASSE [WÖRLD-X]");
  EXPECT_EQ(shown(change_case(text, Case::kLower)), "straße [wörld-x]");
  EXPECT_EQ(shown(change_case(text, Case::kTitle)), "Straße [Wörld-X]");
  EXPECT_EQ(shown(change_case(text, Case::kCapitalize)), "Straße [wörld-x]");
  EXPECT_EQ(shown(change_case(Text("it's (a b", true), Case::kTitle)), "It'S (A B");
  EXPECT_EQ(shown(change_case(Text("it's (a b", true), Case::kWords)), "It's (A B");
}

TEST(JinjaText, ReplacesWithOrigin) {
  const Text text = mixed();
  EXPECT_EQ(shown(replace_text(text, "bc", Text("X", true), -1, 100)), "aX[d]ef");
  EXPECT_EQ(shown(replace_text(text, "e", Text("Y", false), -1, 100)), "ab[cdY]f");
  EXPECT_EQ(shown(replace_text(Text("aaa", true), "a", Text("b", true), 2, 100)), "bba");
  EXPECT_EQ(shown(replace_text(Text("éb", true), "", Text("-", true), -1, 100)), "-é-b-");
  EXPECT_LT(replace_text(Text(std::string(1000, 'a'), true), "a", Text(std::string(100, 'b'), true), -1, 500).size(),
            700u);
}

}  // namespace
}  // namespace moraine::runtime::jinja
