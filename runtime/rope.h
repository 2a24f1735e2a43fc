#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/model_config.h"

namespace moraine::runtime {

/// Rotary position embedding of the model's rope dims, with YaRN's blended frequencies where the config asks for them
/// (shared/spec/deepseek-v3.md §4; Peng et al., "YaRN", 2023). Pairs are interleaved: (x0,x1), (x2,x3), …
class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  /// cos and sin of every pair at `position`, times YaRN's cos/sin multiplier. Angles are computed in f64.
  void cos_sin(int64_t position, std::span<float> cos /* [qk_rope_head_dim / 2] */,
               std::span<float> sin /* [qk_rope_head_dim / 2] */) const;

  std::span<const double> frequencies() const { return frequencies_; }
  double multiplier() const { return multiplier_; }

 private:
  std::vector<double> frequencies_;  // [qk_rope_head_dim / 2] radians per position
  double multiplier_ = 1.0;
};

}  // namespace moraine::runtime
