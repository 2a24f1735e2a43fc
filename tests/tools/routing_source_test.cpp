#include "tools/routing_source.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace moraine::tools {
namespace {

constexpr RoutingShape kR1{.moe_layers = 4, .n_experts = 256, .top_k = 8};

std::vector<int32_t> tokens_of(RoutingSource& source, int count) {
  std::vector<int32_t> choices;
  for (int i = 0; i < count; ++i) {
    const std::span<const int32_t> token = source.next();
    choices.insert(choices.end(), token.begin(), token.end());
  }
  return choices;
}

TEST(SyntheticRouting, ChoosesDistinctExpertsOfTheLayer) {
  SyntheticRouting routing(kR1, {}, 3);
  for (int token = 0; token < 50; ++token) {
    const std::span<const int32_t> chosen = routing.next();
    ASSERT_EQ(chosen.size(), 32u);
    for (size_t at = 0; at < chosen.size(); at += 8) {
      for (size_t i = at; i < at + 8; ++i) {
        EXPECT_GE(chosen[i], 0);
        EXPECT_LT(chosen[i], 256);
        EXPECT_TRUE(i == at || chosen[i - 1] < chosen[i]);
      }
    }
  }
}

TEST(SyntheticRouting, TheSeedDecides) {
  SyntheticRouting a(kR1, {}, 1), same(kR1, {}, 1), other(kR1, {}, 2);
  const std::vector<int32_t> first = tokens_of(a, 20);
  EXPECT_EQ(first, tokens_of(same, 20));
  EXPECT_NE(first, tokens_of(other, 20));
}

TEST(SyntheticRouting, HasTheStatisticsAskedFor) {
  for (const RoutingStatistics wanted :
       {RoutingStatistics{.skew = 0.2, .overlap = 0.3}, RoutingStatistics{.skew = 0.5, .overlap = 0.35},
        RoutingStatistics{.skew = 0.8, .overlap = 0.5}}) {
    SyntheticRouting routing(kR1, wanted, 7);
    const RoutingStatistics found = statistics_of(kR1, tokens_of(routing, 4000));
    EXPECT_NEAR(found.overlap, wanted.overlap, 0.05) << wanted.skew;  // the chance of a repeated draw is an estimate
    EXPECT_NEAR(found.skew, wanted.skew, 0.15) << wanted.skew;
  }
}

TEST(RecordedRouting, GoesRoundAndRound) {
  const RoutingShape shape{.moe_layers = 1, .n_experts = 4, .top_k = 2};
  RecordedRouting routing(shape, {0, 1, 2, 3});
  EXPECT_EQ(routing.token_count(), 2u);
  EXPECT_EQ(routing.next()[0], 0);
  EXPECT_EQ(routing.next()[0], 2);
  EXPECT_EQ(routing.next()[0], 0);
}

TEST(RoutingStatistics, AreCountedByHand) {
  const RoutingShape shape{.moe_layers = 1, .n_experts = 4, .top_k = 2};
  EXPECT_DOUBLE_EQ(statistics_of(shape, std::vector<int32_t>{0, 1, 1, 2, 1, 2}).overlap, 0.75);
  EXPECT_EQ(statistics_of(shape, std::vector<int32_t>{0, 1, 2, 3}).skew, 0.0) << "all alike";
}

}  // namespace
}  // namespace moraine::tools
