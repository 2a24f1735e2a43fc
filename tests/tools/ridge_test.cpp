#include "tools/ridge.h"

#include <gtest/gtest.h>

#include "support/random_matrix.h"

namespace moraine::tools {
namespace {

/// y = W·x exactly, for `rows` random x of 5 values and 3 outputs.
struct Problem {
  explicit Problem(int64_t rows) {
    testing::RandomValues random(4);
    w = testing::random_values(15, 1.0, random);
    x = testing::random_values(rows * 5, 1.0, random);
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      for (size_t output = 0; output < 3; ++output) {
        float sum = 0.0f;
        for (size_t i = 0; i < 5; ++i) sum += w[output * 5 + i] * x[row * 5 + i];
        y.push_back(sum);
      }
    }
  }
  std::vector<float> w, x, y;
};

TEST(Ridge, FindsTheLinearMap) {
  const Problem problem(50);
  const std::vector<float> found = ridge_fit(problem.x, problem.y, 5, 3, 1e-9);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], problem.w[i], 1e-4);
}

TEST(Ridge, FewerRowsThanInputsAreMetExactly) {
  const Problem problem(3);
  const std::vector<float> found = ridge_fit(problem.x, problem.y, 5, 3, 1e-9);
  for (size_t row = 0; row < 3; ++row) {
    for (size_t output = 0; output < 3; ++output) {
      float sum = 0.0f;
      for (size_t i = 0; i < 5; ++i) sum += found[output * 5 + i] * problem.x[row * 5 + i];
      EXPECT_NEAR(sum, problem.y[row * 3 + output], 1e-3);
    }
  }
}

TEST(Ridge, BothWaysAgreeAndStrengthShrinks) {
  const Problem five(5), six(6);  // at five rows both matrices have the same side
  const auto norm = [](const std::vector<float>& values) {
    double sum = 0.0;
    for (const float value : values) sum += static_cast<double>(value) * value;
    return sum;
  };
  EXPECT_LT(norm(ridge_fit(six.x, six.y, 5, 3, 10.0)), 0.5 * norm(ridge_fit(six.x, six.y, 5, 3, 1e-6)));
  // The same problem with a sixth input that is always 0 takes the other way.
  std::vector<float> wider;
  for (size_t row = 0; row < 5; ++row) {
    wider.insert(wider.end(), five.x.begin() + static_cast<ptrdiff_t>(row * 5),
                 five.x.begin() + static_cast<ptrdiff_t>(row * 5 + 5));
    wider.push_back(0.0f);
  }
  const std::vector<float> narrow = ridge_fit(five.x, five.y, 5, 3, 0.6);
  const std::vector<float> dual = ridge_fit(wider, five.y, 6, 3, 0.6 * 6.0 / 5.0);  // the mean is over one input more
  for (size_t output = 0; output < 3; ++output) {
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(narrow[output * 5 + i], dual[output * 6 + i], 1e-5);
  }
}

}  // namespace
}  // namespace moraine::tools
