#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "offload/hot_set.h"
#include "offload/memory_pressure.h"
#include "offload/store_impl.h"

namespace moraine::offload {

void StoreImpl::warm_start() {
  if (options_.hot_set_file.empty()) return;
  hot_set_key_ = hot_set_key(*source_);
  for (const ExpertId id : load_hot_set(options_.hot_set_file, hot_set_key_, options_.inform)) {
    if (is_known(id)) warm_.push_back(id);
  }
  // The hottest was wanted last, as far as the policy is told.
  for (auto id = warm_.rbegin(); id != warm_.rend(); ++id) cache_.wanted(*id, false);
}

void StoreImpl::note_hot_set() {
  if (options_.hot_set_file.empty()) return;
  const std::vector<ExpertId> hottest = cache_.hottest();
  if (hottest.empty()) return;
  try {
    save_hot_set(options_.hot_set_file, hot_set_key_, hottest);
  } catch (const quant::Error& error) {
    // The next start is slower, nothing else.
    if (options_.inform) options_.inform(error.what());
  }
}

void StoreImpl::begin_warm() {
  constexpr int kMostInFlight = 2;  // what a demand read may have to wait behind
  while (!warm_.empty() && warm_in_flight_ < kMostInFlight) {
    if (cache_.empty_count() == 0) {
      warm_.clear();  // what is wanted now has filled the slots
      return;
    }
    const ExpertId id = warm_.front();
    warm_.pop_front();
    if (cache_.find(id) >= 0 || loads_.contains(id)) continue;
    auto load = std::make_unique<Load>();
    load->id = id;
    load->is_warm = true;
    load->raw_bytes = raw_bytes(id);
    Load& begun = *load;
    loads_[id] = std::move(load);
    ++warm_in_flight_;
    ++counters_.warm_reads;
    start(begun, cache_.take(id));
  }
}

void StoreImpl::watch_pressure() {
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, options_.pressure_period, [this] { return stopping_; })) {
    const uint64_t slot_bytes = arena_.slot_bytes();
    const uint64_t held_bytes = slot_bytes * static_cast<uint64_t>(cache_.slot_count());
    lock.unlock();
    const uint64_t excess_bytes = std::min(options_.pressure->excess_bytes(held_bytes), held_bytes);
    const bool wants_more = excess_bytes == 0 && held_bytes < arena_.size_bytes();
    const uint64_t spare_bytes = wants_more ? options_.pressure->spare_bytes(slot_bytes) : 0;
    lock.lock();
    if (excess_bytes > 0) slots_to_give_back_ = static_cast<int>((excess_bytes + slot_bytes - 1) / slot_bytes);
    give_back_slots();
    if (slots_to_give_back_ == 0) take_slots_again(spare_bytes / slot_bytes);
  }
}

void StoreImpl::give_back_slots() {
  const size_t before = retired_.size();
  while (slots_to_give_back_ > 0 && cache_.slot_count() > min_slots_) {
    const int slot = cache_.retire();
    if (slot < 0) break;  // all are in use: some will not be when this is tried again
    retired_.push_back(slot);
    --slots_to_give_back_;
    ++counters_.slots_given_back;
  }
  if (cache_.slot_count() <= min_slots_) slots_to_give_back_ = 0;
  if (retired_.size() > before) reader_->wake();
}

void StoreImpl::take_slots_again(uint64_t most) {
  // A slot whose memory the I/O thread has not given back yet keeps it.
  for (; most > 0; --most) {
    const int slot = cache_.revive();
    if (slot < 0) break;
    std::erase(retired_, slot);
    ++counters_.slots_taken_again;
  }
  wake_if_useful();
}

/// Touches the slots' memory a little ahead of their first use. Otherwise the I/O thread would do it inside of a read:
/// where the system clears pages more slowly than the drive reads, a cold start waits for that alone.
void StoreImpl::touch_slots() {
  constexpr uint64_t kAheadBytes = 512u << 20;
  constexpr uint64_t kStepBytes = 2u << 20;  // the system does nothing else with the process' memory meanwhile
  const int ahead = static_cast<int>(std::max<uint64_t>(1, kAheadBytes / std::max<uint64_t>(arena_.slot_bytes(), 1)));
  std::unique_lock lock(mutex_);
  for (int slot = 0; slot < arena_.slot_count(); ++slot) {  // empty slots are taken in this order
    const auto is_due = [&] { return slot < arena_.slot_count() - cache_.empty_count() + ahead; };
    took_slot_.wait(lock, [&] { return stopping_ || is_due(); });
    // Who gives memory back must not get it from here again.
    if (stopping_ || counters_.slots_given_back > 0) return;
    if (cache_.state(slot) != ExpertCache::State::kEmpty) continue;
    lock.unlock();
    const std::span<std::byte> memory = arena_.slot(slot);
    for (uint64_t done_bytes = 0; done_bytes < memory.size(); done_bytes += kStepBytes) {
      const uint64_t size_bytes = std::min<uint64_t>(kStepBytes, memory.size() - done_bytes);
      if (::madvise(memory.data() + done_bytes, size_bytes, MADV_POPULATE_WRITE) != 0) return;  // an older system
    }
    lock.lock();
    if (counters_.slots_given_back > 0 && cache_.is_retired(slot)) {
      retired_.push_back(slot);
      reader_->wake();
    }
  }
}

void StoreImpl::give_back_memory(int slot) {
  const std::span<std::byte> memory = arena_.slot(slot);
  ::madvise(memory.data(), memory.size(), MADV_DONTNEED);
}

}  // namespace moraine::offload
