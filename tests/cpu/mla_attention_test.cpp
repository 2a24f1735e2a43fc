#include "cpu/mla_attention.h"

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

/// One layer's attention inputs for one sequence of random latents.
struct Case {
  MlaShape shape;
  testing::RandomMatrix kv_b_proj;
  LatentCache cache;
  int64_t first_position;
  int64_t row_count;
  std::vector<float> q;  // [rows, heads, nope | rope]

  /// `deviation`: of the weights.
  Case(const MlaShape& mla_shape, quant::DType type, int64_t first, int64_t rows, testing::RandomValues& random,
       CacheType latents = CacheType::kF32, double deviation = 0.3)
      : shape(mla_shape),
        kv_b_proj(testing::random_matrix(type, shape.num_attention_heads * shape.kv_head_rows(), shape.kv_lora_rank,
                                         random, deviation)),
        cache(2, shape.kv_lora_rank + shape.qk_rope_head_dim, latents),
        first_position(first),
        row_count(rows),
        q(testing::random_values(rows * shape.num_attention_heads * shape.qk_head_dim(), 1.0, random)) {
    cache.reserve(first + rows);
    for (int64_t s = 0; s < first + rows; ++s) {
      const std::vector<float> latent = testing::random_values(cache.width(), 1.0, random);
      cache.write(scalar_kernels(), 1, s, latent.data());
    }
    cache.commit(first);
  }

  /// What the cache holds of a token.
  std::vector<float> latent(int64_t s) const {
    const int64_t page = s / LatentCache::kPageTokens, row = s % LatentCache::kPageTokens * cache.stride();
    std::vector<float> values(static_cast<size_t>(cache.width()));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto at = row + static_cast<int64_t>(i);
      values[i] = cache.type() == CacheType::kF32
                      ? cache.f32_page(1, page)[at]
                      : std::bit_cast<float>(static_cast<uint32_t>(cache.bf16_page(1, page)[at]) << 16);
    }
    return values;
  }

  int64_t out_values() const { return row_count * shape.num_attention_heads * shape.v_head_dim; }

  std::vector<float> run(Workers& workers, MlaForm form) const {
    std::vector<float> out(static_cast<size_t>(out_values()));
    const MlaSlice slice{&cache, first_position, 0, row_count, form};
    mla_attention(workers, shape, kv_b_proj.view, 1, {&slice, 1}, q.data(), out.data());
    return out;
  }
};

/// Row t, head h of the uncompressed form (spec §3.1) in f64, with a first-order bound on what f32, or the roundings to
/// bf16 and int8, may change.
void expect_near_exact(const Case& c, const std::vector<float>& out, int64_t t, int64_t h) {
  const MlaShape& shape = c.shape;
  const std::vector<float> w = c.kv_b_proj.dequantized();
  const int64_t nope = shape.qk_nope_head_dim, v_dim = shape.v_head_dim, rank = shape.kv_lora_rank;
  const float* q = c.q.data() + (t * shape.num_attention_heads + h) * shape.qk_head_dim();
  const int64_t visible = c.first_position + t + 1;
  // Each f32 form rounds a term at most this often on its way into a score or into a value.
  const double rounding = testing::gamma(rank + shape.qk_head_dim() + shape.kv_head_rows() + 4, testing::kUnitF32);
  const bool bf16 = c.cache.type() == CacheType::kBf16;
  // A term of a score has at most three factors rounded to bf16 (q, w, k), a value two, and its weight one.
  const double score_rounding = rounding + (bf16 ? testing::gamma(3, testing::kUnitBf16) : 0.0);
  const double value_rounding = rounding + (bf16 ? testing::gamma(2, testing::kUnitBf16) : 0.0);
  const double weight_rounding = bf16 ? 2.0 * testing::kUnitBf16 + 0x1p-16 : 0.0;
  std::vector<double> scores, values(static_cast<size_t>(visible * v_dim)), value_abs(values.size());
  double score_error = 0.0, largest_latent = 0.0;
  for (int64_t s = 0; s < visible; ++s) {
    const std::vector<float> latent_row = c.latent(s);
    const float* latent = latent_row.data();
    for (int64_t k = 0; k < rank; ++k) largest_latent = std::max(largest_latent, std::abs(double{latent[k]}));
    double score = 0.0, score_abs = 0.0;
    for (int64_t i = 0; i < shape.kv_head_rows(); ++i) {
      double sum = 0.0, sum_abs = 0.0;
      for (int64_t k = 0; k < rank; ++k) {
        const double term =
            double{w[static_cast<size_t>((h * shape.kv_head_rows() + i) * rank + k)]} * double{latent[k]};
        sum += term;
        sum_abs += std::abs(term);
      }
      if (i < nope) {
        score += q[i] * sum;
        score_abs += std::abs(q[i]) * sum_abs;
      } else {
        values[static_cast<size_t>(s * v_dim + i - nope)] = sum;
        value_abs[static_cast<size_t>(s * v_dim + i - nope)] = sum_abs;
      }
    }
    for (int64_t i = 0; i < shape.qk_rope_head_dim; ++i) {
      score += double{q[nope + i]} * double{latent[rank + i]};
      score_abs += std::abs(double{q[nope + i]} * double{latent[rank + i]});
    }
    scores.push_back(score * double{shape.softmax_scale});
    score_error = std::max(score_error, score_rounding * score_abs * double{shape.softmax_scale});
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double& score : scores) sum += score = std::exp(score - max);
  for (int64_t i = 0; i < v_dim; ++i) {
    double exact = 0.0, magnitude = 0.0;
    for (int64_t s = 0; s < visible; ++s) {
      exact += scores[static_cast<size_t>(s)] / sum * values[static_cast<size_t>(s * v_dim + i)];
      magnitude += scores[static_cast<size_t>(s)] / sum * value_abs[static_cast<size_t>(s * v_dim + i)];
    }
    // A score off by δ changes a probability by at most the factor e^{2δ}; the sums over tokens round visible +
    // rescales.
    const double relative = std::expm1(2.0 * score_error) + value_rounding + weight_rounding +
                            testing::gamma(2 * visible + 64, testing::kUnitF32);
    double row_abs = 0.0;
    for (int64_t k = 0; bf16 && k < rank; ++k) {
      row_abs += std::abs(double{w[static_cast<size_t>((h * shape.kv_head_rows() + nope + i) * rank + k)]});
    }
    // The absorbed form multiplies W_UV with int8 latents, means of what is cached.
    const double tolerance = relative * magnitude + testing::activation_quantization_tolerance(largest_latent, row_abs);
    ASSERT_NEAR(out[static_cast<size_t>((t * shape.num_attention_heads + h) * v_dim + i)], exact, tolerance)
        << "row " << t << " head " << h << " value " << i;
  }
}

constexpr MlaShape kOdd{.num_attention_heads = 3,
                        .qk_nope_head_dim = 5,
                        .qk_rope_head_dim = 4,
                        .v_head_dim = 7,
                        .kv_lora_rank = 11,
                        .softmax_scale = 0.4f};
constexpr MlaShape kTiny{.num_attention_heads = 8,
                         .qk_nope_head_dim = 32,
                         .qk_rope_head_dim = 16,
                         .v_head_dim = 32,
                         .kv_lora_rank = 64,
                         .softmax_scale = 0.1f};
constexpr MlaShape kWide{.num_attention_heads = 2,
                         .qk_nope_head_dim = 128,
                         .qk_rope_head_dim = 64,
                         .v_head_dim = 128,
                         .kv_lora_rank = 512,
                         .softmax_scale = 0.02f};

TEST(MlaAttention, BothFormsAreNearTheExactUncompressedAttention) {
  testing::RandomValues random(1);
  for (const MlaShape& shape : {kOdd, kTiny, kWide}) {
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {0, 7}, {62, 5}, {130, 1}, {63, 31}}) {
      Case c(shape, quant::DType::kF32, first, rows, random);
      Workers workers(select_kernels(), 1);
      for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
        SCOPED_TRACE(std::to_string(shape.kv_lora_rank) + " at " + std::to_string(first) +
                     (form == MlaForm::kAbsorbed ? " absorbed" : " expanded"));
        const std::vector<float> out = c.run(workers, form);
        for (const int64_t t : {int64_t{0}, rows / 2, rows - 1}) {
          for (const int64_t h : {int64_t{0}, shape.num_attention_heads - 1}) expect_near_exact(c, out, t, h);
        }
      }
    }
  }
}

TEST(MlaAttention, TakesQuantizedProjections) {
  testing::RandomValues random(2);
  for (const quant::DType type : {quant::DType::kBF16, quant::DType::kF8E4M3, quant::DType::kQ8_0}) {
    Case c(kTiny, type, 70, 3, random);
    Workers workers(select_kernels(), 1);
    for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
      const std::vector<float> out = c.run(workers, form);
      for (int64_t h = 0; h < 8; ++h) expect_near_exact(c, out, 2, h);
    }
  }
}

/// Rows of a head that begin inside a group of 16.
constexpr MlaShape kAskew{.num_attention_heads = 3,
                          .qk_nope_head_dim = 5,
                          .qk_rope_head_dim = 4,
                          .v_head_dim = 7,
                          .kv_lora_rank = 32,
                          .softmax_scale = 0.2f};

TEST(MlaAttention, Bf16IsNearTheExactAttentionOverTheSameLatents) {
  testing::RandomValues random(12);
  for (const MlaShape& shape : {kAskew, kTiny, kWide}) {
    for (const quant::DType type : {quant::DType::kQ8_0, quant::DType::kQ4_0, quant::DType::kQ4_K}) {
      if (shape.kv_lora_rank % quant::block_elements(type) != 0) continue;
      for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {0, 7}, {254, 5}, {300, 1}, {63, 40}}) {
        const Case c(shape, type, first, rows, random, CacheType::kBf16, 0.05);
        Workers workers(select_kernels(), 1);
        for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
          SCOPED_TRACE(std::string(quant::dtype_name(type)) + " " + std::to_string(shape.kv_lora_rank) + " at " +
                       std::to_string(first) + (form == MlaForm::kAbsorbed ? " absorbed" : " expanded"));
          const std::vector<float> out = c.run(workers, form);
          for (const int64_t t : {int64_t{0}, rows / 2, rows - 1}) {
            for (const int64_t h : {int64_t{0}, shape.num_attention_heads - 1}) expect_near_exact(c, out, t, h);
          }
        }
      }
    }
  }
}

TEST(MlaAttention, Bf16DiffersFromF32AsRandomRoundingsDo) {
  testing::RandomValues random(13);
  for (const MlaShape& shape : {kTiny, kWide}) {
    const Case rounded(shape, quant::DType::kQ8_0, 200, 12, random, CacheType::kBf16, 0.05);
    Case exact(shape, quant::DType::kQ8_0, 200, 12, random, CacheType::kF32, 0.05);
    exact.kv_b_proj = testing::make_matrix(quant::DType::kQ8_0, rounded.kv_b_proj.view.rows, shape.kv_lora_rank);
    std::ranges::copy(rounded.kv_b_proj.storage.span(), exact.kv_b_proj.storage.span().begin());
    exact.q = rounded.q;
    for (int64_t s = 0; s < 212; ++s) exact.cache.write(scalar_kernels(), 1, s, rounded.latent(s).data());
    Workers workers(select_kernels(), 2);
    for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
      const std::vector<float> expected = exact.run(workers, form), actual = rounded.run(workers, form);
      double error = 0.0, size = 0.0;
      for (size_t i = 0; i < expected.size(); ++i) {
        error += std::pow(double{actual[i]} - double{expected[i]}, 2);
        size += std::pow(double{expected[i]}, 2);
      }
      // Weights, values and w are off by u/√3 each at most (uniform), independently for every token; scores, of size s,
      // by about s · u. The int8 latents add max/127/√12, about 0.4 % of their size. 2 % is three times the sum.
      EXPECT_LT(std::sqrt(error / size), 0.02);
      EXPECT_GT(std::sqrt(error / size), 1e-4);
    }
  }
}

TEST(MlaAttention, Bf16IsTheSameForThreadsAndInstructionSets) {
  testing::RandomValues random(14);
  for (const MlaShape& shape : {kAskew, kTiny}) {
    for (const int64_t rows : {1, 5, 150}) {
      const Case c(shape, quant::DType::kQ8_0, 230, rows, random, CacheType::kBf16);
      for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
        Workers scalar(select_kernels(Isa::kScalar), 1);
        const std::vector<float> expected = c.run(scalar, form);
        for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
          if (!isa_available(isa)) continue;
          for (const int threads : {1, 2, 3}) {
            Workers workers(select_kernels(isa), threads);
            EXPECT_TRUE(same_bits(c.run(workers, form), expected)) << workers.kernels().name << " " << threads;
          }
        }
      }
    }
  }
}

TEST(MlaAttention, ABf16ChunkEqualsItsTokensOneByOneInTheSameForm) {
  testing::RandomValues random(15);
  Workers workers(select_kernels(), 2);
  for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
    const Case c(kTiny, quant::DType::kQ8_0, 245, 30, random, CacheType::kBf16);
    const std::vector<float> chunk = c.run(workers, form);
    for (int64_t t = 0; t < 30; ++t) {
      std::vector<float> out(8 * 32);
      const MlaSlice slice{&c.cache, 245 + t, 0, 1, form};
      mla_attention(workers, kTiny, c.kv_b_proj.view, 1, {&slice, 1}, c.q.data() + t * 8 * 48, out.data());
      ASSERT_TRUE(same_bits(out, {chunk.data() + t * 8 * 32, 8 * 32})) << t;
    }
  }
}

TEST(MlaAttention, TheCacheFollowsTheMatrixAndPrecision) {
  using quant::DType;
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    EXPECT_EQ(latent_type(std::vector{type, type}, false), CacheType::kF32);
    EXPECT_EQ(latent_type(std::vector{DType::kQ8_0, type}, false), CacheType::kF32);
  }
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    EXPECT_EQ(latent_type(std::vector{type, DType::kQ8_0}, false), CacheType::kBf16);
    EXPECT_EQ(latent_type(std::vector{type}, true), CacheType::kF32);
  }
}

TEST(MlaAttention, ThreadsAndInstructionSetsChangeNoBit) {
  testing::RandomValues random(3);
  for (const MlaShape& shape : {kOdd, kTiny}) {
    for (const int64_t rows : {1, 5, 40}) {
      Case c(shape, quant::DType::kF32, 100, rows, random);
      for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
        Workers scalar(select_kernels(Isa::kScalar), 1);
        const std::vector<float> expected = c.run(scalar, form);
        for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
          if (!isa_available(isa)) continue;
          for (const int threads : {1, 2, 3}) {
            Workers workers(select_kernels(isa), threads);
            EXPECT_TRUE(same_bits(c.run(workers, form), expected)) << workers.kernels().name << " " << threads;
          }
        }
      }
    }
  }
}

void expect_slices_together_equal_each_alone(quant::DType type, CacheType latents) {
  testing::RandomValues random(4);
  Workers workers(select_kernels(), 2);
  std::vector<Case> cases;
  cases.reserve(4);
  for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 70}, {5, 1}, {200, 1}, {63, 20}}) {
    cases.emplace_back(kTiny, type, first, rows, random, latents);
    cases.back().kv_b_proj = testing::random_matrix(type, 8 * 64, 64, random = testing::RandomValues(9), 0.3);
    random = testing::RandomValues(static_cast<uint64_t>(10 + first));
  }
  std::vector<MlaSlice> slices;
  std::vector<float> q, expected;
  int64_t rows = 0;
  for (const Case& c : cases) {
    const MlaForm form = cheaper_form(kTiny, c.row_count, latents);
    slices.push_back({&c.cache, c.first_position, rows, c.row_count, form});
    rows += c.row_count;
    q.insert(q.end(), c.q.begin(), c.q.end());
    const std::vector<float> alone = c.run(workers, form);
    expected.insert(expected.end(), alone.begin(), alone.end());
  }
  EXPECT_EQ(slices[0].form, MlaForm::kExpanded);
  EXPECT_EQ(slices[1].form, MlaForm::kAbsorbed);
  std::vector<float> together(expected.size());
  mla_attention(workers, kTiny, cases[0].kv_b_proj.view, 1, slices, q.data(), together.data());
  EXPECT_TRUE(same_bits(together, expected));
}

TEST(MlaAttention, SlicesTogetherEqualEachAlone) {
  expect_slices_together_equal_each_alone(quant::DType::kF32, CacheType::kF32);
  expect_slices_together_equal_each_alone(quant::DType::kQ8_0, CacheType::kBf16);
}

TEST(MlaAttention, AChunkEqualsItsTokensOneByOneInTheSameForm) {
  testing::RandomValues random(5);
  Workers workers(select_kernels(), 2);
  Case c(kTiny, quant::DType::kF32, 50, 30, random);
  const std::vector<float> chunk = c.run(workers, MlaForm::kAbsorbed);
  for (int64_t t = 0; t < 30; ++t) {
    std::vector<float> out(8 * 32);
    const MlaSlice slice{&c.cache, 50 + t, 0, 1, MlaForm::kAbsorbed};
    mla_attention(workers, kTiny, c.kv_b_proj.view, 1, {&slice, 1}, c.q.data() + t * 8 * 48, out.data());
    ASSERT_TRUE(same_bits(out, {chunk.data() + t * 8 * 32, 8 * 32})) << t;
  }
}

TEST(MlaAttention, TheFormFollowsTheCostOfR1) {
  const MlaShape r1{.num_attention_heads = 128,
                    .qk_nope_head_dim = 128,
                    .qk_rope_head_dim = 64,
                    .v_head_dim = 128,
                    .kv_lora_rank = 512,
                    .softmax_scale = 1.0f};
  // 1088·n ≤ 320·n + 131072 up to n = 170.
  EXPECT_EQ(cheaper_form(r1, 1, CacheType::kF32), MlaForm::kAbsorbed);
  EXPECT_EQ(cheaper_form(r1, 170, CacheType::kF32), MlaForm::kAbsorbed);
  EXPECT_EQ(cheaper_form(r1, 171, CacheType::kF32), MlaForm::kExpanded);
  // 2176·n ≤ 320·n + 131072 up to n = 70.
  EXPECT_EQ(cheaper_form(r1, 70, CacheType::kBf16), MlaForm::kAbsorbed);
  EXPECT_EQ(cheaper_form(r1, 71, CacheType::kBf16), MlaForm::kExpanded);
}

}  // namespace
}  // namespace moraine::cpu
