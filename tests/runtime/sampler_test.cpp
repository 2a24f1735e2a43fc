#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "quant/error.h"
#include "support/expect_error.h"

namespace moraine::runtime {
namespace {

std::map<int32_t, int> draw(const SamplingOptions& options, const std::vector<float>& logits, int count) {
  Sampler sampler(options, static_cast<int32_t>(logits.size()));
  std::map<int32_t, int> seen;
  for (int i = 0; i < count; ++i) ++seen[sampler.sample(logits)];
  return seen;
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheLowerIdOnTies) {
  EXPECT_EQ(draw({.temperature = 0.0}, {0.0f, 3.0f, 3.0f, 1.0f}, 5), (std::map<int32_t, int>{{1, 5}}));
}

TEST(Sampler, PaddingRowsAreNeverDrawn) {
  Sampler greedy({.temperature = 0.0}, 2);
  EXPECT_EQ(greedy.sample(std::vector{0.0f, 1.0f, 9.0f}), 1);
  Sampler warm({.temperature = 1.0, .top_p = 1.0}, 2);
  for (int i = 0; i < 100; ++i) EXPECT_LT(warm.sample(std::vector{0.0f, 1.0f, 9.0f}), 2);
}

TEST(Sampler, TheSameSeedDrawsTheSameTokens) {
  const std::vector<float> logits{0.1f, 0.2f, 0.3f, 0.4f};
  Sampler a({.temperature = 1.0, .top_p = 1.0, .seed = 7}, 4);
  Sampler b({.temperature = 1.0, .top_p = 1.0, .seed = 7}, 4);
  Sampler c({.temperature = 1.0, .top_p = 1.0, .seed = 8}, 4);
  bool differs = false;
  for (int i = 0; i < 50; ++i) {
    const int32_t token = a.sample(logits);
    EXPECT_EQ(token, b.sample(logits));
    differs |= token != c.sample(logits);
  }
  EXPECT_TRUE(differs);
}

TEST(Sampler, FrequenciesFollowTheSoftmaxAtTheTemperature) {
  const std::vector<float> logits{0.0f, 1.0f, 2.0f};
  constexpr int kDraws = 200000;
  auto seen = draw({.temperature = 2.0, .top_p = 1.0, .seed = 1}, logits, kDraws);
  const double total = 1.0 + std::exp(0.5) + std::exp(1.0);
  for (int32_t id = 0; id < 3; ++id) {
    const double p = std::exp(0.5 * id) / total;
    const double deviation = std::sqrt(p * (1 - p) / kDraws);
    EXPECT_NEAR(seen[id] / static_cast<double>(kDraws), p, 5 * deviation) << id;
  }
}

TEST(Sampler, TopKTopPAndMinPCutTheTail) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  const auto kept = [&](SamplingOptions options) { return draw(options, logits, 5000).size(); };
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 1.0}), 4u);
  EXPECT_EQ(kept({.temperature = 1.0, .top_k = 2, .top_p = 1.0}), 2u);
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 0.79}), 2u);  // 0.5 + 0.3 reaches it
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 0.81}), 3u);
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 1e-9}), 1u);  // at least one
  EXPECT_EQ(kept({.temperature = 1.0, .top_p = 1.0, .min_p = 0.2}), 3u);
  EXPECT_EQ(kept({.temperature = 1.0, .top_k = 1, .top_p = 1.0}), 1u);
}

TEST(Sampler, NamesEveryOptionOutOfRange) {
  testing::expect_error(quant::ErrorKind::kUsage, {"temperature", "top-p", "min-p", "top-k"}, [] {
    SamplingOptions{.temperature = -1.0, .top_k = -1, .top_p = 0.0, .min_p = 2.0}.validate();
  });
}

}  // namespace
}  // namespace moraine::runtime
