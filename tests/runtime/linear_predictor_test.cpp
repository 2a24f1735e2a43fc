#include "runtime/linear_predictor.h"

#include <gtest/gtest.h>

#include <fstream>

#include "quant/error.h"
#include "support/random_model.h"
#include "support/temp_dir.h"

namespace moraine::runtime {
namespace {

using testing::TempDir;

const testing::RandomModel& made() {
  static const testing::RandomModel model = testing::random_model(testing::odd_config(), quant::DType::kF32, 1);
  return model;
}

LinearPredictor some_predictor() {
  LinearPredictor predictor(*made().model);
  std::vector<float> delta(6 * 24);
  for (size_t i = 0; i < delta.size(); ++i) delta[i] = static_cast<float>(i / 24);  // row e is e everywhere
  predictor.set(2, std::move(delta));
  return predictor;
}

TEST(LinearPredictor, AddsARowPerExpert) {
  const LinearPredictor predictor = some_predictor();
  EXPECT_FALSE(predictor.corrects(1));
  ASSERT_TRUE(predictor.corrects(2));
  std::vector<float> normed(24, 0.5f), logits(6, 1.0f);
  predictor.correct(2, normed, logits);
  for (size_t e = 0; e < 6; ++e) EXPECT_FLOAT_EQ(logits[e], 1.0f + 12.0f * static_cast<float>(e));
}

TEST(LinearPredictor, SurvivesItsFile) {
  const TempDir dir;
  some_predictor().save(dir / "p.safetensors");
  const LinearPredictor loaded = LinearPredictor::load(dir / "p.safetensors", *made().model);
  std::vector<float> normed(24, 1.0f), logits(6, 0.0f);
  loaded.correct(2, normed, logits);
  EXPECT_FLOAT_EQ(logits[5], 120.0f);
  EXPECT_FALSE(loaded.corrects(1));
}

TEST(LinearPredictor, RefusesOtherModelsAndOtherFiles) {
  const TempDir dir;
  some_predictor().save(dir / "p.safetensors");
  const testing::RandomModel other = testing::random_model(testing::odd_config(), quant::DType::kF32, 2);
  EXPECT_THROW(LinearPredictor::load(dir / "p.safetensors", *other.model), quant::Error);
  std::ofstream(dir / "text") << "no tensors at all";
  EXPECT_THROW(LinearPredictor::load(dir / "text", *made().model), quant::Error);
  EXPECT_THROW(LinearPredictor::load(dir / "absent", *made().model), quant::Error);
}

}  // namespace
}  // namespace moraine::runtime
