#pragma once

#include <memory>
#include <span>

#include "runtime/backend.h"

namespace moraine::tools {

/// Sees the states from which a layer's experts could be guessed. All [rows, hidden] unless said otherwise.
class RoutingListener {
 public:
  virtual ~RoutingListener() = default;
  /// A MoE layer's router has spoken. `state`: the residual stream behind attention; `normed`: what the router saw.
  virtual void routed(int layer, std::span<const float> state, std::span<const float> normed,
                      std::span<const float> logits /* [rows, n_routed_experts] */) = 0;
  /// The layer is over. `with_shared`: `state` and the shared experts' output; `output`: routed experts, too.
  virtual void combined(int layer, std::span<const float> with_shared, std::span<const float> output) = 0;
};

/// The backend, with every MoE layer told to `listener`, which outlives the twin. Costs two readings of the residual
/// stream per layer: for evaluation and training.
std::shared_ptr<runtime::DenseBackend> probed(std::shared_ptr<runtime::DenseBackend> backend,
                                              RoutingListener& listener);

}  // namespace moraine::tools
