#include "cpu/gqa_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace moraine::cpu {
namespace {

using testing::same_bits;

/// One layer's attention inputs for one sequence of random keys and values.
struct Case {
  GqaShape shape;
  HeadCache cache;
  int64_t first_position;
  int64_t row_count;
  std::vector<float> keys, values;  // [tokens, kv heads, head_dim]
  std::vector<float> q;             // [rows, heads, head_dim]

  /// For a bf16 cache all numbers are bf16 ones.
  Case(const GqaShape& gqa_shape, CacheType type, int64_t first, int64_t rows, testing::RandomValues& random)
      : shape(gqa_shape),
        cache(2, shape.num_key_value_heads, shape.head_dim, type),
        first_position(first),
        row_count(rows),
        keys(testing::random_values((first + rows) * shape.num_key_value_heads * shape.head_dim, 1.0, random)),
        values(testing::random_values(std::ssize(keys), 1.0, random)),
        q(testing::random_values(rows * shape.num_attention_heads * shape.head_dim, 1.0, random)) {
    if (type == CacheType::kBf16) {
      for (std::vector<float>* numbers : {&keys, &values, &q}) {
        for (float& x : *numbers) x = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffff0000u);
      }
    }
    cache.reserve(first + rows);
    for (int64_t s = 0; s < first + rows; ++s) {
      for (int64_t head = 0; head < shape.num_key_value_heads; ++head) {
        cache.put(select_kernels(), 1, head, s, key(s, head), value(s, head));
      }
    }
    cache.commit(first);
  }

  const float* key(int64_t s, int64_t head) const {
    return keys.data() + (s * shape.num_key_value_heads + head) * shape.head_dim;
  }
  const float* value(int64_t s, int64_t head) const {
    return values.data() + (s * shape.num_key_value_heads + head) * shape.head_dim;
  }

  std::vector<float> run(Workers& workers) const {
    std::vector<float> out(q.size());
    FloatBuffer partials;
    const GqaSlice slice{&cache, first_position, 0, row_count};
    gqa_attention(workers, shape, 1, {&slice, 1}, partials, q.data(), out.data());
    return out;
  }
};

/// Row t, head h in f64, with a first-order bound on what f32 may change, or what rounding weights to bf16 may.
void expect_near_exact(const Case& c, const std::vector<float>& out, int64_t t, int64_t h) {
  const int64_t dim = c.shape.head_dim, kv_head = h / c.shape.group(), visible = c.first_position + t + 1;
  const int64_t place = (t * c.shape.num_attention_heads + h) * dim;
  const double rounding = testing::gamma(dim + 4, testing::kUnitF32);
  std::vector<double> scores;
  double score_error = 0.0;
  for (int64_t s = 0; s < visible; ++s) {
    double score = 0.0, score_abs = 0.0;
    for (int64_t i = 0; i < dim; ++i) {
      const double term = double{c.q[static_cast<size_t>(place + i)]} * double{c.key(s, kv_head)[i]};
      score += term;
      score_abs += std::abs(term);
    }
    scores.push_back(score * double{c.shape.softmax_scale});
    score_error = std::max(score_error, rounding * score_abs * double{c.shape.softmax_scale});
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& score : scores) sum += score = std::exp(score - max);
  for (int64_t i = 0; i < dim; ++i) {
    double exact = 0.0, magnitude = 0.0;
    for (int64_t s = 0; s < visible; ++s) {
      const double term = scores[static_cast<size_t>(s)] / sum * double{c.value(s, kv_head)[i]};
      exact += term;
      magnitude += std::abs(term);
    }
    // A score off by δ changes a probability by at most the factor e^{2δ}; the sums over tokens round visible +
    // rescales.
    double relative = std::expm1(2.0 * score_error) + testing::gamma(2 * visible + 64, testing::kUnitF32);
    // bf16: a weight is off by half a unit of 2^-8 and by the polynomial's 2^-18.4, and so is their sum.
    if (c.cache.type() == CacheType::kBf16) relative += 2.0 * (0x1p-9 + 0x1p-18);
    ASSERT_NEAR(out[static_cast<size_t>(place + i)], exact, relative * magnitude)
        << "row " << t << " head " << h << " value " << i;
  }
}

constexpr GqaShape kOdd{.num_attention_heads = 6, .num_key_value_heads = 2, .head_dim = 10, .softmax_scale = 0.31f};
constexpr GqaShape kQwen{
    .num_attention_heads = 14, .num_key_value_heads = 2, .head_dim = 128, .softmax_scale = 0.0883883f};
constexpr GqaShape kOneKeyPerHead{
    .num_attention_heads = 3, .num_key_value_heads = 3, .head_dim = 16, .softmax_scale = 0.25f};

constexpr CacheType kTypes[] = {CacheType::kF32, CacheType::kBf16};

TEST(GqaAttention, EveryRowSeesItsPastAndNoMore) {
  testing::RandomValues random(5);
  Workers workers(select_kernels(), 2);
  for (const CacheType type : kTypes) {
    for (const GqaShape& shape : {kOdd, kQwen, kOneKeyPerHead}) {
      // The last ones see more than one span, some of their rows no token of the last one.
      for (const auto& [first, rows] :
           {std::pair{0, 1}, {0, 70}, {63, 2}, {200, 1}, {130, 90}, {2047, 1}, {1000, 40}, {1020, 6}}) {
        SCOPED_TRACE(std::to_string(shape.head_dim) + " at " + std::to_string(first) + " × " + std::to_string(rows));
        const Case c(shape, type, first, rows, random);
        const std::vector<float> out = c.run(workers);
        for (int64_t t = 0; t < rows; t += std::max(1, rows / 5)) {
          for (int64_t h = t % 3; h < shape.num_attention_heads; h += 3) expect_near_exact(c, out, t, h);
        }
      }
    }
  }
}

TEST(GqaAttention, ThreadsAndInstructionSetsChangeNoBit) {
  testing::RandomValues random(6);
  Workers one(select_kernels(), 1), three(select_kernels(), 3), scalar(select_kernels(Isa::kScalar), 2);
  for (const CacheType type : kTypes) {
    for (const auto& [first, rows] : {std::pair{40, 150}, {2500, 1}}) {  // more than one task per kv head; many spans
      const Case c(kQwen, type, first, rows, random);
      const std::vector<float> base = c.run(one);
      EXPECT_TRUE(same_bits(c.run(three), base));
      EXPECT_TRUE(same_bits(c.run(scalar), base));
    }
  }
}

TEST(GqaAttention, CompanyAndChunksChangeNoBit) {
  testing::RandomValues random(7);
  Workers workers(select_kernels(), 2);
  FloatBuffer partials;
  for (const CacheType type : kTypes) {
    const Case a(kQwen, type, 1000, 80, random), b(kQwen, type, 0, 5, random);
    std::vector<float> q = a.q;
    q.insert(q.end(), b.q.begin(), b.q.end());
    std::vector<float> expected = a.run(workers);
    const std::vector<float> alone_b = b.run(workers);
    expected.insert(expected.end(), alone_b.begin(), alone_b.end());

    std::vector<float> together(q.size());
    const GqaSlice slices[] = {{&a.cache, 1000, 0, 80}, {&b.cache, 0, 80, 5}};
    gqa_attention(workers, kQwen, 1, slices, partials, q.data(), together.data());
    EXPECT_TRUE(same_bits(together, expected));

    std::vector<float> one_by_one(a.q.size());
    for (int64_t t = 0; t < a.row_count; ++t) {
      const GqaSlice slice{&a.cache, 1000 + t, 0, 1};
      const int64_t place = t * kQwen.num_attention_heads * kQwen.head_dim;
      gqa_attention(workers, kQwen, 1, {&slice, 1}, partials, a.q.data() + place, one_by_one.data() + place);
    }
    EXPECT_TRUE(same_bits(one_by_one, a.run(workers)));
  }
}

TEST(GqaAttention, TheCacheFollowsTheProjectionsAndPrecision) {
  using quant::DType;
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    EXPECT_EQ(head_cache_type(std::vector{DType::kQ8_0, type}, false), CacheType::kF32);
  }
  for (const DType type : {DType::kQ8_0, DType::kQ4_K, DType::kQ6_K, DType::kIQ3_S}) {
    EXPECT_EQ(head_cache_type(std::vector{type, DType::kQ8_0}, false), CacheType::kBf16);
    EXPECT_EQ(head_cache_type(std::vector{type}, true), CacheType::kF32);
  }
}

}  // namespace
}  // namespace moraine::cpu
