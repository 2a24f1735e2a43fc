#include "runtime/hint_budget.h"

#include <gtest/gtest.h>

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
    return budget.next_count(now_s_, counters_);
  }
  int32_t layers(HintBudget& budget, int count, double demand_s, double hinted_s) {
    int32_t last = 0;
    for (int i = 0; i < count; ++i) last = layer(budget, demand_s, hinted_s);
    return last;
  }

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

TEST(HintBudget, HasAMost) {
  HintBudget budget(1000, 8, 16);
  Machine machine;
  EXPECT_EQ(machine.layers(budget, 50, 0.001, 0.0), 16);
}

}  // namespace
}  // namespace moraine::runtime
