#include "runtime/vocabulary.h"

#include <gtest/gtest.h>

namespace moraine::runtime {
namespace {

TEST(Vocabulary, FindsListedTokensAndDecodesAll) {
  const Vocabulary vocabulary({{7, "seven"}, {0, "zero"}, {3, "\xff"}}, {{5, "<five>"}});
  EXPECT_EQ(vocabulary.size(), 8);
  EXPECT_EQ(vocabulary.token_bytes(7), "seven");
  EXPECT_EQ(vocabulary.token_bytes(0), "zero");
  EXPECT_EQ(vocabulary.token_bytes(3), "\xff");
  EXPECT_EQ(vocabulary.token_bytes(5), "<five>");
  EXPECT_EQ(vocabulary.find("seven"), 7);
  EXPECT_EQ(vocabulary.find("zero"), 0);
  EXPECT_EQ(vocabulary.find("\xff"), 3);
  EXPECT_EQ(vocabulary.find("<five>"), std::nullopt);
  EXPECT_EQ(vocabulary.find("seve"), std::nullopt);
  EXPECT_EQ(vocabulary.find("seven!"), std::nullopt);
  EXPECT_EQ(vocabulary.find(""), std::nullopt);
}

TEST(Vocabulary, IdsWithoutATokenHaveNoBytes) {
  const Vocabulary vocabulary({{2, "two"}}, {});
  for (const int32_t id : {-1, 0, 1, 3, INT32_MAX, INT32_MIN}) EXPECT_EQ(vocabulary.token_bytes(id), "") << id;
  EXPECT_EQ(Vocabulary().size(), 0);
  EXPECT_EQ(Vocabulary().token_bytes(0), "");
  EXPECT_EQ(Vocabulary().find("a"), std::nullopt);
}

TEST(Vocabulary, TakesTheHighestId) {
  const Vocabulary vocabulary({{Vocabulary::kMaxTokenId, "last"}}, {});
  EXPECT_EQ(vocabulary.size(), Vocabulary::kMaxTokenId + 1);
  EXPECT_EQ(vocabulary.find("last"), Vocabulary::kMaxTokenId);
  EXPECT_EQ(vocabulary.token_bytes(Vocabulary::kMaxTokenId), "last");
}

}  // namespace
}  // namespace moraine::runtime
