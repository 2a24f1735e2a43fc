#include "cpu/mla_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
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

  Case(const MlaShape& mla_shape, quant::DType type, int64_t first, int64_t rows, testing::RandomValues& random)
      : shape(mla_shape),
        kv_b_proj(testing::random_matrix(type, shape.num_attention_heads * shape.kv_head_rows(), shape.kv_lora_rank,
                                         random, 0.3)),
        cache(2, shape.kv_lora_rank + shape.qk_rope_head_dim),
        first_position(first),
        row_count(rows),
        q(testing::random_values(rows * shape.num_attention_heads * shape.qk_head_dim(), 1.0, random)) {
    cache.reserve(first + rows);
    for (int64_t s = 0; s < first + rows; ++s) {
      const std::vector<float> latent = testing::random_values(cache.width(), 1.0, random);
      std::copy(latent.begin(), latent.end(), cache.row(1, s));
    }
    cache.commit(first);
  }

  int64_t out_values() const { return row_count * shape.num_attention_heads * shape.v_head_dim; }

  std::vector<float> run(Workers& workers, MlaForm form) const {
    std::vector<float> out(static_cast<size_t>(out_values()));
    const MlaSlice slice{&cache, first_position, 0, row_count, form};
    mla_attention(workers, shape, kv_b_proj.view, 1, {&slice, 1}, q.data(), out.data());
    return out;
  }
};

/// Row t, head h of the uncompressed form (spec §3.1) in f64, with a first-order bound on what f32 may change.
void expect_near_exact(Case& c, const std::vector<float>& out, int64_t t, int64_t h) {
  const MlaShape& shape = c.shape;
  const std::vector<float> w = c.kv_b_proj.dequantized();
  const int64_t nope = shape.qk_nope_head_dim, v_dim = shape.v_head_dim, rank = shape.kv_lora_rank;
  const float* q = c.q.data() + (t * shape.num_attention_heads + h) * shape.qk_head_dim();
  const int64_t visible = c.first_position + t + 1;
  // Each f32 form rounds a term at most this often on its way into a score or into a value.
  const double rounding = testing::gamma(rank + shape.qk_head_dim() + shape.kv_head_rows() + 4, testing::kUnitF32);
  std::vector<double> scores, values(static_cast<size_t>(visible * v_dim)), value_abs(values.size());
  double score_error = 0.0;
  for (int64_t s = 0; s < visible; ++s) {
    const float* latent = c.cache.row(1, s);
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
    score_error = std::max(score_error, rounding * score_abs * double{shape.softmax_scale});
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
    const double relative =
        std::expm1(2.0 * score_error) + rounding + testing::gamma(2 * visible + 64, testing::kUnitF32);
    ASSERT_NEAR(out[static_cast<size_t>((t * shape.num_attention_heads + h) * v_dim + i)], exact, relative * magnitude)
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

TEST(MlaAttention, SlicesTogetherEqualEachAlone) {
  testing::RandomValues random(4);
  Workers workers(select_kernels(), 2);
  std::vector<Case> cases;
  cases.reserve(4);
  for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 70}, {5, 1}, {200, 1}, {63, 20}}) {
    cases.emplace_back(kTiny, quant::DType::kF32, first, rows, random);
    cases.back().kv_b_proj =
        testing::random_matrix(quant::DType::kF32, 8 * 64, 64, random = testing::RandomValues(9), 0.3);
    random = testing::RandomValues(static_cast<uint64_t>(10 + first));
  }
  std::vector<MlaSlice> slices;
  std::vector<float> q, expected;
  int64_t rows = 0;
  for (const Case& c : cases) {
    const MlaForm form = cheaper_form(kTiny, c.row_count);
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
  EXPECT_EQ(cheaper_form(r1, 1), MlaForm::kAbsorbed);
  EXPECT_EQ(cheaper_form(r1, 170), MlaForm::kAbsorbed);
  EXPECT_EQ(cheaper_form(r1, 171), MlaForm::kExpanded);
}

}  // namespace
}  // namespace moraine::cpu
