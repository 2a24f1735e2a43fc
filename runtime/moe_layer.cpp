#include "runtime/moe_layer.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace moraine::runtime {
namespace {

/// Where in a step a guess is made, for what is learnt of it.
int place_of(int layer, bool is_whole) {
  return 2 * (layer + 1) + (is_whole ? 1 : 0);
}

}  // namespace

MoeLayer::MoeLayer(const Model& model, DenseBackend& dense, ExpertBackend& experts, offload::ExpertStore& store,
                   std::vector<quant::ExpertLayout> layouts, std::shared_ptr<const LinearPredictor> trained)
    : model_(model),
      dense_(dense),
      experts_(experts),
      store_(store),
      layouts_(std::move(layouts)),
      router_(model.config),
      predictor_(model, dense, router_, std::move(trained)),
      budget_(store.source().max_record_bytes(), router_.num_experts_per_tok(), 2 * router_.num_experts_per_tok()),
      precision_(router_.num_experts_per_tok()) {}

std::span<const RoutedExpert> MoeLayer::run(int layer, int32_t row_count) {
  route(layer, row_count);
  group_by_expert(layer, row_count);
  precision_.wanted(wanted_);
  compute(layer, row_count);
  return chosen_;
}

int MoeLayer::next_moe(int layer) const {
  int next = layer + 1;
  while (next < model_.config.num_hidden_layers && !model_.config.is_moe_layer(next)) ++next;
  return next;
}

void MoeLayer::hint_next(int layer, bool is_whole, int32_t row_count) {
  budgeted_ = 0;
  if (!model_.config.has_experts() || !store_.wants_hints()) return;
  const int next = next_moe(layer);
  const int place = place_of(layer, is_whole);
  const double now_s = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  predictor_.set_row_count(row_count);
  predictor_.set_routed({});
  if (predictor_.wants_all(row_count)) {
    budget_.skip(now_s, store_.counters());
    store_.hint(predictor_.likely(next));
    return;
  }
  budgeted_ = budget_.next_count(place, now_s, store_.counters());
  hint_likely(next, place, budgeted_);
}

void MoeLayer::hint_likely(int layer, int place, int32_t most_reads) {
  if (most_reads == 0 || !precision_.wants_guess(place)) {
    store_.hint({});
    return;
  }
  // All of a token's experts are named, so that none of them is given up; what is not worth a read is not read.
  predictor_.set_count(std::max(most_reads, router_.num_experts_per_tok()));
  const std::span<const offload::ExpertId> likely = predictor_.likely(layer);
  precision_.guessed(place, likely);
  const int32_t worth = precision_.worth_reading(place);
  const size_t named = worth < router_.num_experts_per_tok() ? static_cast<size_t>(worth) : likely.size();
  store_.hint(likely.first(std::min(named, likely.size())), static_cast<size_t>(most_reads));
}

void MoeLayer::refine_hint(int layer) {
  routed_so_far_.resize(static_cast<size_t>(model_.config.hidden_size));
  experts_.sum_so_far(routed_so_far_);
  predictor_.set_routed(routed_so_far_);
  hint_likely(next_moe(layer), place_of(layer, true), budgeted_);
}

void MoeLayer::route(int layer, int32_t row_count) {
  const auto rows = static_cast<size_t>(row_count);
  const auto n_experts = static_cast<size_t>(model_.config.n_routed_experts);
  const auto top_k = static_cast<size_t>(router_.num_experts_per_tok());
  normed_.resize(rows * static_cast<size_t>(model_.config.hidden_size));
  logits_.resize(rows * n_experts);
  chosen_.resize(rows * top_k);
  dense_.route(layer, normed_, logits_);
  const std::span<const float> bias = model_.layers[static_cast<size_t>(layer)].e_score_correction_bias;
  for (size_t row = 0; row < rows; ++row) {
    router_.route(std::span(logits_).subspan(row * n_experts, n_experts), bias,
                  std::span(chosen_).subspan(row * top_k, top_k));
  }
}

void MoeLayer::group_by_expert(int layer, int32_t row_count) {
  const auto n_experts = static_cast<size_t>(model_.config.n_routed_experts);
  const int32_t top_k = router_.num_experts_per_tok();
  std::vector<size_t> end(n_experts + 1, 0);  // counting sort: end[e + 1] first counts e, then is where its uses end
  for (const RoutedExpert& chosen : chosen_) ++end[static_cast<size_t>(chosen.expert) + 1];
  for (size_t e = 0; e < n_experts; ++e) end[e + 1] += end[e];
  const std::vector<size_t> begin(end.begin(), end.end() - 1);
  std::vector<size_t> next = begin;
  uses_.resize(chosen_.size());
  for (int32_t row = 0; row < row_count; ++row) {
    for (int32_t slot = 0; slot < top_k; ++slot) {
      const RoutedExpert& chosen = chosen_[static_cast<size_t>(row * top_k + slot)];
      uses_[next[static_cast<size_t>(chosen.expert)]++] = {row, slot, chosen.weight};
    }
  }
  wanted_.clear();
  uses_of_expert_.assign(n_experts, {});
  for (size_t e = 0; e < n_experts; ++e) {
    if (begin[e] == end[e + 1]) continue;
    wanted_.push_back({layer, static_cast<int32_t>(e)});
    uses_of_expert_[e] = std::span(uses_).subspan(begin[e], end[e + 1] - begin[e]);
  }
}

void MoeLayer::compute(int layer, int32_t row_count) {
  routed_.resize(normed_.size());
  offload::LeaseStream stream = store_.acquire(wanted_);
  const auto hidden = static_cast<size_t>(model_.config.hidden_size);
  predictor_.set_router_input(layer, std::span<const float>(normed_).last(hidden));
  hint_next(layer, false, row_count);
  experts_.begin_experts(normed_, row_count, layouts_[static_cast<size_t>(layer)], router_.num_experts_per_tok());
  dense_.shared_expert(layer);
  std::vector<offload::ExpertLease> leases;
  std::vector<std::span<const ExpertUse>> uses;
  const bool has_next = next_moe(layer) < model_.config.num_hidden_layers;
  size_t left = wanted_.size();
  // What is there is computed together; then the wait for what is still on its way, holding nothing.
  while (auto first = stream.next()) {
    leases.clear();
    uses.clear();
    leases.push_back(std::move(*first));
    while (stream.ready()) {
      auto more = stream.next();
      if (!more) break;
      leases.push_back(std::move(*more));
    }
    for (const offload::ExpertLease& lease : leases) {
      uses.push_back(uses_of_expert_[static_cast<size_t>(lease.id().expert)]);
    }
    experts_.compute_experts(leases, uses);
    left -= leases.size();
    leases.clear();
    constexpr size_t kLast = 2;  // the drive has its hands full with these for now
    if (budgeted_ > 0 && has_next && left > 0 && left <= kLast && !stream.ready()) refine_hint(layer);
  }
  experts_.finish_experts(routed_);
  dense_.combine(layer, routed_);
}

}  // namespace moraine::runtime
