#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "offload/block_reader.h"
#include "offload/expert_id.h"
#include "offload/expert_record_source.h"

namespace moraine::offload {

class HostMemory;
class MemoryPressure;

struct StoreOptions {
  uint64_t budget_bytes = 0;  ///< for records in RAM; whole slots are taken from it
  ReaderKind reader = ReaderKind::kAuto;
  /// Directories with copies of the source's files, on other drives (offload/mirrored_files.h): reads are spread.
  std::vector<std::filesystem::path> mirrors = {};
  bool prefetch = true;  ///< whether hint() reads anything
  /// Receives lines worth telling a person (the fallback to pread). May be empty.
  std::function<void(const std::string&)> inform = {};
  /// Threads that verify or make records (ExpertRecordSource::finish); 0: by the machine and the source.
  int finish_threads = 0;
  /// For bytes on their way to records, where the source does not read in place; one record always fits.
  uint64_t staging_bytes = 64u << 20;
  /// Where the slots' memory comes from (offload/host_arena.h); null: the system.
  std::shared_ptr<HostMemory> memory = {};
  /// Asked every `pressure_period` how much memory to give back (offload/memory_pressure.h); null: nothing is given
  /// back. Slots go one by one, never below `min_slots`, and return when it says so. Memory handed in stays whole.
  std::shared_ptr<MemoryPressure> pressure = {};
  std::chrono::milliseconds pressure_period{100};
  /// Where the experts wanted most are noted at the end, to be read at the next start while nobody waits for the drive
  /// (offload/hot_set.h); empty: nowhere.
  std::filesystem::path hot_set_file = {};
  /// How long next() waits while nothing at all moves in the store before it calls that a programmer fault.
  std::chrono::milliseconds stuck_after{60'000};
};

/// Counters since construction. Bytes are bytes read from files.
struct StoreCounters {
  uint64_t hits = 0;               ///< wanted and ready at acquire()
  uint64_t misses = 0;             ///< wanted and not there at acquire()
  uint64_t late_prefetches = 0;    ///< wanted while a prefetch of it was still under way (not counted as miss)
  uint64_t prefetches = 0;         ///< reads begun for a hint
  uint64_t useful_prefetches = 0;  ///< prefetched records that were wanted before they were evicted
  uint64_t dropped_hints = 0;      ///< hints not turned into reads (no slot, no queue room, stale)
  uint64_t evictions = 0;
  uint64_t rereads = 0;  ///< records read once more after a wrong checksum or I/O error
  uint64_t bytes_read = 0;
  uint64_t bytes_prefetched = 0;
  uint64_t bytes_missed = 0;       ///< of records that were wanted and had to be read for it, on demand or for a hint
  uint64_t bytes_wasted = 0;       ///< of prefetched records that were evicted, or cancelled, before they were wanted
  uint64_t hinted = 0;             ///< experts hinted of a layer, when that layer was acquired (no scans)
  uint64_t wanted_with_hint = 0;   ///< experts wanted of layers with a hint: recall = hinted_wanted / wanted_with_hint
  uint64_t hinted_wanted = 0;      ///< of these, hinted: precision = hinted_wanted / hinted
  uint64_t warm_reads = 0;         ///< records begun to be read because they were wanted before the start
  uint64_t slots_given_back = 0;   ///< under memory pressure
  uint64_t slots_taken_again = 0;  ///< after it
  uint64_t stall_us = 0;           ///< time callers waited in LeaseStream::next()
  uint64_t busy_us = 0;            ///< time in which at least one read was under way

  /// Calls visit(name, value) for each counter, in this order.
  void visit(const std::function<void(const char*, uint64_t)>& visitor) const;
};

/// What was counted between two readings.
StoreCounters operator-(const StoreCounters& after, const StoreCounters& before);

/// What the store tells of single experts, for a trace.
enum class StoreEvent : uint8_t { kHit, kMiss, kLatePrefetch, kPrefetch, kReadEnded };
/// Called under the store's lock, from any thread: must return at once, not throw and not call the store.
using StoreObserver = std::function<void(StoreEvent, ExpertId)>;

class StoreImpl;

/// The pin on a record in RAM: while it lives, the record stays. Move-only.
class ExpertLease {
 public:
  ExpertLease() = default;
  ExpertLease(ExpertLease&& other) noexcept;
  ExpertLease& operator=(ExpertLease&& other) noexcept;
  ~ExpertLease();

  ExpertId id() const { return id_; }
  std::span<const std::byte> record() const { return record_; }
  explicit operator bool() const { return store_ != nullptr; }

 private:
  friend class StoreImpl;
  StoreImpl* store_ = nullptr;
  ExpertId id_;
  int slot_ = -1;
  std::span<const std::byte> record_;
};

/// The records of one acquire(), each delivered once: those in RAM first, then the others in the order in which they
/// arrive. All misses that fit free or evictable slots are issued at once; the rest as leases are dropped, so any
/// budget of one slot or more serves any request. Dropping the stream early cancels what has not begun.
class LeaseStream {
 public:
  LeaseStream(LeaseStream&&) noexcept;
  LeaseStream& operator=(LeaseStream&&) noexcept;
  ~LeaseStream();

  /// The next record; waits for it. Nothing when all were delivered. Throws the quant::Error of a record that could not
  /// be read even the second time; the others can still be had by calling again. The caller must drop earlier leases if
  /// the store has no slot left: a wait that no completion and no other holder ends is a programmer fault and fails a
  /// check (StoreOptions::stuck_after).
  std::optional<ExpertLease> next();
  /// True if next() would return without waiting.
  bool ready() const;

 private:
  friend class StoreImpl;
  struct Impl;
  explicit LeaseStream(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Owns the experts in RAM: one byte budget over all layers, read by io_uring or pread, evicted by a policy. Prediction
/// and caching change when bytes arrive, never which experts run. Thread-safe.
class ExpertStore {
 public:
  /// Opens the files and takes the slots. Throws quant::Error(kNotEnough) with the numbers if the budget holds fewer
  /// than `min_slots` records.
  ExpertStore(std::shared_ptr<const ExpertRecordSource> source, const StoreOptions& options, int min_slots);
  /// The same with a reader of the source's files handed in, e.g. one that fails on purpose; options.reader is unused.
  ExpertStore(std::shared_ptr<const ExpertRecordSource> source, const StoreOptions& options, int min_slots,
              std::unique_ptr<BlockReader> reader);
  /// Waits for the reads in flight. No lease or stream may outlive the store.
  ~ExpertStore();
  ExpertStore(const ExpertStore&) = delete;
  ExpertStore& operator=(const ExpertStore&) = delete;

  /// Experts likely to be wanted soon, likeliest first, of which so many at most are read. Returns at once; a hint
  /// replaces the hints not yet begun.
  void hint(std::span<const ExpertId> likely, size_t most_reads = static_cast<size_t>(-1));
  /// False if hints would change nothing: prefetching is off, every record of the source is in RAM, or the drive has
  /// had no time for hints for a while (then true now and again, to see whether it has). The caller can save itself the
  /// prediction.
  bool wants_hints() const;
  /// `wanted`: no duplicates.
  LeaseStream acquire(std::span<const ExpertId> wanted);

  /// Who is told from now on; empty: nobody.
  void observe(StoreObserver observer);

  int slot_count() const;           ///< at present
  uint64_t budget_bytes() const;    ///< bytes of these slots
  const char* reader_name() const;  ///< "io_uring" or "pread"
  StoreCounters counters() const;
  const ExpertRecordSource& source() const;

 private:
  std::unique_ptr<StoreImpl> impl_;
};

}  // namespace moraine::offload
