#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/model_config.h"

namespace moraine::runtime {

/// One expert chosen for a token, with the weight its output gets.
struct RoutedExpert {
  int32_t expert = 0;
  float weight = 0.0f;
};

/// Top-k routing: with sigmoid affinities, a selection-only bias and groups ranked by their two best (`noaux_tc`;
/// DeepSeek-V3 report §2.1.2, shared/spec/deepseek-v3.md §3.3), or with softmax affinities, greedy or within the groups
/// of the best experts (DeepSeek-V2 report §2.2.2). Ties go to the lower index.
class Router {
 public:
  explicit Router(const ModelConfig& config);

  int32_t num_experts_per_tok() const { return num_experts_per_tok_; }

  /// The experts of one token in ascending order of expert id, routed_scaling_factor included in the weights.
  void route(std::span<const float> logits /* [n_routed_experts] */,
             std::span<const float> e_score_correction_bias /* [n_routed_experts], or empty */,
             std::span<RoutedExpert> chosen /* [num_experts_per_tok] */) const;

  /// The `count` likeliest experts by the same scores, likeliest first, groups respected: for prefetching.
  std::vector<int32_t> likeliest(std::span<const float> logits, std::span<const float> e_score_correction_bias,
                                 int32_t count) const;

 private:
  std::vector<float> affinities(std::span<const float> logits) const;  // [n_routed_experts]
  /// Expert ids by descending biased score within the groups kept.
  std::vector<int32_t> ranked(std::span<const float> scores, std::span<const float> bias, int32_t count) const;

  int32_t n_routed_experts_;
  int32_t num_experts_per_tok_;
  int32_t n_group_;
  int32_t topk_group_;
  ScoringFunc scoring_func_;
  TopkMethod topk_method_;
  bool norm_topk_prob_;
  float routed_scaling_factor_;
};

}  // namespace moraine::runtime
