#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "runtime/transformer.h"

namespace moraine::testing {

/// Everything that a run over `ids` computes.
struct ModelRun final : runtime::StepObserver {
  std::vector<float> logits;                               // [tokens, vocab]
  std::vector<std::vector<float>> hiddens;                 // [layer count][tokens, hidden]
  std::vector<std::vector<runtime::RoutedExpert>> routes;  // [layer][tokens, top_k]

  bool wants_hidden() const override { return true; }
  void hidden(int layer_count, std::span<const float> values) override {
    auto& all = hiddens[static_cast<size_t>(layer_count)];
    all.insert(all.end(), values.begin(), values.end());
  }
  void routed(int layer, std::span<const runtime::RoutedExpert> chosen) override {
    auto& all = routes[static_cast<size_t>(layer)];
    all.insert(all.end(), chosen.begin(), chosen.end());
  }
};

/// Takes `ids` through the model into an empty cache, `rows_per_step` at a time.
inline ModelRun run_ids(runtime::Transformer& transformer, runtime::KvCache& cache, std::span<const int32_t> ids,
                        int32_t rows_per_step) {
  const auto vocab = static_cast<size_t>(transformer.config().vocab_size);
  ModelRun run;
  run.hiddens.resize(static_cast<size_t>(transformer.config().num_hidden_layers) + 1);
  run.routes.resize(static_cast<size_t>(transformer.config().num_hidden_layers));
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(rows_per_step)) {
    const auto step_ids = ids.subspan(at, std::min(static_cast<size_t>(rows_per_step), ids.size() - at));
    const runtime::SequenceSlice slice{&cache, static_cast<int64_t>(at), 0, static_cast<int32_t>(step_ids.size())};
    std::vector<int32_t> rows(step_ids.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
    run.logits.resize((at + step_ids.size()) * vocab);
    transformer.step({step_ids, std::span(&slice, 1)}, rows, std::span(run.logits).subspan(at * vocab), {}, &run);
  }
  return run;
}

/// max |Δ| ÷ (range of the reference), and the same argmax in every row.
inline void expect_logits(std::span<const float> got, std::span<const float> expected, size_t vocab, double bound) {
  ASSERT_EQ(got.size(), expected.size());
  const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
  double worst = 0.0;
  for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(got[i]) - expected[i]));
  EXPECT_LE(worst / (*high - *low), bound);
  ::testing::Test::RecordProperty("worst_delta_of_range", fmt::format("{:.3e}", worst / (*high - *low)));
  for (size_t row = 0; row * vocab < got.size(); ++row) {
    const auto best = [&](std::span<const float> all) {
      const auto values = all.subspan(row * vocab, vocab);
      return std::max_element(values.begin(), values.end()) - values.begin();
    };
    EXPECT_EQ(best(got), best(expected)) << "row " << row;
  }
}

}  // namespace moraine::testing
