#include "runtime/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/error.h"

namespace moraine::runtime {
namespace {

/// Indices 0 … values.size()−1 by descending value, lower index first on ties, cut to `count`.
std::vector<int32_t> top_indices(std::span<const float> values, int32_t count) {
  std::vector<int32_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto cut = std::min<ptrdiff_t>(count, static_cast<ptrdiff_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + cut, order.end(), [&](int32_t a, int32_t b) {
    const float value_a = values[static_cast<size_t>(a)];
    const float value_b = values[static_cast<size_t>(b)];
    return value_a != value_b ? value_a > value_b : a < b;
  });
  order.resize(static_cast<size_t>(cut));
  return order;
}

/// A group's rank with noaux_tc: the sum of its two largest biased scores.
float top_two_sum(std::span<const float> group) {
  float first = -std::numeric_limits<float>::infinity();
  float second = first;
  for (const float value : group) {
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  return group.size() > 1 ? first + second : first;
}

std::vector<float> sigmoid_scores(std::span<const float> logits) {
  std::vector<float> scores(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) scores[i] = 1.0f / (1.0f + std::exp(-logits[i]));
  return scores;
}

std::vector<float> softmax_scores(std::span<const float> logits) {
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<float> scores(logits.size());
  float sum = 0.0f;
  for (size_t i = 0; i < logits.size(); ++i) sum += scores[i] = std::exp(logits[i] - max);
  for (float& score : scores) score /= sum;
  return scores;
}

}  // namespace

Router::Router(const ModelConfig& config)
    : n_routed_experts_(static_cast<int32_t>(config.n_routed_experts)),
      num_experts_per_tok_(static_cast<int32_t>(config.num_experts_per_tok)),
      n_group_(static_cast<int32_t>(config.n_group)),
      topk_group_(static_cast<int32_t>(config.topk_group)),
      scoring_func_(config.scoring_func),
      topk_method_(config.topk_method),
      norm_topk_prob_(config.norm_topk_prob),
      routed_scaling_factor_(static_cast<float>(config.routed_scaling_factor)) {}

std::vector<float> Router::affinities(std::span<const float> logits) const {
  return scoring_func_ == ScoringFunc::kSigmoid ? sigmoid_scores(logits) : softmax_scores(logits);
}

std::vector<int32_t> Router::ranked(std::span<const float> scores, std::span<const float> bias, int32_t count) const {
  const auto group_size = static_cast<size_t>(n_routed_experts_ / n_group_);
  MORAINE_CHECK(bias.empty() || bias.size() == scores.size());
  std::vector<float> biased(scores.begin(), scores.end());  // [n_routed_experts]
  for (size_t i = 0; i < bias.size(); ++i) biased[i] += bias[i];

  std::vector<float> group_score(static_cast<size_t>(n_group_));
  for (size_t g = 0; g < group_score.size(); ++g) {
    const std::span<const float> group = std::span(biased).subspan(g * group_size, group_size);
    group_score[g] =
        topk_method_ == TopkMethod::kNoauxTc ? top_two_sum(group) : *std::max_element(group.begin(), group.end());
  }
  std::vector<bool> kept(group_score.size(), false);
  for (const int32_t g : top_indices(group_score, topk_group_)) kept[static_cast<size_t>(g)] = true;
  for (size_t i = 0; i < biased.size(); ++i) {
    if (!kept[i / group_size]) biased[i] = -std::numeric_limits<float>::infinity();
  }
  return top_indices(biased, count);
}

void Router::route(std::span<const float> logits, std::span<const float> e_score_correction_bias,
                   std::span<RoutedExpert> chosen) const {
  MORAINE_CHECK(logits.size() == static_cast<size_t>(n_routed_experts_) &&
                chosen.size() == static_cast<size_t>(num_experts_per_tok_));
  const std::vector<float> scores = affinities(logits);
  std::vector<int32_t> experts = ranked(scores, e_score_correction_bias, num_experts_per_tok_);
  // Ascending ids fix the order in which weights and outputs are summed.
  std::sort(experts.begin(), experts.end());
  float sum = 0.0f;
  for (size_t k = 0; k < chosen.size(); ++k) {
    chosen[k] = {experts[k], scores[static_cast<size_t>(experts[k])]};
    sum += chosen[k].weight;
  }
  for (RoutedExpert& expert : chosen) {
    if (norm_topk_prob_) expert.weight /= sum + 1e-20f;
    expert.weight *= routed_scaling_factor_;
  }
}

std::vector<int32_t> Router::likeliest(std::span<const float> logits, std::span<const float> e_score_correction_bias,
                                       int32_t count) const {
  return ranked(affinities(logits), e_score_correction_bias, count);
}

}  // namespace moraine::runtime
