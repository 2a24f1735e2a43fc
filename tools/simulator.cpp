#include "tools/simulator.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "offload/lfru_policy.h"
#include "quant/error.h"

namespace moraine::tools {

double SimulationResult::hit_rate() const {
  const uint64_t wanted = hits + misses + late_prefetches;
  return wanted > 0 ? static_cast<double>(hits) / static_cast<double>(wanted) : 1.0;
}

Simulator::Simulator(const SimulatedMachine& machine, RoutingSource& routing)
    : machine_(machine),
      routing_(routing),
      cache_(machine.slot_count, std::make_unique<offload::LfruPolicy>(machine.slot_count)),
      budget_(static_cast<uint64_t>(machine.record_bytes), routing.shape().top_k, routing.shape().top_k),
      random_(machine.seed) {
  MORAINE_CHECK(machine.slot_count >= routing.shape().top_k && machine.record_bytes > 0.0);
  MORAINE_CHECK(machine.disk_bytes_per_s > 0.0);
}

SimulationResult Simulator::run(uint64_t warm_up, uint64_t tokens) {
  for (uint64_t i = 0; i < warm_up; ++i) decode_token();
  result_ = {};
  const double start_s = now_s_;
  for (uint64_t i = 0; i < tokens; ++i) decode_token();
  result_.tokens = tokens;
  result_.total_s = now_s_ - start_s;
  return result_;
}

void Simulator::decode_token() {
  const std::span<const int32_t> token = routing_.next();
  token_.assign(token.begin(), token.end());
  const auto top_k = static_cast<size_t>(routing_.shape().top_k);
  const int layers = routing_.shape().moe_layers;
  compute(machine_.other_s);
  for (int layer = 0; layer < layers; ++layer) {
    const size_t at = static_cast<size_t>(layer) * top_k;
    const bool last = layer + 1 == layers;
    const auto wanted = std::span<const int32_t>(token_).subspan(at, top_k);
    run_layer(layer, wanted,
              last ? std::span<const int32_t>() : std::span<const int32_t>(token_).subspan(at + top_k, top_k));
  }
}

void Simulator::compute(double seconds) {
  now_s_ += seconds;
  run_disk(now_s_);
}

void Simulator::run_layer(int layer, std::span<const int32_t> wanted, std::span<const int32_t> next_wanted) {
  compute(machine_.layer_dense_s);
  const int hits = acquire(layer, wanted);
  hint(layer + 1, next_wanted);
  compute(machine_.layer_shared_s + static_cast<double>(hits) * machine_.expert_s);
  // Records that came meanwhile, then the others as they arrive.
  for (auto left = static_cast<int>(wanted.size()) - hits; left > 0; --left) {
    const double arrival_s = finish_demand();
    if (arrival_s > now_s_) result_.stall_s += arrival_s - now_s_;
    now_s_ = std::max(now_s_, arrival_s);
    compute(machine_.expert_s);
  }
  for (const int slot : std::exchange(pinned_, {})) cache_.unpin(slot);
}

int Simulator::acquire(int layer, std::span<const int32_t> wanted) {
  int hits = 0;
  std::vector<offload::ExpertId> missing;
  for (const int32_t expert : wanted) {
    const offload::ExpertId id{layer, expert};
    cache_.wanted(id, /*in_scan=*/false);
    const int slot = cache_.find(id);
    if (slot < 0 || cache_.state(slot) != offload::ExpertCache::State::kReady) {
      missing.push_back(id);
      continue;
    }
    ++hits;
    if (cache_.use(slot)) ++result_.useful_prefetches;
    cache_.pin(slot);
    pinned_.push_back(slot);
  }
  result_.hits += static_cast<uint64_t>(hits);
  const bool drive_sleeps = demand_.empty() && hinted_.empty();
  if (drive_sleeps && !missing.empty()) disk_s_ = std::max(disk_s_, now_s_ + machine_.read_latency_s);
  for (const offload::ExpertId id : missing) {
    const auto under_way =
        std::find_if(hinted_.begin(), hinted_.end(), [&](const Transfer& transfer) { return transfer.id == id; });
    if (under_way != hinted_.end()) {
      ++result_.late_prefetches;
      if (cache_.use(under_way->slot)) ++result_.useful_prefetches;
      demand_.push_back(*under_way);
      hinted_.erase(under_way);
      continue;
    }
    ++result_.misses;
    int slot = cache_.take(id);
    // With hardly more slots than one layer needs, hinted records under way may hold the last ones.
    while (slot < 0 && !hinted_.empty()) {
      serve(hinted_, std::numeric_limits<double>::infinity());
      slot = cache_.take(id);
    }
    MORAINE_CHECK(slot >= 0);
    demand_.push_back({.id = id, .slot = slot, .left_bytes = machine_.record_bytes});
  }
  return hits;
}

void Simulator::hint(int layer, std::span<const int32_t> truth) {
  if (machine_.recall <= 0.0) return;
  std::uniform_real_distribution<double> any(0.0, 1.0);
  std::uniform_int_distribution<int32_t> any_expert(0, routing_.shape().n_experts - 1);
  std::vector<offload::ExpertId> likely;  // right ones first: those are the likelier ones, too
  for (const int32_t expert : truth) {
    if (any(random_) < machine_.recall) likely.push_back({layer, expert});
  }
  while (likely.size() < truth.size()) {
    const int32_t wrong = any_expert(random_);
    const bool is_true = std::find(truth.begin(), truth.end(), wrong) != truth.end();
    const offload::ExpertId id{layer, wrong};
    if (!is_true && std::find(likely.begin(), likely.end(), id) == likely.end()) likely.push_back(id);
  }
  const auto count = static_cast<size_t>(budget_.next_count(layer, now_s_, counters_));
  prefetcher_.replace(std::span<const offload::ExpertId>(likely).first(std::min(count, likely.size())), cache_);
}

void Simulator::serve(std::deque<Transfer>& queue, double until_s) {
  Transfer& transfer = queue.front();
  const double needed_s = transfer.left_bytes / machine_.disk_bytes_per_s;
  const double given_s = std::min(needed_s, std::max(0.0, until_s - disk_s_));
  disk_s_ += given_s;
  result_.disk_busy_s += given_s;
  const double given_bytes = given_s * machine_.disk_bytes_per_s;
  counters_.busy_us += static_cast<uint64_t>(given_s * 1e6 + 0.5);
  counters_.bytes_read += static_cast<uint64_t>(given_bytes);
  if (transfer.is_prefetch) counters_.bytes_prefetched += static_cast<uint64_t>(given_bytes);
  transfer.left_bytes -= given_s * machine_.disk_bytes_per_s;
  if (given_s < needed_s) return;
  cache_.loaded(transfer.slot);
  if (transfer.is_prefetch) prefetcher_.ended();
  if (&queue == &demand_) {
    cache_.pin(transfer.slot);
    pinned_.push_back(transfer.slot);
  }
  queue.pop_front();
}

void Simulator::run_disk(double until_s) {
  while (disk_s_ < until_s) {
    if (!demand_.empty()) return;  // finish_demand() tells when each arrives
    while (const auto begun = prefetcher_.next(cache_)) {
      if (hinted_.empty() && disk_s_ < until_s) disk_s_ += machine_.read_latency_s;
      ++result_.prefetches;
      hinted_.push_back(
          {.id = begun->id, .slot = begun->slot, .left_bytes = machine_.record_bytes, .is_prefetch = true});
    }
    if (hinted_.empty()) {
      disk_s_ = until_s;
      return;
    }
    serve(hinted_, until_s);
  }
}

double Simulator::finish_demand() {
  MORAINE_CHECK(!demand_.empty());
  const size_t before = demand_.size();
  while (demand_.size() == before) serve(demand_, std::numeric_limits<double>::infinity());
  return disk_s_;
}

}  // namespace moraine::tools
