#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

// The bf16 kernels of every instruction set against the scalar definition, bit by bit, and the definition against f64.
namespace moraine::cpu {
namespace {

using testing::same_bits;

float to_f32(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}

std::vector<float> to_f32(const std::vector<Bf16>& x) {
  std::vector<float> values;
  for (const Bf16 number : x) values.push_back(to_f32(number));
  return values;
}

class Bf16KernelsTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_available(GetParam())) GTEST_SKIP() << "this machine lacks the instruction set";
    kernels_ = &select_kernels(GetParam()).bf16;
    scope_.emplace(select_kernels(GetParam()));
  }

  std::vector<float> values(int64_t count, double deviation = 2.0) {
    return testing::random_values(count, deviation, random_);
  }
  /// Numbers of all sizes from 2^-60 to 2^40, a few zero.
  std::vector<float> wild(int64_t count) {
    std::vector<float> wild = values(count);
    for (float& value : wild) value = std::ldexp(value, static_cast<int>(random_.bits() % 100) - 60);
    return wild;
  }
  std::vector<Bf16> rounded(const std::vector<float>& values) {
    std::vector<Bf16> out(values.size());
    scalar_.round(values.data(), std::ssize(values), out.data());
    return out;
  }

  const Bf16Kernels* kernels_ = nullptr;
  std::optional<KernelScope> scope_;
  const Bf16Kernels& scalar_ = scalar_kernels().bf16;
  testing::RandomValues random_{11};
};

TEST_P(Bf16KernelsTest, RoundsToNearestAndKeepsWhatIsNoNumber) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f,
                                1.0f,
                                -1.0f + 0x1p-9f,
                                1.0f + 0x1p-8f,
                                1.0f + 0x1.fp-9f,
                                0x1p-48f,
                                0x1.fp-49f,
                                -0x1.fp-49f,
                                0x1p-140f,
                                infinity,
                                -infinity,
                                0x1.fffffep+127f,
                                std::numeric_limits<float>::quiet_NaN()};
  std::vector<Bf16> out(x.size());
  kernels_->round(x.data(), std::ssize(x), out.data());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(same_bits(to_f32(out), std::vector<float>{0.0f, 1.0f, -1.0f, 1.0f + 0x1p-7f, 1.0f, 0x1p-48f, 0.0f, 0.0f,
                                                        0.0f, infinity, -infinity, infinity, nan}));
  for (const int64_t n : {1, 7, 15, 16, 17, 31, 33, 576}) {
    const std::vector<float> some = wild(n);
    std::vector<Bf16> actual(some.size());
    kernels_->round(some.data(), n, actual.data());
    EXPECT_EQ(actual, rounded(some));
    for (size_t i = 0; i < some.size(); ++i) {
      const double tolerance = std::max(testing::rounding_tolerance(double{some[i]}, testing::kUnitBf16), 0x1p-48);
      ASSERT_NEAR(to_f32(actual[i]), some[i], tolerance);
    }
  }
}

TEST_P(Bf16KernelsTest, PairsRows) {
  for (const int64_t rows : {1, 2, 3, 7, 31, 64}) {
    for (const int64_t groups : {1, 2, 5}) {
      const int64_t stride = groups * 16 + 3, group_stride = (rows + 1) / 2 * 32 + 32;
      const std::vector<float> numbers = wild(rows * stride);
      const std::vector<Bf16> halves = rounded(numbers);
      std::vector<Bf16> from_f32(static_cast<size_t>(groups * group_stride), 9), from_bf16 = from_f32,
                                                                                 expected = from_f32;
      kernels_->pair_f32_rows(numbers.data(), stride, rows, groups, from_f32.data(), group_stride);
      kernels_->pair_rows(halves.data(), stride, rows, groups, from_bf16.data(), group_stride);
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t t = 0; t < (rows + 1) / 2 * 2; ++t) {
          for (int64_t lane = 0; lane < 16; ++lane) {
            expected[static_cast<size_t>(g * group_stride + t / 2 * 32 + 2 * lane + t % 2)] =
                t < rows ? halves[static_cast<size_t>(t * stride + g * 16 + lane)] : Bf16{0};
          }
        }
      }
      EXPECT_EQ(from_f32, expected);
      EXPECT_EQ(from_bf16, expected);
    }
  }
}

TEST_P(Bf16KernelsTest, MultiplyIsTheDefinedSumAndNearTheExactOne) {
  for (const int64_t rows : {16, 32, 48, 80}) {
    for (const int64_t groups : {1, 2, 3, 5}) {
      for (const int64_t k_count : {32, 64, 576}) {
        SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(groups) + "x" + std::to_string(k_count));
        const bool is_wild = k_count == 64;
        const int64_t a_stride = k_count + 32, c_stride = groups * 16 + 5, group_stride = k_count * 16 + 32;
        const std::vector<Bf16> a = rounded(is_wild ? wild(rows * a_stride) : values(rows * a_stride));
        const std::vector<Bf16> b = rounded(is_wild ? wild(groups * group_stride) : values(groups * group_stride));
        const Bf16Panel panel{b.data(), group_stride, groups};
        std::vector<float> start = values(rows * c_stride);
        for (float& sum : start) sum = std::fabs(sum) < kSmallestBf16Sum ? 0.0f : sum;
        for (const bool continued : {false, true}) {
          std::vector<float> actual = start, expected = start;
          kernels_->multiply(a.data(), a_stride, rows, panel, k_count, continued, actual.data(), c_stride);
          scalar_.multiply(a.data(), a_stride, rows, panel, k_count, continued, expected.data(), c_stride);
          ASSERT_TRUE(same_bits(actual, expected)) << continued;
          for (int64_t m = 0; m < rows; m += 7) {
            for (int64_t n = 0; n < groups * 16; n += 5) {
              const float first = continued ? start[static_cast<size_t>(m * c_stride + n)] : 0.0f;
              double exact = double{first}, magnitude = std::abs(double{first});
              for (int64_t k = 0; k < k_count; ++k) {
                const double term =
                    double{to_f32(a[static_cast<size_t>(m * a_stride + k)])} *
                    double{to_f32(b[static_cast<size_t>(n / 16 * group_stride + k / 2 * 32 + n % 16 * 2 + k % 2)])};
                exact += term;
                magnitude += std::abs(term);
              }
              // A chain of 16, the sum of two and one addition per 32 k.
              ASSERT_NEAR(actual[static_cast<size_t>(m * c_stride + n)], exact,
                          testing::dot_tolerance(17 + k_count / 32, magnitude));
            }
          }
        }
      }
    }
  }
}

TEST_P(Bf16KernelsTest, RescaleFlushesWhatHardwareWould) {
  for (const int64_t n : {1, 15, 16, 17, 40}) {
    std::vector<float> actual = wild(n), expected = actual;
    for (const float factor : {0.75f, 0x1p-60f, 0.0f}) {
      kernels_->rescale(actual.data(), n, factor);
      for (float& x : expected) x = std::fabs(x * factor) < 0x1p-100f ? 0.0f : x * factor;
      EXPECT_TRUE(same_bits(actual, expected));
    }
  }
}

/// A softmax over blocks of scores.
struct Softmax {
  int64_t groups, tokens, padded;
  std::vector<float> max, sum, rescale, seen;
  std::vector<Bf16> weights;

  Softmax(int64_t group_count, int64_t token_count)
      : groups(group_count),
        tokens(token_count),
        padded((token_count + 31) / 32 * 32),
        max(static_cast<size_t>(16 * groups), -std::numeric_limits<float>::infinity()),
        sum(max.size()),
        rescale(max.size()),
        seen(max.size()),
        weights(max.size() * static_cast<size_t>(padded + 7)) {}

  void step(const Bf16Kernels& kernels, const std::vector<float>& scores, float scale) {
    kernels.softmax({.scores = scores.data(),
                     .stride = groups * 16 + 3,
                     .token_count = tokens,
                     .group_count = groups,
                     .seen = seen.data(),
                     .scale = scale,
                     .max = max.data(),
                     .sum = sum.data(),
                     .rescale = rescale.data(),
                     .weights = weights.data(),
                     .weight_stride = padded + 7});
  }
};

TEST_P(Bf16KernelsTest, SoftmaxIsTheDefinedOneAndNearTheExactOne) {
  constexpr float kScale = 0.7f;
  for (const int64_t groups : {1, 3}) {
    for (const int64_t tokens : {1, 2, 31, 32, 33, 200}) {
      SCOPED_TRACE(std::to_string(groups) + " " + std::to_string(tokens));
      Softmax actual(groups, tokens), expected(groups, tokens);
      std::vector<double> exact_max(actual.max.size(), -1e300), exact_sum(actual.max.size());
      for (int block = 0; block < 3; ++block) {
        const std::vector<float> scores = values(actual.padded * (groups * 16 + 3), block == 2 ? 60.0 : 3.0);
        for (size_t row = 0; row < actual.seen.size(); ++row) {
          // The first block is seen by all, as is the block at position 0.
          const auto seen = block == 1 && row % 3 != 0 ? static_cast<int64_t>(row) % (tokens + 1) : tokens;
          actual.seen[row] = expected.seen[row] = static_cast<float>(seen);
        }
        actual.step(*kernels_, scores, kScale);
        expected.step(scalar_, scores, kScale);
        ASSERT_TRUE(same_bits(actual.max, expected.max));
        ASSERT_TRUE(same_bits(actual.sum, expected.sum));
        ASSERT_TRUE(same_bits(actual.rescale, expected.rescale));
        ASSERT_EQ(actual.weights, expected.weights);
        for (size_t row = 0; row < actual.seen.size(); ++row) {
          const double before = exact_max[row];
          const auto score = [&](int64_t t) {
            return double{scores[static_cast<size_t>(t * (groups * 16 + 3)) + row]} * double{kScale};
          };
          for (int64_t t = 0; t < static_cast<int64_t>(actual.seen[row]); ++t) {
            exact_max[row] = std::max(exact_max[row], score(t));
          }
          exact_sum[row] *= std::exp2(before - exact_max[row]);
          for (int64_t t = 0; t < actual.padded; ++t) {
            const bool is_seen = t < static_cast<int64_t>(actual.seen[row]);
            const double weight = is_seen ? std::exp2(score(t) - exact_max[row]) : 0.0;
            // Rounding to bf16, the polynomial, and the argument, whose parts are at most 300 here.
            const double relative = testing::kUnitBf16 + 0x1p-18 + 600 * testing::kUnitF32;
            ASSERT_NEAR(to_f32(actual.weights[row * static_cast<size_t>(actual.padded + 7) + static_cast<size_t>(t)]),
                        weight, relative * weight + 0x1p-48);
            exact_sum[row] += weight;
          }
          ASSERT_NEAR(actual.sum[row], exact_sum[row], (testing::kUnitBf16 + 0x1p-16) * exact_sum[row]);
        }
      }
    }
  }
}

TEST_P(Bf16KernelsTest, AScoreThatIsNoNumberStaysInItsRow) {
  Softmax softmax(1, 40);
  std::vector<float> scores = values(64 * 19);
  scores[5 * 19 + 3] = std::numeric_limits<float>::quiet_NaN();
  std::fill(softmax.seen.begin(), softmax.seen.end(), 40.0f);
  softmax.step(*kernels_, scores, 1.0f);
  for (size_t row = 0; row < 16; ++row) EXPECT_EQ(std::isnan(softmax.sum[row]), row == 3) << row;
}

std::string bf16_isa_name(const ::testing::TestParamInfo<Isa>& info) {
  constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "amx"};
  return kNames[static_cast<size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Isas, Bf16KernelsTest, ::testing::Values(Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx),
                         bf16_isa_name);

}  // namespace
}  // namespace moraine::cpu
