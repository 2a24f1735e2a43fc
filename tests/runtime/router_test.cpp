#include "runtime/router.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/test_data.h"

namespace moraine::runtime {
namespace {

ModelConfig config_of(int64_t experts, int64_t groups, int64_t kept, int64_t top_k) {
  ModelConfig config;
  config.n_routed_experts = experts;
  config.n_group = groups;
  config.topk_group = kept;
  config.num_experts_per_tok = top_k;
  config.routed_scaling_factor = 2.5;
  return config;
}

std::vector<int32_t> chosen_ids(const Router& router, const std::vector<float>& logits,
                                const std::vector<float>& bias) {
  std::vector<RoutedExpert> chosen(static_cast<size_t>(router.num_experts_per_tok()));
  router.route(logits, bias, chosen);
  std::vector<int32_t> ids;
  for (const RoutedExpert& expert : chosen) ids.push_back(expert.expert);
  return ids;
}

TEST(Router, MatchesTheGoldensOfR1) {
  const quant::Json golden = quant::read_json(testing::test_data("vectors/router_r1.json"));
  const std::vector<float> logits =
      testing::read_f32(testing::test_data("vectors/router_r1.logits.f32.bin"));                            // [16, 256]
  const std::vector<float> bias = testing::read_f32(testing::test_data("vectors/router_r1.bias.f32.bin"));  // [256]
  const Router router(config_of(256, 8, 4, 8));
  for (size_t token = 0; token < 16; ++token) {
    std::vector<RoutedExpert> chosen(8);
    const std::span<const float> row = std::span(logits).subspan(token * 256, 256);
    router.route(row, bias, chosen);
    const quant::Json& expected = golden["results"][token];
    const auto ranked = expected["experts"].get<std::vector<int32_t>>();
    EXPECT_EQ(router.likeliest(row, bias, 8), ranked) << token;
    for (size_t k = 0; k < 8; ++k) {
      if (k > 0) {
        EXPECT_LT(chosen[k - 1].expert, chosen[k].expert);
      }
      const auto place =
          static_cast<size_t>(std::find(ranked.begin(), ranked.end(), chosen[k].expert) - ranked.begin());
      ASSERT_LT(place, ranked.size()) << token;
      EXPECT_NEAR(chosen[k].weight, expected["weights"][place].get<double>(), 1e-6);
    }
  }
}

TEST(Router, TheBiasChoosesButDoesNotWeigh) {
  const Router router(config_of(4, 1, 1, 2));
  std::vector<RoutedExpert> chosen(2);
  router.route(std::vector{0.0f, 0.0f, 0.0f, 0.0f}, std::vector{0.0f, 0.0f, 5.0f, 4.0f}, chosen);
  EXPECT_EQ(chosen[0].expert, 2);
  EXPECT_EQ(chosen[1].expert, 3);
  EXPECT_FLOAT_EQ(chosen[0].weight, 1.25f);  // equal affinities, normalised, × 2.5
  EXPECT_FLOAT_EQ(chosen[1].weight, 1.25f);
}

TEST(Router, OnlyExpertsOfTheBestGroupsAreEligible) {
  // Group 0 has the single best expert, group 1 the better pair: the pair's group is kept.
  const Router router(config_of(4, 2, 1, 2));
  EXPECT_EQ(chosen_ids(router, {2.0f, -9.0f, 1.5f, 1.4f}, {0, 0, 0, 0}), (std::vector<int32_t>{2, 3}));
}

TEST(Router, TiesGoToTheLowerIndex) {
  const Router router(config_of(8, 2, 1, 2));
  EXPECT_EQ(chosen_ids(router, std::vector<float>(8, 0.3f), std::vector<float>(8, 0.0f)), (std::vector<int32_t>{0, 1}));
}

TEST(Router, SoftmaxWeightsAreNotNormalised) {
  ModelConfig config = config_of(4, 1, 1, 2);
  config.scoring_func = ScoringFunc::kSoftmax;
  config.topk_method = TopkMethod::kGreedy;
  config.norm_topk_prob = false;
  config.routed_scaling_factor = 16.0;
  std::vector<RoutedExpert> chosen(2);
  const float big = 500.0f;  // exp(big) alone would overflow
  Router(config).route(std::vector{big, big + std::log(4.0f), big + std::log(2.0f), big}, {}, chosen);
  EXPECT_EQ(chosen[0].expert, 1);
  EXPECT_EQ(chosen[1].expert, 2);
  EXPECT_NEAR(chosen[0].weight, 16.0 * 4 / 8, 1e-3);  // log(4) beside 500 has 16 bits left
  EXPECT_NEAR(chosen[1].weight, 16.0 * 2 / 8, 1e-3);
}

TEST(Router, GroupLimitedGreedyRanksGroupsByTheirBest) {
  // The case above the other way round: the group with the single best expert is kept.
  ModelConfig config = config_of(4, 2, 1, 2);
  config.scoring_func = ScoringFunc::kSoftmax;
  config.topk_method = TopkMethod::kGroupLimitedGreedy;
  EXPECT_EQ(chosen_ids(Router(config), {2.0f, -9.0f, 1.5f, 1.4f}, {}), (std::vector<int32_t>{0, 1}));
}

TEST(Router, ExtremeLogitsGiveFiniteWeights) {
  const Router router(config_of(4, 1, 1, 2));
  std::vector<RoutedExpert> chosen(2);
  router.route(std::vector{-200.0f, -200.0f, -200.0f, -200.0f}, std::vector<float>(4, 0.0f), chosen);
  for (const RoutedExpert& expert : chosen) EXPECT_TRUE(std::isfinite(expert.weight));
}

}  // namespace
}  // namespace moraine::runtime
