#include "runtime/hint_budget.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace moraine::runtime {
namespace {

constexpr uint64_t kRecordBytes = 10'000'000;

/// A store at work: per layer of 10 ms so much reading for demand and for hints, at 1 GB/s.
class Machine {
 public:
  int32_t layer(HintBudget& budget, double demand_s, double hinted_s) {
    now_s_ += 0.010;
    counters_.busy_us += static_cast<uint64_t>((demand_s + hinted_s) * 1e6 + 0.5);
    counters_.bytes_read += static_cast<uint64_t>((demand_s + hinted_s) * 1e9 + 0.5);
    counters_.bytes_prefetched += static_cast<uint64_t>(hinted_s * 1e9 + 0.5);
    return budget.next_count(0, now_s_, counters_);
  }
  int32_t layers(HintBudget& budget, int count, double demand_s, double hinted_s) {
    int32_t last = 0;
    for (int i = 0; i < count; ++i) last = layer(budget, demand_s, hinted_s);
    return last;
  }
  /// So much time without a layer; the time now.
  double pass(double seconds) { return now_s_ += seconds; }
  const offload::StoreCounters& counters() const { return counters_; }
  void set_counters(const offload::StoreCounters& counters) { counters_ = counters; }

 private:
  double now_s_ = 100.0;
  offload::StoreCounters counters_;
};

TEST(HintBudget, StartsWithTheUsualCount) {
  HintBudget budget(kRecordBytes, 8, 16);
  Machine machine;
  EXPECT_EQ(machine.layer(budget, 0.0, 0.0), 8);
  EXPECT_EQ(machine.layers(budget, 5, 0.0, 0.0), 8) << "a drive that never read has no speed";
}

TEST(HintBudget, IsWhatTheIdleTimeCanRead) {
  HintBudget budget(1'000'000, 8, 16);
  Machine machine;
  EXPECT_EQ(machine.layers(budget, 100, 0.006, 0.0), 4) << "4 ms at 1 GB/s are four records of 1 MB";
  EXPECT_EQ(machine.layers(budget, 100, 0.006, 0.004), 4) << "hints do not count against themselves";
}

TEST(HintBudget, EndsWhenDemandSaturatesTheDriveAndReturnsAfterwards) {
  HintBudget budget(kRecordBytes, 8, 16);
  Machine machine;
  EXPECT_EQ(machine.layers(budget, 100, 0.010, 0.0), 0);
  EXPECT_EQ(machine.layers(budget, 100, 0.001, 0.0), 1);
}

TEST(HintBudget, KnowsEveryPlaceInAStep) {
  // Behind place 0 the drive is idle for 8 ms of 10, behind place 1 for 2.
  HintBudget budget(1'000'000, 8, 16);
  offload::StoreCounters counters;
  double now_s = 1.0;
  int32_t first = 0, second = 0;
  for (int step = 0; step < 50; ++step) {
    for (const int demand_us : {8000, 2000}) {
      now_s += 0.010;
      counters.busy_us += static_cast<uint64_t>(demand_us);
      counters.bytes_read += static_cast<uint64_t>(demand_us) * 1000;
      if (demand_us == 8000) first = budget.next_count(0, now_s, counters);
      if (demand_us == 2000) second = budget.next_count(1, now_s, counters);
    }
  }
  EXPECT_EQ(first, 8);
  EXPECT_EQ(second, 2);
}

TEST(HintBudget, HasAMost) {
  HintBudget budget(1000, 8, 16);
  Machine machine;
  EXPECT_EQ(machine.layers(budget, 50, 0.001, 0.0), 16);
}

TEST(HintBudget, ALateDriveIsNotASlowOne) {
  // Every read takes 5 ms, however many there are: four layers of ten ask for one record, one for eight.
  HintBudget budget(1'000'000, 8, 16);
  offload::StoreCounters counters;
  double now_s = 1.0;
  int32_t least = 16;
  for (int layer = 0; layer < 200; ++layer) {
    now_s += 0.010;
    counters.busy_us += 5000;
    counters.bytes_read += layer % 5 == 0 ? 8'000'000 : 1'000'000;
    const int32_t count = budget.next_count(0, now_s, counters);
    if (layer > 20) least = std::min(least, count);
  }
  EXPECT_GE(least, 7) << "5 ms are idle, and eight records were read in as many";
}

TEST(HintBudget, ForgetsASpeedThatWasNeverReachedAgain) {
  HintBudget budget(1'000'000, 8, 16);
  Machine machine;
  machine.layers(budget, 100, 0.006, 0.0);
  offload::StoreCounters burst = machine.counters();
  burst.bytes_read += 50'000'000;
  burst.busy_us += 1000;
  machine.set_counters(burst);
  EXPECT_EQ(machine.layer(budget, 0.006, 0.0), 16);
  EXPECT_EQ(machine.layers(budget, 300, 0.006, 0.0), 4);
}

TEST(HintBudget, APromptTeachesNothing) {
  HintBudget budget(1'000'000, 8, 16);
  Machine machine;
  machine.layers(budget, 100, 0.006, 0.0);
  offload::StoreCounters counters = machine.counters();
  counters.busy_us += 1;
  counters.bytes_read += 5'000'000;
  machine.set_counters(counters);
  budget.skip(machine.pass(5.0), counters);
  EXPECT_EQ(machine.layer(budget, 0.006, 0.0), 4);
}

}  // namespace
}  // namespace moraine::runtime
