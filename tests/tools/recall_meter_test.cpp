#include "tools/recall_meter.h"

#include <gtest/gtest.h>

#include "support/random_matrix.h"
#include "support/random_model.h"

namespace moraine::tools {
namespace {

/// Two MoE layers (1 and 2) of six experts, top-2, 24 wide.
const runtime::Model& model() {
  static const testing::RandomModel made = testing::random_model(testing::odd_config(), quant::DType::kF32, 3);
  return *made.model;
}

std::vector<float> states(int rows, uint64_t seed) {
  testing::RandomValues random(seed);
  return testing::random_values(rows * 24, 1.0, random);
}

TEST(EarlyRouter, IsTheLayersNormAndGate) {
  const EarlyRouter early(model());
  EXPECT_FALSE(early.has(0));
  EXPECT_TRUE(early.has(1));
  EXPECT_FALSE(early.has(3));
  const std::vector<float> logits = early.logits(2, states(3, 1));
  ASSERT_EQ(logits.size(), 18u);
  std::vector<float> doubled = states(3, 1);
  for (float& value : doubled) value *= 2.0f;
  const std::vector<float> same = early.logits(2, doubled);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], same[i], 1e-4) << "the norm takes the length away";
}

TEST(RecallMeter, AStateThatDoesNotChangeIsGuessedWhole) {
  const EarlyRouter early(model());
  RecallMeter meter(model(), nullptr);
  const std::vector<float> state = states(5, 2);
  meter.routed(1, state, state, early.logits(1, state));
  meter.combined(1, state, state);
  meter.routed(2, state, state, early.logits(2, state));
  for (const GuessSource source : {GuessSource::kPostAttention, GuessSource::kWithShared, GuessSource::kOwnInput}) {
    EXPECT_EQ(meter.count(source, 2).wanted, 10u);
    EXPECT_EQ(meter.count(source, 2).recall(), 1.0);
  }
  EXPECT_EQ(meter.count(GuessSource::kTwoAhead, 2).recall(), std::nullopt);
  EXPECT_EQ(meter.count(GuessSource::kTrained, 2).recall(), std::nullopt);
  EXPECT_EQ(meter.count(GuessSource::kPostAttention, 1).recall(), std::nullopt) << "nothing stands before the first";
  EXPECT_NE(meter.text().find("100.0 (100.0)"), std::string::npos);
  EXPECT_EQ(meter.json()["sources"]["+ shared"]["layers"]["2"]["recall"], 1.0);
}

TEST(RecallMeter, AnotherStateIsGuessedLessWell) {
  const EarlyRouter early(model());
  RecallMeter meter(model(), nullptr);
  const std::vector<float> before = states(200, 3), after = states(200, 4);
  meter.routed(1, before, before, early.logits(1, before));
  meter.combined(1, before, after);
  meter.routed(2, after, after, early.logits(2, after));
  const RecallCount unrelated = meter.count(GuessSource::kPostAttention, 2);
  EXPECT_LT(*unrelated.recall(), 0.7);
  EXPECT_GT(*unrelated.wide_recall(), *unrelated.recall());
  EXPECT_EQ(meter.count(GuessSource::kOwnInput, 2).recall(), 1.0);
}

TEST(RecallMeter, ATrainedPredictorCorrectsTheGuess) {
  const EarlyRouter early(model());
  runtime::LinearPredictor trained(model());
  // Early logits are corrected by nothing but expert 5, far up.
  std::vector<float> delta(6 * 24, 0.0f);
  std::fill(delta.end() - 24, delta.end(), 100.0f);
  trained.set(2, std::move(delta));
  RecallMeter meter(model(), &trained);
  const std::vector<float> state = states(1, 5), normed(24, 1.0f);
  std::vector<float> logits(6, -1.0f);
  logits[5] = 100.0f;
  meter.routed(1, state, normed, early.logits(1, state));
  meter.routed(2, state, normed, logits);
  EXPECT_GE(*meter.count(GuessSource::kTrained, 2).recall(), 0.5) << "expert 5 at least";
}

}  // namespace
}  // namespace moraine::tools
