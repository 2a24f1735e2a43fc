#include "offload/lfru_policy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/error.h"

namespace moraine::offload {
namespace {

constexpr double kWorthless = -std::numeric_limits<double>::infinity();

}  // namespace

LfruPolicy::LfruPolicy(int slot_count, double half_life_wants_per_slot)
    : half_life_wants_(std::max(1.0, half_life_wants_per_slot * slot_count)), held_(static_cast<size_t>(slot_count)) {}

LfruPolicy::Held& LfruPolicy::held(int slot) {
  MORAINE_CHECK(slot >= 0 && static_cast<size_t>(slot) < held_.size());
  return held_[static_cast<size_t>(slot)];
}

double LfruPolicy::log_worth(ExpertId id) const {
  const auto found = log_worth_.find(id);
  return found == log_worth_.end() ? kWorthless : found->second;
}

double LfruPolicy::with_one_want_now(double log_worth) const {
  // log2(2^a + 2^b) without leaving the logarithm; `now` is the larger or nearly so.
  const double now = wants_ / half_life_wants_;
  const double larger = std::max(now, log_worth), smaller = std::min(now, log_worth);
  return larger + std::log2(1.0 + std::exp2(smaller - larger));
}

void LfruPolicy::place(int slot, double log_worth) {
  Held& record = held(slot);
  ranks_.erase(record.rank);
  record.rank = ranks_.insert({log_worth, record.newness, slot}).first;
}

void LfruPolicy::wanted(ExpertId id, bool in_scan) {
  if (!in_scan) {
    wants_ += 1.0;
    log_worth_[id] = with_one_want_now(log_worth(id));
  }
  // In a scan as well: what a hint had lent the record ends here.
  const auto found = slot_of_.find(id);
  if (found != slot_of_.end()) place(found->second, log_worth(id));
}

void LfruPolicy::hinted(int slot) {
  // As if it had been wanted now, but for as long as it is in RAM only.
  MORAINE_CHECK(held(slot).is_held);
  place(slot, with_one_want_now(log_worth(held(slot).id)));
}

void LfruPolicy::inserted(int slot, ExpertId id) {
  Held& record = held(slot);
  MORAINE_CHECK(!record.is_held);
  record = {.id = id, .newness = -(++arrivals_), .is_held = true};
  record.rank = ranks_.insert({log_worth(id), record.newness, slot}).first;
  slot_of_[id] = slot;
}

void LfruPolicy::removed(int slot) {
  Held& record = held(slot);
  MORAINE_CHECK(record.is_held);
  ranks_.erase(record.rank);
  slot_of_.erase(record.id);
  record = {};
}

int LfruPolicy::victim(const std::function<bool(int slot)>& may_evict) const {
  for (const Rank& least : ranks_) {
    if (may_evict(least.slot)) return least.slot;
  }
  return -1;
}

std::vector<ExpertId> LfruPolicy::hottest() const {
  std::vector<std::pair<double, ExpertId>> by_worth;
  for (const auto& [id, worth] : log_worth_) by_worth.emplace_back(-worth, id);
  std::sort(by_worth.begin(), by_worth.end());
  std::vector<ExpertId> ids;
  for (const auto& [negative_worth, id] : by_worth) ids.push_back(id);
  return ids;
}

}  // namespace moraine::offload
