#pragma once

#include <cstdint>
#include <vector>

#include "offload/expert_store.h"

namespace moraine::runtime {

/// How many experts are worth a read ahead: what the drive can deliver in the time that demand leaves it idle from one
/// hint to the next, which differs from place to place in a step. Learns both from the store's counters; only time
/// depends on it.
///
/// The drive's speed is the best of late, not the mean: a drive that answers late, but many reads at a time, looks slow
/// whenever it is asked for little, and would then be asked for less.
class HintBudget {
 public:
  /// `usual_count`: until something was measured. `most`: at any time.
  HintBudget(uint64_t record_bytes, int32_t usual_count, int32_t most)
      : record_bytes_(record_bytes), usual_count_(usual_count), most_(most) {}

  /// The count for a hint given now at `place`, a small number; called once per hint with the store's counters.
  int32_t next_count(int place, double now_s, const offload::StoreCounters& counters);
  /// What happened until now says nothing about decoding: it was a prefill chunk.
  void skip(double now_s, const offload::StoreCounters& counters);

 private:
  const uint64_t record_bytes_;
  const int32_t usual_count_, most_;
  int calls_ = 0;
  double before_s_ = 0.0;
  offload::StoreCounters before_ = {};
  int before_place_ = 0;
  std::vector<double> idle_s_;  // after each place, decaying mean; negative: not known
  double bytes_per_s_ = -1.0;   // of the drive while it reads: the best, slowly forgotten; negative: not known
};

}  // namespace moraine::runtime
