#include "offload/expert_store.h"

#include <utility>

#include "offload/open_reader.h"
#include "offload/store_impl.h"

namespace moraine::offload {

void StoreCounters::visit(const std::function<void(const char*, uint64_t)>& visitor) const {
  visitor("hits", hits);
  visitor("misses", misses);
  visitor("late_prefetches", late_prefetches);
  visitor("prefetches", prefetches);
  visitor("useful_prefetches", useful_prefetches);
  visitor("dropped_hints", dropped_hints);
  visitor("evictions", evictions);
  visitor("rereads", rereads);
  visitor("bytes_read", bytes_read);
  visitor("bytes_prefetched", bytes_prefetched);
  visitor("bytes_missed", bytes_missed);
  visitor("bytes_wasted", bytes_wasted);
  visitor("hinted", hinted);
  visitor("wanted_with_hint", wanted_with_hint);
  visitor("hinted_wanted", hinted_wanted);
  visitor("warm_reads", warm_reads);
  visitor("slots_given_back", slots_given_back);
  visitor("slots_taken_again", slots_taken_again);
  visitor("stall_us", stall_us);
  visitor("busy_us", busy_us);
}

StoreCounters operator-(const StoreCounters& after, const StoreCounters& before) {
  return {.hits = after.hits - before.hits,
          .misses = after.misses - before.misses,
          .late_prefetches = after.late_prefetches - before.late_prefetches,
          .prefetches = after.prefetches - before.prefetches,
          .useful_prefetches = after.useful_prefetches - before.useful_prefetches,
          .dropped_hints = after.dropped_hints - before.dropped_hints,
          .evictions = after.evictions - before.evictions,
          .rereads = after.rereads - before.rereads,
          .bytes_read = after.bytes_read - before.bytes_read,
          .bytes_prefetched = after.bytes_prefetched - before.bytes_prefetched,
          .bytes_missed = after.bytes_missed - before.bytes_missed,
          .bytes_wasted = after.bytes_wasted - before.bytes_wasted,
          .hinted = after.hinted - before.hinted,
          .wanted_with_hint = after.wanted_with_hint - before.wanted_with_hint,
          .hinted_wanted = after.hinted_wanted - before.hinted_wanted,
          .warm_reads = after.warm_reads - before.warm_reads,
          .slots_given_back = after.slots_given_back - before.slots_given_back,
          .slots_taken_again = after.slots_taken_again - before.slots_taken_again,
          .stall_us = after.stall_us - before.stall_us,
          .busy_us = after.busy_us - before.busy_us};
}

ExpertLease::ExpertLease(ExpertLease&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      id_(other.id_),
      slot_(std::exchange(other.slot_, -1)),
      record_(std::exchange(other.record_, {})) {}

ExpertLease& ExpertLease::operator=(ExpertLease&& other) noexcept {
  ExpertLease taken(std::move(other));
  std::swap(store_, taken.store_);
  std::swap(id_, taken.id_);
  std::swap(slot_, taken.slot_);
  std::swap(record_, taken.record_);
  return *this;
}

ExpertLease::~ExpertLease() {
  if (store_ != nullptr) store_->release(slot_);
}

LeaseStream::LeaseStream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LeaseStream::LeaseStream(LeaseStream&&) noexcept = default;

LeaseStream& LeaseStream::operator=(LeaseStream&& other) noexcept {
  LeaseStream taken(std::move(other));
  std::swap(impl_, taken.impl_);
  return *this;
}

LeaseStream::~LeaseStream() {
  if (impl_ != nullptr) impl_->store->close(*impl_);
}

std::optional<ExpertLease> LeaseStream::next() {
  MORAINE_CHECK(impl_ != nullptr);
  return impl_->store->next(*impl_);
}

bool LeaseStream::ready() const {
  MORAINE_CHECK(impl_ != nullptr);
  return impl_->store->ready(*impl_);
}

ExpertStore::ExpertStore(std::shared_ptr<const ExpertRecordSource> source, const StoreOptions& options, int min_slots)
    : ExpertStore(source, options, min_slots,
                  open_reader(options.reader, source->files(), options.inform, options.mirrors)) {}

ExpertStore::ExpertStore(std::shared_ptr<const ExpertRecordSource> source, const StoreOptions& options, int min_slots,
                         std::unique_ptr<BlockReader> reader)
    : impl_(std::make_unique<StoreImpl>(std::move(source), options, min_slots, std::move(reader))) {}

ExpertStore::~ExpertStore() = default;

void ExpertStore::hint(std::span<const ExpertId> likely, size_t most_reads) {
  impl_->hint(likely, most_reads);
}
bool ExpertStore::wants_hints() const {
  return impl_->wants_hints();
}
LeaseStream ExpertStore::acquire(std::span<const ExpertId> wanted) {
  return impl_->acquire(wanted);
}
void ExpertStore::observe(StoreObserver observer) {
  impl_->observe(std::move(observer));
}

int ExpertStore::slot_count() const {
  return impl_->slot_count();
}
uint64_t ExpertStore::budget_bytes() const {
  return impl_->budget_bytes();
}
const char* ExpertStore::reader_name() const {
  return impl_->reader_name();
}
StoreCounters ExpertStore::counters() const {
  return impl_->counters();
}
const ExpertRecordSource& ExpertStore::source() const {
  return impl_->source();
}

}  // namespace moraine::offload
