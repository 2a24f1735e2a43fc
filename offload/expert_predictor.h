#pragma once

#include <span>

#include "offload/expert_id.h"

namespace moraine::offload {

/// Port: guesses which experts a layer will want, before its router has spoken. What it says decides when bytes arrive,
/// never which experts run.
class ExpertPredictor {
 public:
  virtual ~ExpertPredictor() = default;
  /// Experts of `layer`, likeliest first, for ExpertStore::hint(); empty if nothing is known. Valid until the next
  /// call.
  virtual std::span<const ExpertId> likely(int layer) = 0;
};

}  // namespace moraine::offload
