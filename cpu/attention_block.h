#pragma once

#include <memory>

#include "runtime/backend.h"
#include "runtime/model.h"

namespace moraine::cpu {

/// The attention of one architecture, between the norm before it and o_proj behind it: projections, rope, cache and the
/// attention itself. A step is begin_step(), attend() for every layer in order, commit().
class AttentionBlock {
 public:
  virtual ~AttentionBlock() = default;

  virtual std::unique_ptr<runtime::KvCache> make_cache() const = 0;
  /// Takes the pages for the batch's tokens. Throws quant::Error(kNotEnough) if the memory can't be had.
  virtual void begin_step(const runtime::StepBatch& batch) = 0;
  /// Appends the rows to their caches and attends. normed: [rows, hidden]. The result [rows, o_proj.cols] stays until
  /// the next call.
  virtual const float* attend(int layer, const runtime::LayerWeights& weights, const float* normed) = 0;
  /// Counts the batch's tokens in their caches.
  virtual void commit() = 0;
};

}  // namespace moraine::cpu
