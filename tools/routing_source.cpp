#include "tools/routing_source.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quant/error.h"

namespace moraine::tools {
namespace {

size_t per_token(const RoutingShape& shape) {
  return static_cast<size_t>(shape.moe_layers) * static_cast<size_t>(shape.top_k);
}

/// The share of a token's experts that an independent token of the same frequencies shares with it, roughly.
double chance_overlap(const std::vector<double>& cumulative, int top_k) {
  double overlap = 0.0, before = 0.0;
  for (const double sum : cumulative) {
    const double share = (sum - before) / cumulative.back();
    const double chosen = std::min(1.0, static_cast<double>(top_k) * share);
    overlap += chosen * chosen;
    before = sum;
  }
  return overlap / static_cast<double>(top_k);
}

}  // namespace

SyntheticRouting::SyntheticRouting(const RoutingShape& shape, const RoutingStatistics& statistics, uint64_t seed)
    : shape_(shape), random_(seed) {
  MORAINE_CHECK(shape.top_k > 0 && shape.n_experts >= shape.top_k && shape.moe_layers > 0);
  double sum = 0.0;
  for (int rank = 1; rank <= shape.n_experts; ++rank) {
    cumulative_.push_back(sum += std::pow(static_cast<double>(rank), -statistics.skew));
  }
  for (int layer = 0; layer < shape.moe_layers; ++layer) {
    std::vector<int32_t> order(static_cast<size_t>(shape.n_experts));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    experts_.insert(experts_.end(), order.begin(), order.end());
  }
  const double chance = chance_overlap(cumulative_, shape.top_k);
  stay_ = std::clamp((statistics.overlap - chance) / (1.0 - chance), 0.0, 1.0);
  chosen_.resize(per_token(shape));
  for (int layer = 0; layer < shape.moe_layers; ++layer) next_layer(layer, 0.0);
}

int32_t SyntheticRouting::draw(int layer) {
  std::uniform_real_distribution<double> any(0.0, cumulative_.back());
  const auto rank = std::lower_bound(cumulative_.begin(), cumulative_.end(), any(random_)) - cumulative_.begin();
  const auto last = static_cast<ptrdiff_t>(shape_.n_experts) - 1;
  return experts_[static_cast<size_t>(layer) * static_cast<size_t>(shape_.n_experts) +
                  static_cast<size_t>(std::min(rank, last))];
}

void SyntheticRouting::next_layer(int layer, double stay) {
  const auto top_k = static_cast<size_t>(shape_.top_k);
  const auto chosen = std::span(chosen_).subspan(static_cast<size_t>(layer) * top_k, top_k);
  std::uniform_real_distribution<double> any(0.0, 1.0);
  std::vector<int32_t> next;
  for (const int32_t expert : chosen) {
    if (any(random_) < stay) next.push_back(expert);
  }
  while (next.size() < top_k) {
    const int32_t expert = draw(layer);
    if (std::find(next.begin(), next.end(), expert) == next.end()) next.push_back(expert);
  }
  std::sort(next.begin(), next.end());
  std::copy(next.begin(), next.end(), chosen.begin());
}

std::span<const int32_t> SyntheticRouting::next() {
  for (int layer = 0; layer < shape_.moe_layers; ++layer) next_layer(layer, stay_);
  return chosen_;
}

RecordedRouting::RecordedRouting(const RoutingShape& shape, std::vector<int32_t> choices)
    : shape_(shape), per_token_(per_token(shape)), choices_(std::move(choices)) {
  MORAINE_CHECK(per_token_ > 0 && !choices_.empty() && choices_.size() % per_token_ == 0);
}

std::span<const int32_t> RecordedRouting::next() {
  const auto token = std::span(choices_).subspan(at_, per_token_);
  at_ = (at_ + per_token_) % choices_.size();
  return token;
}

RoutingStatistics statistics_of(const RoutingShape& shape, std::span<const int32_t> choices) {
  const size_t width = per_token(shape), top_k = static_cast<size_t>(shape.top_k);
  MORAINE_CHECK(width > 0 && choices.size() >= width);
  double shared = 0.0, compared = 0.0, log_slope_sum = 0.0;
  for (size_t layer = 0; layer < static_cast<size_t>(shape.moe_layers); ++layer) {
    std::vector<double> counts(static_cast<size_t>(shape.n_experts), 0.0);
    for (size_t at = layer * top_k; at < choices.size(); at += width) {
      const auto now = choices.subspan(at, top_k);
      for (const int32_t expert : now) counts[static_cast<size_t>(expert)] += 1.0;
      if (at < width) continue;
      const auto before = choices.subspan(at - width, top_k);
      for (const int32_t expert : now) shared += std::count(before.begin(), before.end(), expert) > 0 ? 1.0 : 0.0;
      compared += static_cast<double>(top_k);
    }
    std::sort(counts.rbegin(), counts.rend());
    double x_sum = 0.0, y_sum = 0.0, xx = 0.0, xy = 0.0, n = 0.0;
    for (size_t rank = 0; rank < (counts.size() + 1) / 2 && counts[rank] > 0.0; ++rank) {
      const double x = std::log(static_cast<double>(rank + 1)), y = std::log(counts[rank]);
      x_sum += x, y_sum += y, xx += x * x, xy += x * y, n += 1.0;
    }
    const double spread = n * xx - x_sum * x_sum;
    if (spread > 0.0) log_slope_sum += (n * xy - x_sum * y_sum) / spread;
  }
  return {.skew = std::max(0.0, -log_slope_sum / static_cast<double>(shape.moe_layers)),
          .overlap = compared > 0.0 ? shared / compared : 0.0};
}

}  // namespace moraine::tools
