#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "offload/block_reader.h"
#include "offload/expert_cache.h"
#include "offload/expert_store.h"
#include "offload/host_arena.h"
#include "offload/prefetcher.h"
#include "quant/aligned_buffer.h"
#include "quant/checksum.h"

namespace moraine::offload {

/// What a LeaseStream is made of; guarded by the store's mutex.
struct StreamState {
  /// A record that is in RAM and pinned for this stream, or the error that it has become.
  struct Arrival {
    ExpertId id;
    int slot = -1;
    bool was_read = false;  // for this stream, not found in RAM
    std::exception_ptr error = nullptr;
  };
  StoreImpl* store = nullptr;
  int ahead = 0;                 // records begun to be read for this stream and not delivered yet
  size_t left = 0;               // records not delivered yet
  std::deque<Arrival> arrivals;  // of these, in the order of delivery
  std::condition_variable changed;
};

struct LeaseStream::Impl : StreamState {};

/// The store behind its façade. Callers queue loads; one I/O thread gives them slots, drives the reader and passes what
/// has been read to the finish threads, which make it records and wake who waits.
class StoreImpl {
 public:
  StoreImpl(std::shared_ptr<const ExpertRecordSource> source, const StoreOptions& options, int min_slots,
            std::unique_ptr<BlockReader> reader);
  ~StoreImpl();
  StoreImpl(const StoreImpl&) = delete;
  StoreImpl& operator=(const StoreImpl&) = delete;

  // Callers' side: store_impl.cpp
  void hint(std::span<const ExpertId> likely, size_t most_reads);
  bool wants_hints() const;
  LeaseStream acquire(std::span<const ExpertId> wanted);
  std::optional<ExpertLease> next(StreamState& stream);
  bool ready(const StreamState& stream) const;
  void close(StreamState& stream);
  void release(int slot);
  StoreCounters counters() const;
  void observe(StoreObserver observer);

  int slot_count() const;
  uint64_t budget_bytes() const { return arena_.slot_bytes() * static_cast<uint64_t>(slot_count()); }
  const char* reader_name() const { return reader_->name(); }
  const ExpertRecordSource& source() const { return *source_; }

 private:
  /// A record on its way into RAM: queued (no slot yet), read, finished.
  struct Load {
    ExpertId id;
    int slot = -1;
    bool is_prefetch = false;  // begun for a hint
    bool is_warm = false;      // begun because it was wanted before the start
    bool was_reread = false;
    bool is_finishing = false;               // read, with the finish threads
    bool is_checking = false;                // with the finish threads; more may still be read
    bool is_abandoned = false;               // by a broken reader
    bool is_cancelled = false;               // not read to its end, unless it is wanted after all
    int reads_left = 0;                      // of at most kRequestBytes each
    std::vector<StreamState*> waiters = {};  // empty: nobody wants it (any more)
    uint64_t raw_bytes = 0;                  // of all extents; 0 where they are read in place
    quant::AlignedBuffer raw = {};           // [≥ raw_bytes] the extents' bytes, one after the other
    std::optional<ReadFailure> failure = std::nullopt;
    struct Read {
      uint64_t size_bytes = 0;
      bool has_arrived = false;
    };
    std::vector<Read> reads = {};
    // Where the source knows the checksum, it is added up while the reads end:
    std::optional<quant::ChecksumStream> check = std::nullopt;
    size_t checked_reads = 0;  // the first so many are in `check`
  };

  // Callers' side: store_impl.cpp
  void stop_threads();
  void want(StreamState& stream, ExpertId id);
  void count_prediction(std::span<const ExpertId> wanted);
  void wait_for_arrival(std::unique_lock<std::mutex>& lock, StreamState& stream);
  bool is_known(ExpertId id) const;
  bool is_scan(std::span<const ExpertId> wanted) const;
  void wake_if_useful();
  void tell(StoreEvent event, ExpertId id) const {
    if (observer_) observer_(event, id);
  }

  // What goes on beside the requests: store_background.cpp
  void warm_start();
  void note_hot_set();
  void begin_warm();
  void watch_pressure();
  void give_back_slots();
  void take_slots_again(uint64_t most);
  void give_back_memory(int slot);
  void touch_slots();

  // I/O and finish side: store_loading.cpp. All but the loops expect mutex_ to be held.
  void run_io();
  void run_finish();
  void begin_loads();
  void begin_demand();
  void begin_prefetches();
  uint64_t raw_bytes(ExpertId id) const;
  uint64_t needed_bytes(ExpertId id) const;
  void start(Load& load, int slot);
  void give_raw(Load& load);
  void put_reads(Load& load);
  void give_to_finish(Load& load);
  void hand_out(ReadRequest request);
  void hand_out_later();
  bool drive_has_time() const;
  void promote(ExpertId id);
  void cancel_guesses(int32_t layer, bool keep_hinted);
  size_t drop_later(ExpertId id);
  void end_cancelled(Load& load);
  bool may_begin(const Load& load) const;
  void count_reads(int change);
  uint64_t busy_us_until_now() const;
  void on_read(ReadCompletion& completion);
  void on_reader_broken(std::exception_ptr error);
  void fail_read(Load& load);
  void finish(std::unique_lock<std::mutex>& lock, Load& load);
  bool check_arrived(std::unique_lock<std::mutex>& lock, Load& load);
  void make_record(std::unique_lock<std::mutex>& lock, Load& load);
  void succeed(Load& load);
  void fail(Load& load, std::exception_ptr error, bool can_reread);
  void deliver_error(Load& load, const std::exception_ptr& error);
  void end(Load& load);

  const std::shared_ptr<const ExpertRecordSource> source_;
  const StoreOptions options_;
  const std::unordered_map<int32_t, size_t> layer_sizes_;  // experts of each layer
  HostArena arena_;
  const std::unique_ptr<BlockReader> reader_;
  const int min_slots_;
  uint64_t hot_set_key_ = 0;

  mutable std::mutex mutex_;  // guards what follows
  ExpertCache cache_;
  Prefetcher prefetcher_;
  StoreCounters counters_;
  StoreObserver observer_;
  std::unordered_map<ExpertId, std::unique_ptr<Load>> loads_;
  std::deque<Load*> demand_;           // queued for a slot, oldest first
  std::deque<Load*> reread_;           // have a slot, to be read once more
  std::deque<Load*> finish_;           // read, to be finished
  std::vector<ReadRequest> requests_;  // to be submitted by the I/O thread
  std::deque<ReadRequest> later_;      // of what nobody waits for: handed out as the reader runs out of work
  uint64_t handed_bytes_ = 0;          // of the requests that were handed out and have not ended
  std::vector<quant::AlignedBuffer> spare_raw_;
  uint64_t staged_bytes_ = 0;  // in the loads' raw buffers
  size_t open_streams_ = 0;
  size_t open_leases_ = 0;
  std::deque<ExpertId> warm_;  // to be read while the drive has time, hottest first
  int warm_in_flight_ = 0;
  int slots_to_give_back_ = 0;
  std::vector<int> retired_;  // slots whose memory is to be given back by the I/O thread
  mutable int asked_while_saturated_ = 0;
  uint64_t moves_ = 0;  // everything that could end a wait
  int reads_in_flight_ = 0;
  std::chrono::steady_clock::time_point busy_since_;  // if reads are in flight
  std::exception_ptr broken_;                         // the reader's last words; nothing is read any more
  std::vector<std::unique_ptr<Load>> abandoned_;      // with memory that a broken reader may still write to
  bool stopping_ = false;
  std::condition_variable has_finish_work_, stopped_, took_slot_;

  std::vector<std::jthread> finish_threads_;
  std::jthread pressure_thread_;
  std::jthread touch_thread_;
  std::jthread io_thread_;
};

}  // namespace moraine::offload
