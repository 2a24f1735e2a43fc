#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/model_config.h"

namespace moraine::runtime {

/// Rotary position embedding of the model's rope dims, with the frequencies that the config's scaling makes of them:
/// YaRN's blend (shared/spec/deepseek-v3.md §4; Peng et al., "YaRN", 2023) or Llama 3's (shared/spec/dense-distills.md
/// §3). Which components make a pair is ModelConfig::rope_pairs.
class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  /// cos and sin of every pair at `position`, times YaRN's cos/sin multiplier. Angles are computed in f64.
  void cos_sin(int64_t position, std::span<float> cos /* [rope_dim / 2] */,
               std::span<float> sin /* [rope_dim / 2] */) const;

  std::span<const double> frequencies() const { return frequencies_; }
  double multiplier() const { return multiplier_; }

 private:
  std::vector<double> frequencies_;  // [rope_dim / 2] radians per position
  double multiplier_ = 1.0;
};

}  // namespace moraine::runtime
