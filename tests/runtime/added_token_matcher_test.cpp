#include "runtime/added_token_matcher.h"

#include <gtest/gtest.h>

namespace moraine::runtime {
namespace {

void expect_match(const std::optional<AddedTokenMatcher::Match>& match, size_t begin, size_t end, int32_t id) {
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->begin, begin);
  EXPECT_EQ(match->end, end);
  EXPECT_EQ(match->id, id);
}

TEST(AddedTokenMatcher, LeftmostThenLongest) {
  const AddedTokenMatcher matcher({{1, "<a>"}, {2, "<a>b"}, {3, "<"}, {4, "b<a>"}, {5, "<a>bcd"}});
  expect_match(matcher.find("x<a>bc", 0), 1, 5, 2);
  expect_match(matcher.find("<a>bcd", 0), 0, 6, 5);
  expect_match(matcher.find("<a", 0), 0, 1, 3);
  expect_match(matcher.find("xb<a>", 0), 1, 5, 4);
  expect_match(matcher.find("xb<a>", 2), 2, 5, 1);
  EXPECT_FALSE(matcher.find("xba>", 0).has_value());
  EXPECT_FALSE(matcher.find("<a>", 3).has_value());
}

TEST(AddedTokenMatcher, BytesAboveAsciiSortAndMatch) {
  const AddedTokenMatcher matcher({{1, "｜x"}, {2, "x"}, {3, "｜"}, {4, "\u00e9"}});
  expect_match(matcher.find("é｜y", 0), 0, 2, 4);
  expect_match(matcher.find("é｜y", 2), 2, 5, 3);
  expect_match(matcher.find("é｜x", 2), 2, 6, 1);
}

TEST(AddedTokenMatcher, FindsByContent) {
  const AddedTokenMatcher matcher({{1, "<think>"}, {2, "</think>"}});
  EXPECT_EQ(matcher.id_of("<think>"), 1);
  EXPECT_EQ(matcher.id_of("</think>"), 2);
  EXPECT_EQ(matcher.id_of("<think"), std::nullopt);
  EXPECT_EQ(matcher.id_of(""), std::nullopt);
}

TEST(AddedTokenMatcher, WithoutTokensFindsNothing) {
  const AddedTokenMatcher matcher;
  EXPECT_FALSE(matcher.find("<think>", 0).has_value());
  EXPECT_EQ(matcher.id_of("<think>"), std::nullopt);
}

}  // namespace
}  // namespace moraine::runtime
