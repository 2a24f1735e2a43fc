#include "runtime/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/test_data.h"

namespace moraine::runtime {
namespace {

TEST(RopeTable, MatchesTheYarnGoldensOfR1) {
  const quant::Json golden = quant::read_json(testing::test_data("vectors/yarn_r1.json"));
  const ModelConfig config =
      ModelConfig::parse(quant::read_text(testing::test_data("configs/deepseek-r1.json"), 1 << 20), "config.json");
  const RopeTable table(config);
  ASSERT_EQ(table.frequencies().size(), golden["inv_freq"].size());
  for (size_t i = 0; i < table.frequencies().size(); ++i) {
    const double expected = golden["inv_freq"][i].get<double>();
    EXPECT_NEAR(table.frequencies()[i], expected, 1e-14 * expected) << i;
  }
  EXPECT_DOUBLE_EQ(table.multiplier(), golden["rope_cos_sin_multiplier"].get<double>());
  EXPECT_NEAR(config.softmax_scale(), golden["softmax_scale"].get<double>(), 1e-15);

  std::vector<float> cos(32), sin(32);
  for (const auto& [position, pairs] : golden["angles"].items()) {
    table.cos_sin(std::stoll(position), cos, sin);
    for (size_t i = 0; i < 32; ++i) {
      // Half a unit in the last place of f32, and the f64 error of an angle of position × frequency radians.
      const double tolerance = 6e-8 + 1e-15 * std::stod(position);
      EXPECT_NEAR(cos[i], pairs[i][0].get<double>(), tolerance) << position << " " << i;
      EXPECT_NEAR(sin[i], pairs[i][1].get<double>(), tolerance) << position << " " << i;
    }
  }
}

TEST(RopeTable, MatchesTheGoldensOfLlama3) {
  const quant::Json golden = quant::read_json(testing::test_data("vectors/rope_llama3.json"));
  const RopeTable table(ModelConfig::parse(
      quant::read_text(testing::test_data("configs/r1-distill-llama-8b.json"), 1 << 20), "config.json"));
  ASSERT_EQ(table.frequencies().size(), golden["inv_freq"].size());
  for (size_t i = 0; i < table.frequencies().size(); ++i) {
    const double expected = golden["inv_freq"][i].get<double>();
    EXPECT_NEAR(table.frequencies()[i], expected, 1e-14 * expected) << i;
  }
  EXPECT_DOUBLE_EQ(table.multiplier(), 1.0);
}

TEST(RopeTable, WithoutScalingIsPlainRope) {
  ModelConfig config;
  config.qk_rope_head_dim = 8;
  config.rope_theta = 10000.0;
  const RopeTable table(config);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(table.frequencies()[i], std::pow(10000.0, -2.0 * static_cast<double>(i) / 8.0));
  }
  EXPECT_DOUBLE_EQ(table.multiplier(), 1.0);
}

TEST(RopeTable, WithoutMscaleAllDimTheCorrectionIsOnCosAndSin) {
  ModelConfig config;
  config.qk_rope_head_dim = 8;
  config.rope_scaling = {.type = RopeScaling::Type::kYarn, .factor = 40.0, .original_max_position_embeddings = 4096};
  const RopeTable table(config);
  EXPECT_DOUBLE_EQ(table.multiplier(), 0.1 * std::log(40.0) + 1.0);
}

}  // namespace
}  // namespace moraine::runtime
