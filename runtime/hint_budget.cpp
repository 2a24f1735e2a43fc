#include "runtime/hint_budget.h"

#include <algorithm>

namespace moraine::runtime {
namespace {

constexpr double kNewShare = 0.1;    // of a decaying mean: about the last ten layers count
constexpr int kLeastCalls = 10;      // before a mean is believed
constexpr double kForgotten = 0.02;  // of the best speed's lead over a worse one

void mix(double& mean, double value) {
  mean = mean < 0.0 ? value : mean + kNewShare * (value - mean);
}

}  // namespace

int32_t HintBudget::next_count(int place, double now_s, const offload::StoreCounters& counters) {
  const offload::StoreCounters since = counters - before_;
  const double period_s = now_s - before_s_;
  const auto before_place = static_cast<size_t>(before_place_), index = static_cast<size_t>(place);
  before_ = counters;
  before_s_ = now_s;
  before_place_ = place;
  if (std::max(before_place, index) >= idle_s_.size()) idle_s_.resize(std::max(before_place, index) + 1, -1.0);
  if (calls_++ == 0) return usual_count_;  // there is no period yet
  const double busy_s = static_cast<double>(since.busy_us) / 1e6;
  const auto read_bytes = static_cast<double>(since.bytes_read);
  // A fraction of a record may have been read before this period: too little to tell a speed from.
  if (busy_s > 0.0 && read_bytes >= static_cast<double>(record_bytes_)) {
    const double speed = read_bytes / busy_s;
    bytes_per_s_ = speed > bytes_per_s_ ? speed : bytes_per_s_ + kForgotten * (speed - bytes_per_s_);
  }
  // What hints made the drive do would be idle time without them.
  const double demand_share = read_bytes > 0.0 ? 1.0 - static_cast<double>(since.bytes_prefetched) / read_bytes : 1.0;
  mix(idle_s_[before_place], std::max(0.0, period_s - busy_s * demand_share));
  const double idle_s = idle_s_[index];
  if (calls_ < kLeastCalls || idle_s < 0.0 || bytes_per_s_ < 0.0 || record_bytes_ == 0) return usual_count_;
  const double records = idle_s * bytes_per_s_ / static_cast<double>(record_bytes_);
  return static_cast<int32_t>(std::clamp(records + 0.5, 0.0, static_cast<double>(most_)));
}

void HintBudget::skip(double now_s, const offload::StoreCounters& counters) {
  before_ = counters;
  before_s_ = now_s;
}

}  // namespace moraine::runtime
