#pragma once

#include <functional>
#include <memory>
#include <span>

#include "runtime/backend.h"
#include "tools/layer_kind.h"

namespace moraine::tools {

/// Seconds since any fixed moment.
using SecondsClock = std::function<double()>;
SecondsClock steady_seconds();

/// Hears of the calls of both ports. With a backend that works in the background, a call's time is that to hand work
/// over, and the wait falls to the call that needs a result. Nothing may throw: the calls are told of from destructors.
class CallSink {
 public:
  virtual ~CallSink() = default;
  /// A step of so many rows is about to begin.
  virtual void began_step(int32_t /*row_count*/) {}
  /// A call has ended, well or not. `layer`: −1 where the call does not say.
  virtual void called(LayerKind kind, int layer, double begin_s, double end_s) = 0;
  /// What compute_experts() was given, before called().
  virtual void computed(std::span<const offload::ExpertLease> /*leases*/,
                        std::span<const std::span<const runtime::ExpertUse>> /*uses*/) {}
};

/// Time spent inside the calls.
struct LayerTimes final : CallSink {
  PerKind<double> seconds;
  double total_s() const;
  void called(LayerKind kind, int layer, double begin_s, double end_s) override;
};

/// The backend, with every call told to `sink`: attention, dense FFN, shared experts and head as their own kinds,
/// begin_step() as embed, route() and predict_route() as route, combine() as shared. `sink` outlives the twin.
std::shared_ptr<runtime::DenseBackend> timed(std::shared_ptr<runtime::DenseBackend> backend, CallSink& sink,
                                             SecondsClock clock = steady_seconds());
/// The same for the routed experts: all calls count as routed. Waiting for experts happens between them.
std::shared_ptr<runtime::ExpertBackend> timed(std::shared_ptr<runtime::ExpertBackend> backend, CallSink& sink,
                                              SecondsClock clock = steady_seconds());

}  // namespace moraine::tools
