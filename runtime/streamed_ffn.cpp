#include "runtime/streamed_ffn.h"

#include <algorithm>
#include <utility>

#include "quant/error.h"

namespace moraine::runtime {

StreamedFfn::Request StreamedFfn::request(int layer) {
  const offload::ExpertId id{.layer = layer, .expert = 0};
  Request request{.layer = layer, .stream = store_.acquire({&id, 1})};
  request.was_missing = !request.stream.ready();
  return request;
}

StreamedFfn::Request StreamedFfn::take(int layer) {
  if (!ahead_.empty() && ahead_.front().layer == layer) {
    Request first = std::move(ahead_.front());
    ahead_.pop_front();
    return first;
  }
  ahead_.clear();  // the last walk was left early
  return request(layer);
}

void StreamedFfn::look_ahead(int layer) {
  if (!store_.wants_hints()) return;
  int last = ahead_.empty() ? layer : ahead_.back().layer;
  const auto misses_ahead = [&] {
    return std::count_if(ahead_.begin(), ahead_.end(), [](const Request& request) { return request.was_missing; });
  };
  // Every request may pin a record. With no more of them than slots, one that has none yet can still get one.
  const auto most = static_cast<size_t>(store_.slot_count() - 1);
  while (next(last) != layer && ahead_.size() < most && misses_ahead() < kMissesAhead) {
    last = next(last);
    ahead_.push_back(request(last));
  }
}

void StreamedFfn::run(int layer, int32_t row_count) {
  const auto rows = static_cast<size_t>(row_count);
  normed_.resize(rows * static_cast<size_t>(model_.config.hidden_size));
  output_.resize(normed_.size());
  uses_.clear();
  for (int32_t row = 0; row < row_count; ++row) uses_.push_back({.row = row, .slot = 0, .weight = 1.0f});

  Request now = take(layer);
  look_ahead(layer);
  // Slots that were given back under memory pressure may be those that this layer would get.
  if (!now.stream.ready() && std::ssize(ahead_) >= store_.slot_count()) ahead_.clear();
  dense_.route(layer, normed_, {});
  experts_.begin_experts(normed_, row_count, layouts_[static_cast<size_t>(layer)], /*slots_per_row=*/1);
  dense_.shared_expert(layer);
  const std::optional<offload::ExpertLease> lease = now.stream.next();
  MORAINE_CHECK(lease.has_value());
  experts_.compute_expert(lease->record(), uses_);
  experts_.finish_experts(output_);
  dense_.combine(layer, output_);
}

}  // namespace moraine::runtime
