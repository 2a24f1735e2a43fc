#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend.h"
#include "runtime/rope.h"

namespace moraine::cpu {

/// cos and sin of rope's angles for every row of a step.
class RowAngles {
 public:
  explicit RowAngles(const runtime::ModelConfig& config) : rope_(config) {}

  void place(const runtime::StepBatch& batch) {
    cos_.resize(batch.token_ids.size() * static_cast<size_t>(pairs()));
    sin_.resize(cos_.size());
    for (const runtime::SequenceSlice& slice : batch.slices) {
      for (int64_t i = 0; i < slice.row_count; ++i) {
        const auto first = static_cast<size_t>((slice.first_row + i) * pairs());
        rope_.cos_sin(slice.first_position + i, std::span(cos_).subspan(first, static_cast<size_t>(pairs())),
                      std::span(sin_).subspan(first, static_cast<size_t>(pairs())));
      }
    }
  }

  int64_t pairs() const { return std::ssize(rope_.frequencies()); }
  const float* cos(int64_t row) const { return cos_.data() + row * pairs(); }  // [pairs]
  const float* sin(int64_t row) const { return sin_.data() + row * pairs(); }  // [pairs]

 private:
  runtime::RopeTable rope_;
  std::vector<float> cos_, sin_;  // [rows, pairs]
};

}  // namespace moraine::cpu
