#include "offload/expert_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "quant/error.h"
#include "support/faulty_reader.h"
#include "support/memory_source.h"

namespace moraine::offload {
namespace {

using testing::Fault;
using testing::FaultyReader;
using testing::MemoryReader;
using testing::MemoryShape;
using testing::MemorySource;

/// A store over a made-up model that is served from memory; `reader()` delays what `faults` say.
class ExpertStoreTest : public ::testing::Test {
 protected:
  void open(int slots, const MemoryShape& shape = {}, std::vector<Fault> faults = {}, StoreOptions options = {}) {
    source_ = std::make_shared<MemorySource>(shape);
    options.budget_bytes = static_cast<uint64_t>(slots) * shape.record_bytes;
    auto reader =
        std::make_unique<FaultyReader>(std::make_unique<MemoryReader>(source_->contents()), std::move(faults));
    reader_ = reader.get();
    store_ = std::make_unique<ExpertStore>(source_, options, 1, std::move(reader));
  }

  std::vector<ExpertId> layer(int from_first, int count) const {
    std::vector<ExpertId> ids;
    for (int expert = 0; expert < count; ++expert) ids.push_back(source_->id(from_first, expert));
    return ids;
  }

  /// Takes everything, each lease dropped before the next; returns the order of delivery.
  std::vector<ExpertId> take_all(std::span<const ExpertId> wanted) {
    std::vector<ExpertId> order;
    LeaseStream stream = store_->acquire(wanted);
    while (const std::optional<ExpertLease> lease = stream.next()) {
      EXPECT_TRUE(source_->is_record(lease->id(), lease->record())) << lease->id().expert;
      order.push_back(lease->id());
    }
    return order;
  }

  /// Waits until the counter that `read` picks is at least `value`.
  template <typename Read>
  void wait_until(Read read, uint64_t value) {
    while (read(store_->counters()) < value) std::this_thread::yield();
  }

  std::shared_ptr<MemorySource> source_;
  FaultyReader* reader_ = nullptr;
  std::unique_ptr<ExpertStore> store_;
};

TEST_F(ExpertStoreTest, EveryBudgetServesEveryRequest) {
  for (const bool in_place : {true, false}) {
    for (const int slots : {1, 2, 7, 32, 100}) {
      open(slots, {.layers = 1, .experts_per_layer = 32, .in_place = in_place});
      EXPECT_EQ(store_->slot_count(), std::min(slots, 32));
      std::vector<ExpertId> order = take_all(source_->experts());
      std::sort(order.begin(), order.end());
      EXPECT_EQ(order, layer(0, 32));
      EXPECT_EQ(store_->counters().misses, 32u);
      EXPECT_EQ(store_->counters().evictions, static_cast<uint64_t>(32 - std::min(slots, 32)));
    }
  }
}

TEST_F(ExpertStoreTest, WithRoomForAllNothingIsReadTwice) {
  open(16);
  take_all(source_->experts());
  const uint64_t bytes_read = store_->counters().bytes_read;
  EXPECT_EQ(bytes_read, 16 * 8192u);
  take_all(source_->experts());
  const StoreCounters counters = store_->counters();
  EXPECT_EQ(counters.bytes_read, bytes_read);
  EXPECT_EQ(counters.hits, 16u);
  EXPECT_EQ(counters.misses, 16u);
  EXPECT_EQ(counters.evictions, 0u);
}

TEST_F(ExpertStoreTest, WhatIsInRamComesFirst) {
  open(8, {}, {{.kind = Fault::Kind::kDelay, .file = 1}});
  take_all(layer(0, 2));
  const std::vector<ExpertId> wanted = {source_->id(1, 0), source_->id(0, 1), source_->id(1, 1), source_->id(0, 0)};
  LeaseStream stream = store_->acquire(wanted);
  EXPECT_TRUE(stream.ready());
  EXPECT_EQ(stream.next()->id(), wanted[1]);
  EXPECT_EQ(stream.next()->id(), wanted[3]);
  EXPECT_FALSE(stream.ready()) << "the others' reads are held back";
  reader_->let_go();
  EXPECT_EQ(stream.next()->id().layer, wanted[0].layer);
  EXPECT_TRUE(stream.next());
  EXPECT_FALSE(stream.next());
  EXPECT_TRUE(stream.ready());
}

TEST_F(ExpertStoreTest, AllMissesThatFitAreIssuedAtOnce) {
  open(4, {}, {{.kind = Fault::Kind::kDelay, .file = 0}});
  {
    LeaseStream stream = store_->acquire(layer(0, 6));
    reader_->let_go();
    std::vector<ExpertLease> held;
    for (int i = 0; i < 4; ++i) held.push_back(*stream.next());
    EXPECT_FALSE(stream.ready()) << "all four slots are held";
    EXPECT_EQ(store_->counters().bytes_read, 4 * 8192u);
    held.pop_back();
    EXPECT_TRUE(stream.next());
  }
}

TEST_F(ExpertStoreTest, ALeaseKeepsItsRecord) {
  open(2);
  std::optional<ExpertLease> kept = store_->acquire(layer(0, 1)).next();
  take_all(layer(1, 8));
  EXPECT_TRUE(source_->is_record(kept->id(), kept->record()));
  ExpertLease moved = std::move(*kept);
  EXPECT_FALSE(*kept);
  kept.reset();
  take_all(layer(1, 8));
  EXPECT_TRUE(source_->is_record(source_->id(0, 0), moved.record()));
}

TEST_F(ExpertStoreTest, AnotherThreadMayDropTheLeaseThatANextWaitsFor) {
  open(1);
  LeaseStream stream = store_->acquire(layer(0, 3));
  for (int i = 0; i < 3; ++i) {
    std::optional<ExpertLease> lease = stream.next();
    ASSERT_TRUE(lease);
    std::thread([taken = std::move(*lease)] {}).detach();
  }
  EXPECT_FALSE(stream.next());
  // The last lease's thread may still run; the store must outlive it.
  while (store_->acquire(layer(1, 1)).next() == std::nullopt) std::this_thread::yield();
}

TEST_F(ExpertStoreTest, DroppingAStreamCancelsWhatHasNotBegun) {
  open(1, {}, {{.kind = Fault::Kind::kDelay, .file = 0}});
  { const LeaseStream stream = store_->acquire(layer(0, 8)); }
  reader_->let_go();
  take_all(layer(1, 1));
  EXPECT_LE(store_->counters().bytes_read, 2 * 8192u) << "at most the one that had begun";
}

TEST_F(ExpertStoreTest, StreamsOfSeveralThreadsShareTheStore) {
  open(3, {.layers = 3, .experts_per_layer = 16, .in_place = false});
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([this, number] {
      for (int round = 0; round < 20; ++round) {
        store_->hint(layer((number + round + 1) % 3, 5));
        EXPECT_EQ(take_all(layer((number + round) % 3, 11)).size(), 11u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const StoreCounters counters = store_->counters();
  EXPECT_EQ(counters.hits + counters.misses + counters.late_prefetches, 4u * 20 * 11);
}

TEST_F(ExpertStoreTest, AHintIsAHitLater) {
  open(16);
  store_->hint(layer(1, 3));
  wait_until([](const StoreCounters& counters) { return counters.bytes_prefetched; }, 3 * 8192);
  // The bytes are there; when the record is made is up to the finish threads, so it may count as late.
  take_all(layer(1, 2));
  const StoreCounters counters = store_->counters();
  EXPECT_EQ(counters.prefetches, 3u);
  EXPECT_EQ(counters.useful_prefetches, 2u);
  EXPECT_EQ(counters.misses, 0u);
  EXPECT_EQ(counters.hits + counters.late_prefetches, 2u);
  EXPECT_EQ(counters.bytes_read, 3 * 8192u);
}

TEST_F(ExpertStoreTest, AWantedHintThatIsUnderWayIsLate) {
  open(16, {}, {{.kind = Fault::Kind::kDelay, .file = 1}});
  store_->hint(layer(1, 1));
  wait_until([](const StoreCounters& counters) { return counters.prefetches; }, 1);
  LeaseStream stream = store_->acquire(layer(1, 1));
  reader_->let_go();
  EXPECT_TRUE(stream.next());
  const StoreCounters counters = store_->counters();
  EXPECT_EQ(counters.late_prefetches, 1u);
  EXPECT_EQ(counters.useful_prefetches, 1u);
  EXPECT_EQ(counters.misses, 0u);
  EXPECT_EQ(counters.bytes_read, 8192u) << "it is not read a second time";
}

TEST_F(ExpertStoreTest, HintsWaitForWhoWaitsForASlot) {
  open(4);
  LeaseStream stream = store_->acquire(layer(0, 4));
  std::vector<ExpertLease> held;
  while (std::optional<ExpertLease> lease = stream.next()) held.push_back(std::move(*lease));
  LeaseStream waiting = store_->acquire(std::vector<ExpertId>{source_->id(1, 7)});
  store_->hint(layer(1, 2));
  store_->hint(layer(1, 1));
  EXPECT_EQ(store_->counters().prefetches, 0u);
  EXPECT_EQ(store_->counters().dropped_hints, 2u) << "stale before they began";
  held.clear();
  EXPECT_TRUE(waiting.next());
  wait_until([](const StoreCounters& counters) { return counters.prefetches; }, 1);
}

TEST_F(ExpertStoreTest, TheSmallestBudgetPrefetchesNothing) {
  open(1);
  store_->hint(layer(1, 4));
  take_all(layer(0, 4));
  EXPECT_EQ(store_->counters().prefetches, 0u);
}

TEST_F(ExpertStoreTest, PrefetchingCanBeTurnedOff) {
  open(16, {}, {}, {.prefetch = false});
  store_->hint(layer(1, 4));
  take_all(layer(0, 4));
  EXPECT_EQ(store_->counters().prefetches, 0u);
  EXPECT_EQ(store_->counters().dropped_hints, 4u);
}

TEST_F(ExpertStoreTest, WantsNoHintsOnceEverythingIsInRam) {
  const MemorySource source(MemoryShape{});
  const auto all = static_cast<int>(source.experts().size());
  open(all);
  EXPECT_TRUE(store_->wants_hints());
  take_all(std::vector<ExpertId>(source.experts().begin(), source.experts().end()));
  EXPECT_FALSE(store_->wants_hints());
  open(all - 1);
  take_all(std::vector<ExpertId>(source.experts().begin(), source.experts().end()));
  EXPECT_TRUE(store_->wants_hints()) << "one slot short: there is always something to guess";
  open(all, {}, {}, {.prefetch = false});
  EXPECT_FALSE(store_->wants_hints());
}

TEST_F(ExpertStoreTest, CountersAreCountedFromAnyReading) {
  open(8);
  take_all(layer(0, 4));
  const StoreCounters before = store_->counters();
  take_all(layer(0, 6));
  const StoreCounters added = store_->counters() - before;
  EXPECT_EQ(added.hits, 4u);
  EXPECT_EQ(added.misses, 2u);
  EXPECT_EQ(added.bytes_read, store_->counters().bytes_read - before.bytes_read);
}

TEST_F(ExpertStoreTest, RefusesABudgetBelowTheMinimum) {
  source_ = std::make_shared<MemorySource>(MemoryShape{});
  try {
    ExpertStore(source_, {.budget_bytes = 4 * 8192 - 1}, 4, std::make_unique<MemoryReader>(source_->contents()));
    FAIL() << "accepted";
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kNotEnough);
    EXPECT_NE(std::string(error.what()).find("32768"), std::string::npos) << error.what();
  }
}

TEST_F(ExpertStoreTest, ReportsWhatItTook) {
  open(5);
  EXPECT_EQ(store_->budget_bytes(), 5 * 8192u);
  EXPECT_STREQ(store_->reader_name(), "memory");
  EXPECT_EQ(&store_->source(), source_.get());
  std::set<std::string> names;
  store_->counters().visit([&names](const char* name, uint64_t) { names.insert(name); });
  EXPECT_EQ(names.size(), 20u);
}

TEST_F(ExpertStoreTest, GoesWithReadsInFlight) {
  open(8, {}, {{.kind = Fault::Kind::kDelay, .file = 0}});
  { const LeaseStream stream = store_->acquire(layer(0, 8)); }
  reader_->let_go();
  store_.reset();
}

TEST_F(ExpertStoreTest, AnEmptyRequestIsOverAtOnce) {
  open(2);
  LeaseStream stream = store_->acquire({});
  EXPECT_TRUE(stream.ready());
  EXPECT_FALSE(stream.next());
}

using ExpertStoreDeathTest = ExpertStoreTest;

TEST_F(ExpertStoreDeathTest, WaitingForALeaseThatTheCallerHoldsFailsACheck) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH(
      {
        open(1, {}, {}, {.stuck_after = std::chrono::milliseconds(200)});
        LeaseStream stream = store_->acquire(layer(0, 2));
        const std::optional<ExpertLease> held = stream.next();
        stream.next();
      },
      "next_waits_for_leases_that_nobody_drops");
}

}  // namespace
}  // namespace moraine::offload
