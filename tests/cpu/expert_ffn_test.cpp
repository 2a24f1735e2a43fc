#include "cpu/expert_ffn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cpu/isa.h"
#include "support/random_matrix.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace moraine::cpu {
namespace {

using quant::DType;
using testing::same_bits;

/// An expert's three matrices.
struct Expert {
  testing::RandomMatrix gate, up, down;
};

Expert random_expert(DType type, int64_t hidden, int64_t intermediate, testing::RandomValues& random) {
  return {testing::random_matrix(type, intermediate, hidden, random, 0.1),
          testing::random_matrix(type, intermediate, hidden, random, 0.1),
          testing::random_matrix(quant::packable_type(type, intermediate), hidden, intermediate, random, 0.1)};
}

/// One expert on rows of x picked by `index`, results at `out_row` with `weight`.
struct Call {
  std::vector<int32_t> index;
  std::vector<int64_t> out_row;
  std::vector<float> weight;
  std::vector<float> inner;
};

FfnJob job(const Expert& expert, const std::vector<float>& x, Call& call, std::vector<float>& out) {
  const int64_t hidden = expert.gate.view.cols;
  call.inner.resize(call.index.size() * static_cast<size_t>(expert.gate.view.rows));
  return {.gate = expert.gate.view,
          .up = expert.up.view,
          .down = expert.down.view,
          .x = {.data = x.data(), .stride = hidden, .index = call.index.data()},
          .token_count = std::ssize(call.index),
          .inner = call.inner.data(),
          .out = out.data(),
          .out_stride = hidden,
          .out_row = call.out_row.data(),
          .weight = call.weight.data()};
}

TEST(ExpertFfn, IsNearTheExactResult) {
  testing::RandomValues random(1);
  const int64_t hidden = 24, intermediate = 21;
  const Expert expert = random_expert(DType::kF32, hidden, intermediate, random);
  const std::vector<float> x = testing::random_values(4 * hidden, 1.0, random);
  Call call{.index = {2, 0, 3}, .out_row = {1, 2, 0}, .weight = {0.5f, 1.25f, 0.75f}, .inner = {}};
  std::vector<float> out(static_cast<size_t>(3 * hidden));
  Workers workers(select_kernels(), 2);
  const FfnJob one = job(expert, x, call, out);
  run_ffn(workers, {&one, 1});

  const std::vector<float> gate = expert.gate.dequantized(), up = expert.up.dequantized(),
                           down = expert.down.dequantized();
  for (size_t t = 0; t < 3; ++t) {
    std::vector<double> inner(static_cast<size_t>(intermediate)), inner_error(inner.size());
    for (size_t r = 0; r < inner.size(); ++r) {
      double g = 0.0, u = 0.0, g_abs = 0.0, u_abs = 0.0;
      for (size_t k = 0; k < static_cast<size_t>(hidden); ++k) {
        const double value = double{x[static_cast<size_t>(call.index[t]) * static_cast<size_t>(hidden) + k]};
        g += gate[r * static_cast<size_t>(hidden) + k] * value;
        u += up[r * static_cast<size_t>(hidden) + k] * value;
        g_abs += std::abs(gate[r * static_cast<size_t>(hidden) + k] * value);
        u_abs += std::abs(up[r * static_cast<size_t>(hidden) + k] * value);
      }
      const double silu = g / (1.0 + std::exp(-g));
      inner[r] = silu * u;
      // |silu'| ≤ 1.1; silu and the product round 8 times.
      inner_error[r] = 1.1 * testing::dot_tolerance(hidden, g_abs) * std::abs(u) +
                       testing::dot_tolerance(hidden, u_abs) * std::abs(silu) +
                       testing::gamma(8, testing::kUnitF32) * std::abs(inner[r]);
    }
    for (size_t i = 0; i < static_cast<size_t>(hidden); ++i) {
      double sum = 0.0, sum_abs = 0.0, error = 0.0;
      for (size_t r = 0; r < inner.size(); ++r) {
        const double w = double{down[i * inner.size() + r]};
        sum += w * inner[r];
        sum_abs += std::abs(w * inner[r]);
        error += std::abs(w) * inner_error[r];
      }
      const double weight = double{call.weight[t]};
      const double bound = weight * (1.01 * error + testing::dot_tolerance(intermediate + 1, sum_abs));
      EXPECT_NEAR(out[static_cast<size_t>(call.out_row[t] * hidden) + i], weight * sum, bound);
    }
  }
}

TEST(ExpertFfn, SeveralExpertsTogetherEqualEachAloneForAnyThreadsAndIsa) {
  testing::RandomValues random(2);
  // 128 makes down a Q4_0 where Q4_K is asked for; 168 makes it BF16, fed by int8 gate and up.
  for (const auto& [type, intermediate] : {std::pair<DType, int64_t>{DType::kBF16, 128},
                                           {DType::kF8E4M3, 128},
                                           {DType::kQ8_0, 96},
                                           {DType::kQ8_0, 168},
                                           {DType::kQ4_0, 160},
                                           {DType::kQ4_K, 128},
                                           {DType::kQ4_K, 512}}) {
    const int64_t hidden = 256;
    std::vector<Expert> experts;
    for (int e = 0; e < 3; ++e) experts.push_back(random_expert(type, hidden, intermediate, random));
    const std::vector<float> x = testing::random_values(20 * hidden, 1.0, random);
    std::vector<Call> calls(3);
    int64_t next = 0;
    for (size_t e = 0; e < 3; ++e) {
      for (int32_t row = 0; row < 20; row += static_cast<int32_t>(e * 6 + 1)) {
        calls[e].index.push_back(row);
        calls[e].out_row.push_back(next++);
        calls[e].weight.push_back(static_cast<float>(random.uniform()));
      }
    }
    std::vector<float> alone(static_cast<size_t>(next * hidden));
    Workers reference(select_kernels(Isa::kScalar), 1);
    for (size_t e = 0; e < 3; ++e) {
      for (size_t use = 0; use < calls[e].index.size(); ++use) {
        Call single{{calls[e].index[use]}, {calls[e].out_row[use]}, {calls[e].weight[use]}, {}};
        const FfnJob one = job(experts[e], x, single, alone);
        run_ffn(reference, {&one, 1});
      }
    }
    for (const int threads : {1, 2}) {
      Workers workers(select_kernels(), threads);
      std::vector<float> together(alone.size());
      std::vector<FfnJob> jobs;
      for (size_t e = 0; e < 3; ++e) jobs.push_back(job(experts[e], x, calls[e], together));
      run_ffn(workers, jobs);
      EXPECT_TRUE(same_bits(together, alone)) << quant::dtype_name(type) << ", " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace moraine::cpu
