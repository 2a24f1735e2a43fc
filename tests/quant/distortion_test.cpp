#include "quant/distortion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace moraine::quant {
namespace {

TEST(Distortion, RmseOfKnownDifferences) {
  const std::vector<float> a = {1, 2, 3, 4};
  const std::vector<float> b = {1, 0, 3, 8};
  EXPECT_DOUBLE_EQ(rmse(a, b), std::sqrt((4.0 + 16.0) / 4.0));
  EXPECT_EQ(rmse(a, a), 0.0);
  EXPECT_EQ(rmse({}, {}), 0.0);
}

TEST(Distortion, RelativeErrorIsOfTheReferencesNorm) {
  const std::vector<float> a = {3, 4};
  const std::vector<float> b = {3, 3.5};
  EXPECT_DOUBLE_EQ(relative_error(a, b), 0.1);
  EXPECT_EQ(relative_error(a, a), 0.0);
  const std::vector<float> zero = {0, 0};
  EXPECT_EQ(relative_error(zero, zero), 0.0);
  EXPECT_TRUE(std::isinf(relative_error(zero, a)));
}

TEST(Distortion, SumsInDouble) {
  std::vector<float> a(1 << 20, 1.0f);
  std::vector<float> b(1 << 20, 1.0f + 0x1p-20f);
  EXPECT_NEAR(rmse(a, b), 0x1p-20, 1e-12);
  EXPECT_TRUE(std::isnan(rmse({{1.0f}}, {{NAN}})));
}

}  // namespace
}  // namespace moraine::quant
