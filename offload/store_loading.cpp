#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "offload/expert_name.h"
#include "offload/store_impl.h"

namespace moraine::offload {
namespace {

/// What nobody waits for is handed out while the reader has less than this to do: a request more than it hands to the
/// system at a time, so that the drive never runs out of work. Whatever is wanted later overtakes what the system does
/// not have, but what was handed out is read, also if nobody wants it any more.
constexpr uint64_t kQueuedBytes = 8u << 20;

// A request's tag: 16 bits of the layer, 24 of the expert, 24 of the number of the read.
uint64_t tag_of(ExpertId id, int read) {
  MORAINE_CHECK(id.layer >= 0 && id.layer < 1 << 16 && id.expert >= 0 && id.expert < 1 << 24);
  MORAINE_CHECK(read >= 0 && read < 1 << 24);
  return static_cast<uint64_t>(id.layer) << 48 | static_cast<uint64_t>(id.expert) << 24 | static_cast<uint64_t>(read);
}

ExpertId id_of(uint64_t tag) {
  return {.layer = static_cast<int32_t>(tag >> 48), .expert = static_cast<int32_t>(tag >> 24 & 0xffffff)};
}

size_t read_of(uint64_t tag) {
  return static_cast<size_t>(tag & 0xffffff);
}

}  // namespace

void StoreImpl::run_io() {
  std::vector<ReadCompletion> completions;
  std::vector<ReadRequest> requests;
  std::unique_lock lock(mutex_);
  while (true) {
    begin_loads();
    if (stopping_ && reads_in_flight_ == 0) return;
    requests.clear();
    std::swap(requests, requests_);
    completions.clear();
    const std::vector<int> retired = std::exchange(retired_, {});
    lock.unlock();
    for (const int slot : retired) give_back_memory(slot);
    std::exception_ptr error;
    try {
      if (!requests.empty()) reader_->submit(requests);
      reader_->wait(completions);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    for (ReadCompletion& completion : completions) on_read(completion);
    if (error != nullptr) {
      on_reader_broken(error);
      return;
    }
  }
}

void StoreImpl::begin_loads() {
  if (stopping_) {
    count_reads(-static_cast<int>(later_.size()));
    later_.clear();
    return;
  }
  for (Load* load : std::exchange(reread_, {})) put_reads(*load);
  begin_demand();
  hand_out_later();
  begin_prefetches();
  if (!prefetcher_.has_hints() && drive_has_time()) begin_warm();
  hand_out_later();
}

bool StoreImpl::may_begin(const Load& load) const {
  // A scan wants more than there are slots: taking them all at once would empty the cache of what is worth most.
  constexpr int kLeastAhead = 16, kMostAhead = 64;
  constexpr uint64_t kAheadBytes = 128u << 20;
  const uint64_t records = kAheadBytes / std::max<uint64_t>(arena_.slot_bytes(), 1);
  const int most = std::max({std::clamp(cache_.slot_count() / 4, kLeastAhead, kMostAhead),
                             static_cast<int>(std::min<uint64_t>(records, std::numeric_limits<int>::max()))});
  return std::any_of(load.waiters.begin(), load.waiters.end(),
                     [&](const StreamState* waiter) { return waiter->ahead < most; });
}

void StoreImpl::begin_demand() {
  for (size_t i = 0; i < demand_.size();) {
    Load& load = *demand_[i];
    if (!may_begin(load)) {
      ++i;
      continue;
    }
    load.raw_bytes = raw_bytes(load.id);
    if (staged_bytes_ > 0 && staged_bytes_ + load.raw_bytes > options_.staging_bytes) return;
    const int slot = cache_.take(load.id);
    if (slot < 0) return;
    demand_.erase(demand_.begin() + static_cast<ptrdiff_t>(i));
    for (StreamState* waiter : load.waiters) ++waiter->ahead;
    start(load, slot);
  }
}

void StoreImpl::begin_prefetches() {
  // Half of the staging stays free for what is wanted next.
  while (drive_has_time() && (staged_bytes_ == 0 || staged_bytes_ < options_.staging_bytes / 2)) {
    const std::optional<Prefetcher::Begin> begin = prefetcher_.next(cache_);
    if (!begin) return;
    ++counters_.prefetches;
    tell(StoreEvent::kPrefetch, begin->id);
    auto load = std::make_unique<Load>();
    load->id = begin->id;
    load->is_prefetch = true;
    load->raw_bytes = raw_bytes(begin->id);
    Load& begun = *load;
    loads_[begin->id] = std::move(load);
    start(begun, begin->slot);
    hand_out_later();
  }
}

bool StoreImpl::drive_has_time() const {
  return demand_.empty() && later_.empty() && handed_bytes_ < kQueuedBytes;
}

void StoreImpl::hand_out(ReadRequest request) {
  handed_bytes_ += request.destination.size();
  requests_.push_back(request);
}

void StoreImpl::hand_out_later() {
  while (!later_.empty() && handed_bytes_ < kQueuedBytes) {
    hand_out(later_.front());
    later_.pop_front();
  }
}

/// Somebody waits for a load now: what was not submitted of it is read at once.
void StoreImpl::promote(ExpertId id) {
  for (ReadRequest& request : requests_) request.urgent = request.urgent || id_of(request.tag) == id;
  for (ReadRequest& request : later_) {
    if (id_of(request.tag) != id) continue;
    request.urgent = true;
    hand_out(request);
  }
  std::erase_if(later_, [](const ReadRequest& request) { return request.urgent; });
}

/// What is read of a layer for hints, and nobody waits for, is read no further; but for what is hinted still, if that
/// is to be kept.
void StoreImpl::cancel_guesses(int32_t layer, bool keep_hinted) {
  std::vector<Load*> ended;
  for (const auto& [id, load] : loads_) {
    const bool is_wrong =
        load->is_prefetch && id.layer == layer && load->waiters.empty() && !(keep_hinted && prefetcher_.is_hinted(id));
    if (!is_wrong || drop_later(id) == 0) continue;
    load->is_cancelled = true;
    if (load->reads_left == 0 && !load->is_checking) ended.push_back(load.get());
  }
  for (Load* load : ended) end_cancelled(*load);
}

/// How many requests of a load were dropped, because they had not been handed out.
size_t StoreImpl::drop_later(ExpertId id) {
  const size_t dropped = std::erase_if(later_, [id](const ReadRequest& request) { return id_of(request.tag) == id; });
  loads_.at(id)->reads_left -= static_cast<int>(dropped);
  if (dropped > 0) count_reads(-static_cast<int>(dropped));
  return dropped;
}

void StoreImpl::end_cancelled(Load& load) {
  if (!load.waiters.empty()) {  // wanted after all: from the beginning
    load.is_cancelled = false;
    reread_.push_back(&load);
    reader_->wake();
    return;
  }
  for (const Load::Read& read : load.reads) counters_.bytes_wasted += read.has_arrived ? read.size_bytes : 0;
  cache_.failed(load.slot);
  end(load);
}

uint64_t StoreImpl::raw_bytes(ExpertId id) const {
  if (source_->reads_in_place()) return 0;
  const std::vector<Extent> extents = source_->extents(id);
  return std::accumulate(extents.begin(), extents.end(), uint64_t{0},
                         [](uint64_t sum, const Extent& extent) { return sum + extent.size_bytes; });
}

uint64_t StoreImpl::needed_bytes(ExpertId id) const {
  return source_->reads_in_place() ? source_->record_bytes(id) : raw_bytes(id);
}

void StoreImpl::start(Load& load, int slot) {
  load.slot = slot;
  took_slot_.notify_one();
  try {
    if (load.raw_bytes > 0) give_raw(load);
  } catch (const quant::Error&) {
    load.raw_bytes = 0;
    fail(load, std::current_exception(), false);
    return;
  }
  put_reads(load);
}

void StoreImpl::give_raw(Load& load) {
  const auto fits = [&](const quant::AlignedBuffer& spare) { return spare.size() >= load.raw_bytes; };
  const auto spare = std::find_if(spare_raw_.begin(), spare_raw_.end(), fits);
  if (spare != spare_raw_.end()) {
    load.raw = std::move(*spare);
    spare_raw_.erase(spare);
  } else {
    spare_raw_.clear();
    load.raw = quant::AlignedBuffer(load.raw_bytes);
  }
  staged_bytes_ += load.raw_bytes;
}

void StoreImpl::put_reads(Load& load) {
  const bool in_place = source_->reads_in_place();
  const std::span<std::byte> target =
      in_place ? arena_.slot(load.slot).first(source_->record_bytes(load.id)) : load.raw.span().first(load.raw_bytes);
  const std::vector<Extent> extents = source_->extents(load.id);
  MORAINE_CHECK(!extents.empty());
  MORAINE_CHECK(!in_place || (extents.size() == 1 && extents[0].size_bytes == target.size()));
  load.failure.reset();
  load.reads_left = 0;
  load.reads.clear();
  const bool urgent = !load.waiters.empty();
  uint64_t position_bytes = 0;
  for (const Extent& extent : extents) {
    for (uint64_t done_bytes = 0; done_bytes < extent.size_bytes; done_bytes += kRequestBytes) {
      const uint64_t size_bytes = std::min(kRequestBytes, extent.size_bytes - done_bytes);
      const ReadRequest request = {.tag = tag_of(load.id, load.reads_left),
                                   .file = extent.file,
                                   .offset = extent.offset + done_bytes,
                                   .destination = target.subspan(position_bytes, size_bytes),
                                   .urgent = urgent,
                                   .again = load.was_reread};
      if (urgent) {
        hand_out(request);
      } else {
        later_.push_back(request);
      }
      load.reads.push_back({.size_bytes = size_bytes});
      position_bytes += size_bytes;
      ++load.reads_left;
    }
  }
  count_reads(load.reads_left);
  load.check.reset();
  if (in_place && source_->checksum(load.id)) load.check.emplace();
  load.checked_reads = 0;
  if (load.reads_left > 0) return;
  // All extents are empty: what nothing makes is finished at once.
  load.is_finishing = true;
  give_to_finish(load);
}

void StoreImpl::give_to_finish(Load& load) {
  load.is_checking = true;
  finish_.push_back(&load);
  has_finish_work_.notify_one();
}

void StoreImpl::count_reads(int change) {
  if (reads_in_flight_ == 0) busy_since_ = std::chrono::steady_clock::now();
  reads_in_flight_ += change;
  if (reads_in_flight_ == 0) counters_.busy_us += busy_us_until_now();
}

uint64_t StoreImpl::busy_us_until_now() const {
  const auto busy = std::chrono::steady_clock::now() - busy_since_;
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(busy).count());
}

void StoreImpl::on_read(ReadCompletion& completion) {
  Load& load = *loads_.at(id_of(completion.tag));
  count_reads(-1);
  ++moves_;
  counters_.bytes_read += completion.bytes_read;
  if (load.is_prefetch) counters_.bytes_prefetched += completion.bytes_read;
  if (completion.failure && !load.failure) load.failure = std::move(completion.failure);
  Load::Read& read = load.reads[read_of(completion.tag)];
  read.has_arrived = true;
  handed_bytes_ -= read.size_bytes;
  --load.reads_left;
  load.is_finishing = load.reads_left == 0 && !load.failure && !load.is_cancelled;
  if (load.is_checking) return;  // who checks it will see
  if (load.reads_left == 0 && load.is_cancelled) {
    end_cancelled(load);
    return;
  }
  if (load.reads_left == 0 && load.failure) {
    fail_read(load);
    return;
  }
  const bool can_check =
      load.check && !load.failure && !load.is_cancelled && load.reads[load.checked_reads].has_arrived;
  if (load.is_finishing || can_check) give_to_finish(load);
}

void StoreImpl::fail_read(Load& load) {
  load.failure->detail.item = expert_name(load.id);
  fail(load, std::make_exception_ptr(quant::Error(load.failure->kind, load.failure->detail)), true);
}

void StoreImpl::on_reader_broken(std::exception_ptr error) {
  broken_ = error;
  requests_.clear();
  later_.clear();
  reread_.clear();
  demand_.clear();
  reads_in_flight_ = 0;
  for (auto entry = loads_.begin(); entry != loads_.end();) {
    Load& load = *entry->second;
    if (load.is_finishing) {
      ++entry;
      continue;
    }
    deliver_error(load, error);
    // Its slot stays Loading: it is not given to anyone again. A finish thread may hold it.
    load.is_abandoned = true;
    std::erase(finish_, &load);
    abandoned_.push_back(std::move(entry->second));
    entry = loads_.erase(entry);
  }
}

void StoreImpl::run_finish() {
  std::unique_lock lock(mutex_);
  while (true) {
    has_finish_work_.wait(lock, [this] { return stopping_ || !finish_.empty(); });
    if (stopping_) return;
    Load& load = *finish_.front();
    finish_.pop_front();
    finish(lock, load);
  }
}

void StoreImpl::finish(std::unique_lock<std::mutex>& lock, Load& load) {
  const bool is_right = load.check && check_arrived(lock, load);
  if (load.is_abandoned) return;
  load.is_checking = false;
  if (load.reads_left > 0) return;  // on_read() goes on
  if (load.is_cancelled) {
    end_cancelled(load);
  } else if (load.failure) {
    fail_read(load);
  } else if (is_right) {
    succeed(load);
  } else {
    make_record(lock, load);
  }
}

/// Adds to the checksum what has arrived without a gap. True if that is the whole record, as it was written.
bool StoreImpl::check_arrived(std::unique_lock<std::mutex>& lock, Load& load) {
  const std::span<const std::byte> record = arena_.slot(load.slot).first(source_->record_bytes(load.id));
  const auto can_go_on = [&load] {
    return load.checked_reads < load.reads.size() && load.reads[load.checked_reads].has_arrived && !load.failure &&
           !load.is_abandoned && !load.is_cancelled;
  };
  while (can_go_on()) {
    const size_t begin = load.checked_reads * kRequestBytes;
    lock.unlock();
    load.check->update(record.subspan(begin, std::min<size_t>(kRequestBytes, record.size() - begin)));
    lock.lock();
    ++load.checked_reads;
  }
  return load.checked_reads == load.reads.size() && load.check->digest() == source_->checksum(load.id);
}

void StoreImpl::make_record(std::unique_lock<std::mutex>& lock, Load& load) {
  const std::span<std::byte> record = arena_.slot(load.slot).first(source_->record_bytes(load.id));
  const std::span<const std::byte> raw = source_->reads_in_place() ? record : load.raw.span().first(load.raw_bytes);
  std::exception_ptr error;
  bool bytes_are_wrong = false;
  lock.unlock();
  try {
    source_->finish(load.id, raw, record);
  } catch (const quant::Error& caught) {
    error = std::current_exception();
    bytes_are_wrong = caught.kind() == quant::ErrorKind::kChecksum;
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  if (error == nullptr) {
    succeed(load);
  } else {
    fail(load, error, bytes_are_wrong);
  }
}

void StoreImpl::succeed(Load& load) {
  cache_.loaded(load.slot);
  for (StreamState* waiter : load.waiters) {
    cache_.pin(load.slot);
    waiter->arrivals.push_back({.id = load.id, .slot = load.slot, .was_read = true});
    waiter->changed.notify_all();
  }
  end(load);
}

void StoreImpl::fail(Load& load, std::exception_ptr error, bool can_reread) {
  // What nobody waits for is not worth a second read: it is read again when it is wanted.
  const bool worth_it = can_reread && !load.was_reread && !load.waiters.empty();
  if (worth_it && broken_ == nullptr && !stopping_) {
    load.was_reread = true;
    ++counters_.rereads;
    load.is_finishing = false;
    reread_.push_back(&load);
    reader_->wake();
    return;
  }
  cache_.failed(load.slot);
  deliver_error(load, error);
  end(load);
}

void StoreImpl::deliver_error(Load& load, const std::exception_ptr& error) {
  for (StreamState* waiter : load.waiters) {
    waiter->arrivals.push_back({.id = load.id, .was_read = load.slot >= 0, .error = error});
    waiter->changed.notify_all();
  }
  load.waiters.clear();
}

void StoreImpl::end(Load& load) {
  ++moves_;
  tell(StoreEvent::kReadEnded, load.id);
  if (load.is_prefetch) prefetcher_.ended();
  if (load.is_warm) --warm_in_flight_;
  if (load.raw_bytes > 0) {
    staged_bytes_ -= load.raw_bytes;
    const uint64_t spare_bytes =
        std::accumulate(spare_raw_.begin(), spare_raw_.end(), uint64_t{0},
                        [](uint64_t sum, const quant::AlignedBuffer& spare) { return sum + spare.size(); });
    if (staged_bytes_ + spare_bytes + load.raw.size() <= options_.staging_bytes) {
      spare_raw_.push_back(std::move(load.raw));
    }
  }
  loads_.erase(load.id);  // ends `load` itself
  wake_if_useful();
}

}  // namespace moraine::offload
