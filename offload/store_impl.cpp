#include "offload/store_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <system_error>
#include <utility>

#include "offload/lfru_policy.h"

namespace moraine::offload {
namespace {

int slot_count_for(const ExpertRecordSource& source, uint64_t budget_bytes, int min_slots) {
  const uint64_t expert_count = source.experts().size();
  if (expert_count == 0) return 0;
  const uint64_t slot_bytes = HostArena::slot_bytes_for(source.max_record_bytes());
  MORAINE_CHECK(slot_bytes > 0);
  const uint64_t needed = std::min<uint64_t>(static_cast<uint64_t>(std::max(min_slots, 1)), expert_count);
  const uint64_t held = std::min(budget_bytes / slot_bytes, expert_count);
  if (held < needed) {
    throw quant::Error(
        quant::ErrorKind::kNotEnough,
        {.what = fmt::format("the memory for experts holds {} of the {} that one layer needs at once", held, needed),
         .expected = fmt::format("at least {} bytes ({} each)", needed * slot_bytes, slot_bytes),
         .got = fmt::format("{}", budget_bytes),
         .action = "choose a larger --ram-budget"});
  }
  return static_cast<int>(std::min<uint64_t>(held, std::numeric_limits<int>::max()));
}

int finish_thread_count(const StoreOptions& options, bool reads_in_place) {
  if (options.finish_threads > 0) return options.finish_threads;
  const int machine = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  // Two verify faster than any drive reads; quantizing takes all there are.
  return reads_in_place ? std::min(machine, 2) : machine;
}

std::unordered_map<int32_t, size_t> layer_sizes(const ExpertRecordSource& source) {
  std::unordered_map<int32_t, size_t> sizes;
  for (const ExpertId id : source.experts()) ++sizes[id.layer];
  return sizes;
}

}  // namespace

StoreImpl::StoreImpl(std::shared_ptr<const ExpertRecordSource> source, const StoreOptions& options, int min_slots,
                     std::unique_ptr<BlockReader> reader)
    : source_(std::move(source)),
      options_(options),
      layer_sizes_(layer_sizes(*source_)),
      arena_(source_->max_record_bytes(), slot_count_for(*source_, options.budget_bytes, min_slots), options.memory),
      reader_(std::move(reader)),
      min_slots_(std::max(1, min_slots)),
      cache_(arena_.slot_count(), std::make_unique<LfruPolicy>(arena_.slot_count())) {
  warm_start();
  try {
    for (int i = finish_thread_count(options_, source_->reads_in_place()); i > 0; --i) {
      finish_threads_.emplace_back([this] { run_finish(); });
    }
    io_thread_ = std::jthread([this] { run_io(); });
    if (options_.pressure != nullptr && options_.memory == nullptr && arena_.slot_count() > 0) {
      pressure_thread_ = std::jthread([this] { watch_pressure(); });
    }
    if (options_.memory == nullptr && source_->reads_in_place()) {
      touch_thread_ = std::jthread([this] { touch_slots(); });
    }
  } catch (const std::system_error& error) {
    stop_threads();
    throw quant::system_error(error.code().value(), "could not start a thread", {}, "raise the limit: ulimit -u");
  }
}

StoreImpl::~StoreImpl() {
  {
    const std::lock_guard lock(mutex_);
    MORAINE_CHECK(open_streams_ == 0 && open_leases_ == 0);
  }
  stop_threads();
  note_hot_set();
}

void StoreImpl::stop_threads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  reader_->wake();
  stopped_.notify_all();
  took_slot_.notify_all();
  if (pressure_thread_.joinable()) pressure_thread_.join();
  if (touch_thread_.joinable()) touch_thread_.join();
  if (io_thread_.joinable()) io_thread_.join();
  has_finish_work_.notify_all();
  finish_threads_.clear();  // joins
}

bool StoreImpl::is_known(ExpertId id) const {
  const std::span<const ExpertId> experts = source_->experts();
  return std::binary_search(experts.begin(), experts.end(), id);
}

bool StoreImpl::is_scan(std::span<const ExpertId> wanted) const {
  return !wanted.empty() && wanted.size() * 2 > layer_sizes_.at(wanted[0].layer);
}

void StoreImpl::wake_if_useful() {
  if (!demand_.empty() || !requests_.empty() || prefetcher_.has_hints() || !warm_.empty()) reader_->wake();
}

bool StoreImpl::wants_hints() const {
  const std::lock_guard lock(mutex_);
  if (!options_.prefetch || cache_.record_count() >= source_->experts().size()) return false;
  constexpr int kAskAgainAfter = 16;
  return !prefetcher_.is_saturated() || ++asked_while_saturated_ % kAskAgainAfter == 0;
}

int StoreImpl::slot_count() const {
  const std::lock_guard lock(mutex_);
  return cache_.slot_count();
}

void StoreImpl::hint(std::span<const ExpertId> likely, size_t most_reads) {
  const std::lock_guard lock(mutex_);
  std::vector<ExpertId> hints;  // distinct, known
  for (const ExpertId id : likely) {
    if (is_known(id) && std::find(hints.begin(), hints.end(), id) == hints.end()) hints.push_back(id);
  }
  if (!options_.prefetch) {
    counters_.dropped_hints += static_cast<uint64_t>(
        std::count_if(hints.begin(), hints.end(), [this](ExpertId id) { return cache_.find(id) < 0; }));
    return;
  }
  prefetcher_.replace(hints, cache_, most_reads);
  if (!hints.empty()) cancel_guesses(hints[0].layer, true);
  wake_if_useful();
}

void StoreImpl::count_prediction(std::span<const ExpertId> wanted) {
  const size_t hinted = prefetcher_.hinted_of_layer(wanted[0].layer);
  if (hinted == 0) return;
  counters_.hinted += hinted;
  counters_.wanted_with_hint += wanted.size();
  counters_.hinted_wanted += static_cast<uint64_t>(
      std::count_if(wanted.begin(), wanted.end(), [this](ExpertId id) { return prefetcher_.is_hinted(id); }));
}

LeaseStream StoreImpl::acquire(std::span<const ExpertId> wanted) {
  auto stream = std::make_unique<LeaseStream::Impl>();
  stream->store = this;
  stream->left = wanted.size();
  const std::lock_guard lock(mutex_);
  ++open_streams_;
  // Hits are pinned before the first miss is queued, so that no miss takes their slots.
  for (const ExpertId id : wanted) MORAINE_CHECK(is_known(id));
  const bool in_scan = is_scan(wanted);
  if (!in_scan && !wanted.empty()) count_prediction(wanted);
  std::vector<ExpertId> missing;
  for (const ExpertId id : wanted) {
    cache_.wanted(id, in_scan);
    const int slot = cache_.find(id);
    if (slot < 0 || cache_.state(slot) != ExpertCache::State::kReady) {
      missing.push_back(id);
      continue;
    }
    ++counters_.hits;
    tell(StoreEvent::kHit, id);
    if (cache_.use(slot)) {
      ++counters_.useful_prefetches;
      counters_.bytes_missed += needed_bytes(id);
    }
    cache_.pin(slot);
    stream->arrivals.push_back({.id = id, .slot = slot});
  }
  for (const ExpertId id : missing) want(*stream, id);
  if (!in_scan && !wanted.empty()) cancel_guesses(wanted[0].layer, false);
  wake_if_useful();
  return LeaseStream(std::move(stream));
}

void StoreImpl::want(StreamState& stream, ExpertId id) {
  const auto found = loads_.find(id);
  if (found == loads_.end()) {
    ++counters_.misses;
    counters_.bytes_missed += needed_bytes(id);
    tell(StoreEvent::kMiss, id);
    if (broken_ != nullptr) {
      stream.arrivals.push_back({.id = id, .error = broken_});
      return;
    }
    auto load = std::make_unique<Load>();
    load->id = id;
    load->waiters.push_back(&stream);
    demand_.push_back(load.get());
    loads_[id] = std::move(load);
    return;
  }
  Load& load = *found->second;
  if (load.waiters.empty()) {
    counters_.bytes_missed += needed_bytes(id);
    promote(id);
  }
  const auto same_stream = std::find(load.waiters.begin(), load.waiters.end(), &stream);
  MORAINE_CHECK(same_stream == load.waiters.end());  // duplicates in `wanted`
  load.waiters.push_back(&stream);
  if (load.slot >= 0) ++stream.ahead;
  if (load.is_prefetch && cache_.use(load.slot)) {
    ++counters_.late_prefetches;
    tell(StoreEvent::kLatePrefetch, id);
    ++counters_.useful_prefetches;
  } else {
    ++counters_.misses;
  }
}

bool StoreImpl::ready(const StreamState& stream) const {
  const std::lock_guard lock(mutex_);
  return stream.left == 0 || !stream.arrivals.empty();
}

void StoreImpl::wait_for_arrival(std::unique_lock<std::mutex>& lock, StreamState& stream) {
  // Counted in slices of waiting, not by the clock: a process that was stopped (Ctrl-Z) is not stuck.
  constexpr int kSlices = 20;
  const auto slice = std::max<std::chrono::milliseconds>(options_.stuck_after / kSlices, std::chrono::milliseconds(1));
  int slices_without_move = 0;
  while (stream.arrivals.empty()) {
    const uint64_t moves_before = moves_;
    const bool was_notified = stream.changed.wait_for(lock, slice) == std::cv_status::no_timeout;
    const bool can_move = loads_.size() > demand_.size();  // some load has a slot and is under way
    slices_without_move = was_notified || can_move || moves_ != moves_before ? 0 : slices_without_move + 1;
    const bool next_waits_for_leases_that_nobody_drops = slices_without_move >= kSlices;
    MORAINE_CHECK(!next_waits_for_leases_that_nobody_drops);
  }
}

std::optional<ExpertLease> StoreImpl::next(StreamState& stream) {
  std::unique_lock lock(mutex_);
  if (stream.left == 0) return std::nullopt;
  if (stream.arrivals.empty()) {
    const auto begin = std::chrono::steady_clock::now();
    wait_for_arrival(lock, stream);
    const auto waited = std::chrono::steady_clock::now() - begin;
    counters_.stall_us += static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(waited).count());
  }
  const StreamState::Arrival arrival = std::move(stream.arrivals.front());
  stream.arrivals.pop_front();
  --stream.left;
  ++moves_;
  if (arrival.was_read) {
    --stream.ahead;
    if (!demand_.empty()) reader_->wake();
  }
  if (arrival.error != nullptr) std::rethrow_exception(arrival.error);
  ++open_leases_;
  ExpertLease lease;
  lease.store_ = this;
  lease.id_ = arrival.id;
  lease.slot_ = arrival.slot;
  lease.record_ = arena_.slot(arrival.slot).first(source_->record_bytes(arrival.id));
  return lease;
}

void StoreImpl::close(StreamState& stream) {
  const std::lock_guard lock(mutex_);
  for (const StreamState::Arrival& arrival : stream.arrivals) {
    if (arrival.error == nullptr) cache_.unpin(arrival.slot);
  }
  for (auto entry = loads_.begin(); entry != loads_.end();) {
    Load& load = *entry->second;
    const bool was_waiting = std::erase(load.waiters, &stream) > 0;
    if (was_waiting && load.waiters.empty() && load.slot < 0) {
      std::erase(demand_, &load);
      entry = loads_.erase(entry);
    } else {
      ++entry;
    }
  }
  --open_streams_;
  ++moves_;
  wake_if_useful();
}

void StoreImpl::release(int slot) {
  const std::lock_guard lock(mutex_);
  cache_.unpin(slot);
  --open_leases_;
  ++moves_;
  if (cache_.pins(slot) == 0) wake_if_useful();
}

void StoreImpl::observe(StoreObserver observer) {
  const std::lock_guard lock(mutex_);
  observer_ = std::move(observer);
}

StoreCounters StoreImpl::counters() const {
  const std::lock_guard lock(mutex_);
  StoreCounters counters = counters_;
  counters.evictions = cache_.evictions();
  counters.bytes_wasted += cache_.wasted_prefetches() * source_->max_record_bytes();
  counters.dropped_hints += prefetcher_.dropped();
  if (reads_in_flight_ > 0) counters.busy_us += busy_us_until_now();
  return counters;
}

}  // namespace moraine::offload
