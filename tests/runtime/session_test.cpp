#include "runtime/session.h"

#include <gtest/gtest.h>

#include "support/fake_backend.h"

namespace moraine::runtime {
namespace {

TEST(Session, KeepsTheCommonPrefixButNeverTheWholePrompt) {
  Session session(std::make_unique<testing::FakeCache>());
  auto& cache = static_cast<testing::FakeCache&>(session.cache());
  const std::vector<int32_t> held{5, 6, 7, 8};
  session.append(held);
  cache.tokens = held;

  EXPECT_EQ(session.keep_common_prefix(std::vector<int32_t>{5, 6, 7, 8, 9}), 4);
  EXPECT_EQ(session.keep_common_prefix(std::vector<int32_t>{5, 6, 7, 8}), 3)
      << "the last token is wanted for its logits";
  EXPECT_EQ(cache.token_count(), 3);
  EXPECT_EQ(session.keep_common_prefix(std::vector<int32_t>{5, 9, 7}), 1);
  EXPECT_EQ(session.tokens().size(), 1u);
  EXPECT_EQ(session.keep_common_prefix(std::vector<int32_t>{1}), 0);
  EXPECT_EQ(cache.token_count(), 0);
  EXPECT_EQ(session.keep_common_prefix({}), 0);
}

}  // namespace
}  // namespace moraine::runtime
