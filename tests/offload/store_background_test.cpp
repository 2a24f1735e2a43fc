// What the store does beside its requests: warm start, giving slots back, judging hints.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "offload/expert_store.h"
#include "offload/hot_set.h"
#include "offload/memory_pressure.h"
#include "offload/open_reader.h"
#include "support/faulty_reader.h"
#include "support/memory_source.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using testing::Fault;
using testing::FaultyReader;
using testing::MemoryReader;
using testing::MemoryShape;
using testing::MemorySource;

/// Asks once for what it is told, and offers once.
class FakePressure : public MemoryPressure {
 public:
  uint64_t excess_bytes(uint64_t held_bytes) override {
    held_bytes_ = held_bytes;
    ++calls_;
    return ask_half_.exchange(false) ? held_bytes / 2 : 0;
  }
  uint64_t spare_bytes(uint64_t) override { return spare_bytes_.exchange(0); }
  std::atomic<bool> ask_half_ = false;
  std::atomic<uint64_t> spare_bytes_ = 0;
  std::atomic<uint64_t> held_bytes_ = 0;
  std::atomic<int> calls_ = 0;
};

class StoreBackgroundTest : public ::testing::Test {
 protected:
  static constexpr int kExperts = 32;

  void open(int slots, StoreOptions options = {}, std::vector<Fault> faults = {}) {
    options.budget_bytes = static_cast<uint64_t>(slots) * 8192;
    options.pressure = pressure_;
    options.pressure_period = std::chrono::milliseconds(1);
    options.inform = [this](const std::string& line) { lines_.push_back(line); };
    auto reader =
        std::make_unique<FaultyReader>(std::make_unique<MemoryReader>(source_->contents()), std::move(faults));
    reader_ = reader.get();
    store_ = std::make_unique<ExpertStore>(source_, options, 2, std::move(reader));
  }

  void take(std::span<const ExpertId> wanted) {
    LeaseStream stream = store_->acquire(wanted);
    while (const std::optional<ExpertLease> lease = stream.next()) {
      ASSERT_TRUE(source_->is_record(lease->id(), lease->record()));
    }
  }
  /// Four experts of a layer, begin, begin + 1, …
  std::vector<ExpertId> four(int layer, int begin) const {
    std::vector<ExpertId> ids;
    for (int i = 0; i < 4; ++i) ids.push_back(source_->id(layer, (begin + i) % kExperts));
    return ids;
  }
  template <typename Condition>
  void wait_until(Condition condition) {
    while (!condition()) std::this_thread::yield();
  }

  testing::TempDir dir_;
  const std::shared_ptr<MemorySource> source_ =
      std::make_shared<MemorySource>(MemoryShape{.layers = 2, .experts_per_layer = kExperts}, dir_.path());
  const std::shared_ptr<FakePressure> pressure_ = std::make_shared<FakePressure>();
  std::vector<std::string> lines_;
  FaultyReader* reader_ = nullptr;
  std::unique_ptr<ExpertStore> store_;
};

TEST(StoreWithoutRecords, HasNothingToGiveBack) {
  // As a dense model in RAM has it: one that watched divided by the size of its slots, which is 0.
  class NoRecords final : public ExpertRecordSource {
   public:
    const std::vector<std::filesystem::path>& files() const override { return files_; }
    std::span<const ExpertId> experts() const override { return {}; }
    uint64_t max_record_bytes() const override { return 0; }
    uint64_t record_bytes(ExpertId) const override { return 0; }
    std::vector<Extent> extents(ExpertId) const override { return {}; }
    bool reads_in_place() const override { return true; }
    void finish(ExpertId, std::span<const std::byte>, std::span<std::byte>) const override {}

   private:
    std::vector<std::filesystem::path> files_;
  };
  const auto pressure = std::make_shared<FakePressure>();
  ExpertStore store(std::make_shared<NoRecords>(),
                    {.pressure = pressure, .pressure_period = std::chrono::milliseconds(1)}, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(store.slot_count(), 0);
  EXPECT_EQ(pressure->calls_, 0);
}

TEST_F(StoreBackgroundTest, PressureHalvesTheBudgetDuringARun) {
  open(16);
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    if (round == 100) pressure_->ask_half_ = true;
    take(four(round % 2, static_cast<int>(random() % kExperts)));
  }
  wait_until([&] { return store_->slot_count() == 8; });
  EXPECT_EQ(store_->counters().slots_given_back, 8u);
  EXPECT_EQ(store_->budget_bytes(), 8u * 8192);
  for (int round = 0; round < 100; ++round) take(four(round % 2, static_cast<int>(random() % kExperts)));
  take(source_->experts());
}

TEST_F(StoreBackgroundTest, TheBudgetGrowsAgainAsFarAsItWas) {
  open(16);
  take(source_->experts());
  pressure_->spare_bytes_ = 3 * 8192;
  const int calls = pressure_->calls_;
  wait_until([&] { return pressure_->calls_ > calls + 2; });
  EXPECT_EQ(pressure_->spare_bytes_, 3 * 8192u) << "who gave nothing back does not ask";

  pressure_->spare_bytes_ = 0;
  pressure_->ask_half_ = true;
  wait_until([&] { return store_->slot_count() == 8; });
  pressure_->spare_bytes_ = 3 * 8192 + 100;
  wait_until([&] { return store_->slot_count() == 11; });
  take(four(0, 0));
  take(four(1, 0));
  take(four(0, 8));
  const uint64_t misses = store_->counters().misses;
  take(four(0, 8));
  take(four(1, 0));
  EXPECT_EQ(store_->counters().misses, misses) << "eight of eleven";
  pressure_->spare_bytes_ = 100 * 8192;
  wait_until([&] { return store_->slot_count() == 16; });
  EXPECT_EQ(store_->counters().slots_taken_again, 8u);
  EXPECT_EQ(store_->budget_bytes(), 16u * 8192);
  take(source_->experts());
}

TEST_F(StoreBackgroundTest, ShrinkingAndGrowingNeverSpoilsARecord) {
  open(16);
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    // Asked while records come and go; what is taken again is taken again in between.
    pressure_->ask_half_ = true;
    while (pressure_->ask_half_) take(four(round % 2, static_cast<int>(random() % kExperts)));
    pressure_->spare_bytes_ = 4 * 8192;
    while (pressure_->spare_bytes_ > 0) take(four(round % 2, static_cast<int>(random() % kExperts)));
  }
  EXPECT_GE(store_->counters().slots_taken_again, 40u);
}

TEST_F(StoreBackgroundTest, PressureTakesNoLeaseAndLeavesWhatALayerNeeds) {
  open(4);
  {
    LeaseStream stream = store_->acquire(four(0, 0));
    std::vector<ExpertLease> held;
    while (auto lease = stream.next()) held.push_back(std::move(*lease));
    pressure_->ask_half_ = true;
    wait_until([&] { return !pressure_->ask_half_; });
    const int calls = pressure_->calls_;
    wait_until([&] { return pressure_->calls_ > calls + 2; });
    EXPECT_EQ(store_->slot_count(), 4) << "all are in use";
    for (const ExpertLease& lease : held) EXPECT_TRUE(source_->is_record(lease.id(), lease.record()));
  }
  wait_until([&] { return store_->slot_count() == 2; });
  for (int i = 0; i < 3; ++i) {
    pressure_->ask_half_ = true;
    wait_until([&] { return !pressure_->ask_half_; });
  }
  const int calls = pressure_->calls_;
  wait_until([&] { return pressure_->calls_ > calls + 2; });
  EXPECT_EQ(store_->slot_count(), 2) << "as many as min_slots";
  take(four(1, 0));
}

TEST_F(StoreBackgroundTest, TheHotSetOfTheLastRunIsThereAtTheNext) {
  const StoreOptions options{.hot_set_file = dir_ / "hot"};
  open(8, options);
  for (int i = 0; i < 3; ++i) take(four(0, 4));
  take(four(1, 9));
  store_.reset();
  EXPECT_EQ(load_hot_set(dir_ / "hot", hot_set_key(*source_), {}).size(), 8u);

  open(8, options);
  wait_until([&] { return store_->counters().bytes_read == 8 * 8192u; });
  take(four(0, 4));
  take(four(1, 9));
  const StoreCounters counters = store_->counters();
  EXPECT_EQ(counters.warm_reads, 8u);
  EXPECT_LE(counters.misses, 2u) << "two are read at a time, and the last two may still be on their way";
  EXPECT_EQ(counters.bytes_read, 8 * 8192u);
  EXPECT_TRUE(lines_.empty());
}

TEST_F(StoreBackgroundTest, TheWarmStartStandsBehindWhatIsWantedNow) {
  const StoreOptions options{.hot_set_file = dir_ / "hot"};
  save_hot_set(dir_ / "hot", hot_set_key(*source_), four(0, 0));
  open(4, options, {{.kind = Fault::Kind::kDelay, .file = 0}});
  take(four(1, 0));  // of file 1, which is not delayed
  EXPECT_LE(store_->counters().warm_reads, 2u) << "two are under way, the others find no empty slot";
  reader_->let_go();
  take(four(0, 0));
}

TEST_F(StoreBackgroundTest, AForeignOrDamagedHotSetIsIgnoredInALine) {
  save_hot_set(dir_ / "hot", 12345, four(0, 0));
  open(8, {.hot_set_file = dir_ / "hot"});
  EXPECT_EQ(lines_.size(), 1u);
  take(four(0, 0));
  EXPECT_EQ(store_->counters().warm_reads, 0u);
}

TEST_F(StoreBackgroundTest, AHotSetThatCannotBeSavedIsALine) {
  open(8, {.hot_set_file = "/dev/null/nowhere/hot"});
  take(four(0, 0));
  store_.reset();
  EXPECT_EQ(lines_.size(), 1u);
}

TEST_F(StoreBackgroundTest, CountsHowGoodHintsWere) {
  open(24);
  store_->hint(four(0, 0));
  wait_until([&] { return store_->counters().prefetches == 4; });
  take(four(0, 2));  // 2 and 3 were hinted, 4 and 5 were not
  const StoreCounters counters = store_->counters();
  EXPECT_EQ(counters.hinted, 4u);
  EXPECT_EQ(counters.wanted_with_hint, 4u);
  EXPECT_EQ(counters.hinted_wanted, 2u);
  EXPECT_EQ(counters.useful_prefetches, 2u);
  EXPECT_EQ(counters.bytes_wasted, 0u) << "nothing was evicted yet";
  EXPECT_EQ(counters.bytes_missed, 4 * 8192u) << "two read for the hint, two on demand, and not the other two hints";
  take(source_->experts());
  EXPECT_EQ(store_->counters().hinted, 4u) << "a scan wants everything: that says nothing about hints";
}

TEST_F(StoreBackgroundTest, CountsBytesReadForNothing) {
  open(8);
  store_->hint(four(0, 0));
  wait_until([&] { return store_->counters().bytes_prefetched == 4 * 8192u; });
  for (int begin = 0; begin < kExperts; begin += 4) take(four(1, begin));
  for (int begin = 0; begin < kExperts; begin += 4) take(four(1, begin));
  EXPECT_EQ(store_->counters().bytes_wasted, 4 * 8192u);
}

TEST_F(StoreBackgroundTest, ASaturatedDriveEndsThePredictionForAWhile) {
  // A drive that never answers for layer 0, with two large records awaited: it has no time for any hint.
  const auto large =
      std::make_shared<MemorySource>(MemoryShape{.layers = 2, .experts_per_layer = 4, .record_bytes = 9u << 20});
  auto reader = std::make_unique<FaultyReader>(std::make_unique<MemoryReader>(large->contents()),
                                               std::vector<Fault>{{.kind = Fault::Kind::kDelay, .file = 0}});
  FaultyReader& drive = *reader;
  ExpertStore store(large, {.budget_bytes = 6 * (9u << 20)}, 2, std::move(reader));
  {
    LeaseStream awaited = store.acquire(std::vector{large->id(0, 0), large->id(0, 1)});
    int wanted = 0;
    for (int step = 0; step < 40; ++step) {
      if (store.wants_hints()) ++wanted;
      store.hint(std::vector{large->id(1, step % 4)});
    }
    EXPECT_EQ(store.counters().prefetches, 0u);
    EXPECT_LT(wanted, 40);
    int probes = 0;
    for (int step = 0; step < 160; ++step) probes += store.wants_hints() ? 1 : 0;
    EXPECT_EQ(probes, 10) << "now and again it is asked whether it has time";
    drive.let_go();
    while (awaited.next()) {
    }
  }
  store.hint(std::vector{large->id(1, 0)});
  while (store.counters().prefetches == 0) std::this_thread::yield();
  store.hint(std::vector{large->id(1, 1)});
  EXPECT_TRUE(store.wants_hints());
  EXPECT_TRUE(store.wants_hints());
}

/// One layer of records of six requests each, of which the reader is given two while nobody waits, and a drive that
/// holds back what is read of expert 0 in them.
class LargeHints : public ::testing::Test {
 protected:
  static constexpr uint64_t kRecordBytes = 6 * kRequestBytes;

  LargeHints() {
    auto reader = std::make_unique<FaultyReader>(
        std::make_unique<MemoryReader>(source_->contents()),
        std::vector<Fault>{{.kind = Fault::Kind::kDelay, .file = 0, .begin = 0, .end = 4 * kRequestBytes}});
    drive_ = reader.get();
    store_ =
        std::make_unique<ExpertStore>(source_, StoreOptions{.budget_bytes = 4 * kRecordBytes}, 2, std::move(reader));
    store_->hint(std::vector{source_->id(0, 0), source_->id(0, 1)});
    wait_until([&] { return store_->counters().prefetches == 1; });
  }
  template <typename Condition>
  void wait_until(Condition condition) {
    while (!condition()) std::this_thread::yield();
  }
  void expect_delivered(LeaseStream& stream, ExpertId id) const {
    const std::optional<ExpertLease> lease = stream.next();
    ASSERT_TRUE(lease);
    EXPECT_EQ(lease->id(), id);
    EXPECT_TRUE(source_->is_record(id, lease->record()));
  }

  const std::shared_ptr<MemorySource> source_ =
      std::make_shared<MemorySource>(MemoryShape{.layers = 1, .experts_per_layer = 5, .record_bytes = kRecordBytes});
  FaultyReader* drive_ = nullptr;
  std::unique_ptr<ExpertStore> store_;
};

TEST_F(LargeHints, WaitForRoom) {
  EXPECT_EQ(store_->counters().bytes_read, 0u) << "of the record that was begun";
  EXPECT_EQ(store_->counters().prefetches, 1u) << "the other hint waits, too";
  drive_->let_go();
  wait_until([&] { return store_->counters().bytes_prefetched == 2 * kRecordBytes; });
}

TEST_F(LargeHints, AreReadAtOnceWhenTheyAreWanted) {
  LeaseStream stream = store_->acquire(std::vector{source_->id(0, 0)});
  wait_until([&] { return store_->counters().bytes_read == 2 * kRequestBytes; });
  drive_->let_go();
  expect_delivered(stream, source_->id(0, 0));
  EXPECT_EQ(store_->counters().bytes_wasted, 0u);
}

TEST_F(LargeHints, AreReadNoFurtherWhenTheyAreNotWanted) {
  {
    LeaseStream stream = store_->acquire(std::vector{source_->id(0, 3)});
    expect_delivered(stream, source_->id(0, 3));
  }
  store_->hint({});
  drive_->let_go();
  wait_until([&] { return store_->counters().bytes_wasted > 0; });
  EXPECT_EQ(store_->counters().bytes_wasted, 2 * kRequestBytes) << "what had been handed out";
  EXPECT_EQ(store_->counters().bytes_read, 2 * kRequestBytes + kRecordBytes);
  LeaseStream stream = store_->acquire(std::vector{source_->id(0, 0)});
  expect_delivered(stream, source_->id(0, 0));
  EXPECT_EQ(store_->counters().misses, 2u);
}

TEST_F(LargeHints, AreReadNoFurtherWhenABetterGuessOfTheirLayerNamesOthers) {
  store_->hint(std::vector{source_->id(0, 2)});
  drive_->let_go();
  wait_until([&] { return store_->counters().bytes_read == 2 * kRequestBytes + kRecordBytes; });
  EXPECT_EQ(store_->counters().bytes_wasted, 2 * kRequestBytes) << "of 0; 2 is read to its end";
  LeaseStream stream = store_->acquire(std::vector{source_->id(0, 2)});
  expect_delivered(stream, source_->id(0, 2));
  EXPECT_EQ(store_->counters().misses, 0u);
}

TEST_F(LargeHints, MayBeWantedAfterAll) {
  LeaseStream other = store_->acquire(std::vector{source_->id(0, 3)});
  LeaseStream stream = store_->acquire(std::vector{source_->id(0, 0)});
  drive_->let_go();
  expect_delivered(other, source_->id(0, 3));
  expect_delivered(stream, source_->id(0, 0));
  EXPECT_EQ(store_->counters().bytes_wasted, 0u);
}

}  // namespace
}  // namespace moraine::offload
