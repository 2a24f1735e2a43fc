#pragma once

#include <functional>
#include <memory>

#include "runtime/backend.h"
#include "tools/layer_kind.h"

namespace moraine::tools {

/// Seconds since any fixed moment.
using SecondsClock = std::function<double()>;
SecondsClock steady_seconds();

/// Time spent inside the calls of both ports. With a backend that works in the background, that is the time to hand
/// work over, and the wait falls to the call that needs a result.
struct LayerTimes {
  PerKind<double> seconds;
  double total_s() const;
};

/// The backend, with the time of every call added to `times`: attention, dense FFN, shared experts and head to their
/// own kinds, begin_step() to embed, route() and predict_route() to route, combine() to shared. `times` outlives the
/// twin.
std::shared_ptr<runtime::DenseBackend> timed(std::shared_ptr<runtime::DenseBackend> backend, LayerTimes& times,
                                             SecondsClock clock = steady_seconds());
/// The same for the routed experts: all calls count as routed. Waiting for experts happens between them.
std::shared_ptr<runtime::ExpertBackend> timed(std::shared_ptr<runtime::ExpertBackend> backend, LayerTimes& times,
                                              SecondsClock clock = steady_seconds());

}  // namespace moraine::tools
