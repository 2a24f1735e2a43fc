// What the store does when the drive lies or fails, with both real readers on real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "offload/expert_store.h"
#include "offload/open_reader.h"
#include "offload/pread_reader.h"
#include "offload/uring_reader.h"
#include "support/faulty_reader.h"
#include "support/memory_source.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using testing::Fault;
using testing::FaultyReader;
using ::testing::HasSubstr;
using testing::MemoryShape;
using testing::MemorySource;

struct Case {
  ReaderKind reader;
  bool in_place;
};

class StoreFaultsTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (GetParam().reader == ReaderKind::kUring && UringReader::refusal() != 0) {
      GTEST_SKIP() << "io_uring is refused here: " << std::strerror(UringReader::refusal());
    }
    source_ = std::make_shared<MemorySource>(
        MemoryShape{.layers = 2, .experts_per_layer = 6, .record_bytes = 20480, .in_place = GetParam().in_place},
        dir_.path());
  }

  /// A fault of the first extent of expert 2 in the first layer.
  Fault fault(Fault::Kind kind, int times) const {
    const Extent extent = source_->extents(bad())[0];
    return {.kind = kind, .file = extent.file, .begin = extent.offset, .end = extent.offset + 1, .times = times};
  }
  ExpertId bad() const { return source_->id(0, 2); }

  void open(std::vector<Fault> faults, int slots = 3) {
    store_ = std::make_unique<ExpertStore>(
        source_, StoreOptions{.budget_bytes = static_cast<uint64_t>(slots) * 20480}, 1,
        std::make_unique<FaultyReader>(open_reader(GetParam().reader, source_->files(), {}), std::move(faults)));
  }

  struct Outcome {
    int delivered = 0;
    std::vector<std::string> errors;
    std::vector<quant::ErrorKind> kinds;
  };
  Outcome take(std::span<const ExpertId> wanted) {
    Outcome outcome;
    LeaseStream stream = store_->acquire(wanted);
    while (true) {
      try {
        const std::optional<ExpertLease> lease = stream.next();
        if (!lease) return outcome;
        EXPECT_TRUE(source_->is_record(lease->id(), lease->record())) << lease->id().expert;
        ++outcome.delivered;
      } catch (const quant::Error& error) {
        outcome.errors.push_back(error.what());
        outcome.kinds.push_back(error.kind());
      }
    }
  }

  testing::TempDir dir_;
  std::shared_ptr<MemorySource> source_;
  std::unique_ptr<ExpertStore> store_;
};

TEST_P(StoreFaultsTest, WithoutFaultsAllIsRight) {
  for (const int slots : {1, 5, 12}) {
    open({}, slots);
    const Outcome outcome = take(source_->experts());
    EXPECT_EQ(outcome.delivered, 12);
    EXPECT_EQ(store_->counters().rereads, 0u);
  }
}

TEST_P(StoreFaultsTest, OneWrongBitIsReadAgain) {
  open({fault(Fault::Kind::kBitFlip, 1)});
  const Outcome outcome = take(source_->experts());
  EXPECT_EQ(outcome.delivered, 12);
  EXPECT_TRUE(outcome.errors.empty());
  EXPECT_EQ(store_->counters().rereads, 1u);
}

TEST_P(StoreFaultsTest, AWrongBitThatStaysIsAnErrorThatNamesTheExpert) {
  open({fault(Fault::Kind::kBitFlip, 2)});
  const Outcome outcome = take(source_->experts());
  EXPECT_EQ(outcome.delivered, 11) << "the others arrive";
  ASSERT_EQ(outcome.errors.size(), 1u);
  EXPECT_EQ(outcome.kinds[0], quant::ErrorKind::kChecksum);
  EXPECT_THAT(outcome.errors[0], HasSubstr("layer 3 expert 2"));
  EXPECT_EQ(store_->counters().rereads, 1u);
  // The store lives on, and tries the expert anew: the third read is good.
  EXPECT_EQ(take(std::vector{bad()}).delivered, 1);
}

TEST_P(StoreFaultsTest, BytesThatNeverArriveAreFoundByTheChecksum) {
  open({fault(Fault::Kind::kShortRead, -1)});
  const Outcome outcome = take(source_->experts());
  EXPECT_EQ(outcome.delivered, 11);
  ASSERT_EQ(outcome.kinds.size(), 1u);
  EXPECT_EQ(outcome.kinds[0], quant::ErrorKind::kChecksum);
}

TEST_P(StoreFaultsTest, AnIoErrorIsReadAgainOnce) {
  open({fault(Fault::Kind::kIoError, 1)});
  EXPECT_EQ(take(source_->experts()).delivered, 12);
  EXPECT_EQ(store_->counters().rereads, 1u);
}

TEST_P(StoreFaultsTest, AnIoErrorThatStaysIsDelivered) {
  open({fault(Fault::Kind::kIoError, -1)});
  for (int round = 0; round < 3; ++round) {
    const Outcome outcome = take(source_->experts());
    EXPECT_EQ(outcome.delivered, 11);
    ASSERT_EQ(outcome.errors.size(), 1u);
    EXPECT_EQ(outcome.kinds[0], quant::ErrorKind::kIo);
    EXPECT_THAT(outcome.errors[0], HasSubstr("layer 3 expert 2"));
  }
  EXPECT_EQ(store_->counters().rereads, 3u);
}

TEST_P(StoreFaultsTest, AFailedPrefetchHurtsNobody) {
  open({fault(Fault::Kind::kIoError, 1)}, 12);
  store_->hint(std::vector{bad()});
  while (store_->counters().prefetches == 0) std::this_thread::yield();
  // Late or anew: both ways the expert is delivered.
  EXPECT_EQ(take(std::vector{bad()}).delivered, 1);
  EXPECT_LE(store_->counters().rereads, 1u);
}

TEST_P(StoreFaultsTest, ATruncatedFileIsNamed) {
  const Extent last = source_->extents(source_->experts().back()).back();
  const std::filesystem::path file = source_->files()[static_cast<size_t>(last.file)];
  open({});
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 5000);
  const Outcome outcome = take(std::vector{source_->experts().back(), source_->id(0, 0)});
  EXPECT_EQ(outcome.delivered, 1);
  ASSERT_EQ(outcome.errors.size(), 1u);
  EXPECT_EQ(outcome.kinds[0], quant::ErrorKind::kBadFile);
  EXPECT_THAT(outcome.errors[0], HasSubstr("layer 4 expert 5"));
  EXPECT_THAT(outcome.errors[0], HasSubstr(file.string()));
}

TEST_P(StoreFaultsTest, ABrokenReaderFailsRequestsAndHangsNone) {
  open({fault(Fault::Kind::kBroken, -1)}, 12);
  EXPECT_EQ(take(std::vector{source_->id(0, 0)}).delivered, 1);
  EXPECT_EQ(take(source_->experts()).errors.size(), 11u);
  const Outcome outcome = take(source_->experts());
  EXPECT_EQ(outcome.delivered, 1) << "what is in RAM is still served";
  EXPECT_EQ(outcome.errors.size(), 11u);
}

TEST_P(StoreFaultsTest, AFileReplacedDuringARunIsTheOldOneStill) {
  open({});
  const std::filesystem::path file = source_->files()[0];
  const std::string other(std::filesystem::file_size(file), 'x');
  std::filesystem::rename(dir_.write("new", other), file);
  EXPECT_EQ(take(source_->experts()).delivered, 12);
}

TEST_P(StoreFaultsTest, AFileOverwrittenDuringARunNeverBecomesARecord) {
  open({});
  const Extent extent = source_->extents(bad())[0];
  std::fstream file(source_->files()[static_cast<size_t>(extent.file)],
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(extent.offset)).write("overwritten", 11).flush();
  const Outcome outcome = take(source_->experts());
  EXPECT_EQ(outcome.delivered, 11);
  ASSERT_EQ(outcome.kinds.size(), 1u);
  EXPECT_EQ(outcome.kinds[0], quant::ErrorKind::kChecksum);
}

TEST_P(StoreFaultsTest, ADriveAHundredTimesAsSlowIsOnlySlow) {
  store_ = std::make_unique<ExpertStore>(
      source_, StoreOptions{.budget_bytes = 3 * 20480, .stuck_after = std::chrono::milliseconds(20)}, 1,
      std::make_unique<testing::DelayingReader>(open_reader(GetParam().reader, source_->files(), {}),
                                                std::chrono::milliseconds(30)));
  const Outcome outcome = take(source_->experts());
  EXPECT_EQ(outcome.delivered, 12);
  EXPECT_TRUE(outcome.errors.empty());
}

/// Sets a limit of this process for as long as it lives.
class TightLimit {
 public:
  TightLimit(__rlimit_resource resource, rlim_t value) : resource_(resource) {
    ::getrlimit(resource, &before_);
    const struct rlimit tight = {.rlim_cur = std::min(value, before_.rlim_cur), .rlim_max = before_.rlim_max};
    ::setrlimit(resource, &tight);
  }
  ~TightLimit() { ::setrlimit(resource_, &before_); }

 private:
  __rlimit_resource resource_;
  struct rlimit before_ = {};
};

TEST_P(StoreFaultsTest, LittleLockableMemoryAndFewFilesAreEnough) {
  const TightLimit memlock(RLIMIT_MEMLOCK, 64 << 10);
  const TightLimit files(RLIMIT_NOFILE, 64);
  try {
    open({});
  } catch (const quant::Error& error) {
    // Kernels before 5.12 charge the ring itself; then the person is told what to do.
    EXPECT_THAT(error.what(), HasSubstr("ulimit -l"));
    return;
  }
  EXPECT_EQ(take(source_->experts()).delivered, 12);
}

/// Records of three reads each, whose checksum is added up while they arrive.
class LargeRecords : public ::testing::Test {
 protected:
  static constexpr uint64_t kRecordBytes = 9u << 20;
  static constexpr uint64_t kReadBytes = 4u << 20;

  ExpertStore& open(std::vector<Fault> faults) {
    auto reader =
        std::make_unique<FaultyReader>(std::make_unique<testing::MemoryReader>(source_->contents()), std::move(faults));
    reader_ = reader.get();
    store_ =
        std::make_unique<ExpertStore>(source_, StoreOptions{.budget_bytes = 4 * kRecordBytes}, 2, std::move(reader));
    return *store_;
  }
  /// Of read `read` of expert 1.
  static Fault fault(Fault::Kind kind, uint64_t read, int times) {
    const uint64_t begin = kRecordBytes + read * kReadBytes;
    return {.kind = kind, .file = 0, .begin = begin, .end = begin + 1, .times = times};
  }
  void expect_all_right(ExpertStore& store) const {
    LeaseStream stream = store.acquire(source_->experts());
    int count = 0;
    for (; const std::optional<ExpertLease> lease = stream.next(); ++count) {
      EXPECT_TRUE(source_->is_record(lease->id(), lease->record()));
    }
    EXPECT_EQ(count, 3);
  }

  const std::shared_ptr<MemorySource> source_ =
      std::make_shared<MemorySource>(MemoryShape{.layers = 1, .experts_per_layer = 3, .record_bytes = kRecordBytes});
  FaultyReader* reader_ = nullptr;
  std::unique_ptr<ExpertStore> store_;
};

TEST_F(LargeRecords, AFaultInAnyReadIsMended) {
  for (const Fault::Kind kind : {Fault::Kind::kBitFlip, Fault::Kind::kShortRead, Fault::Kind::kIoError}) {
    for (uint64_t read = 0; read < 3; ++read) {
      ExpertStore& store = open({fault(kind, read, 1)});
      expect_all_right(store);
      EXPECT_EQ(store.counters().rereads, 1u) << read;
    }
  }
}

TEST_F(LargeRecords, AFaultThatStaysIsAnErrorAndTheOthersAreRight) {
  for (const Fault::Kind kind : {Fault::Kind::kBitFlip, Fault::Kind::kIoError}) {
    ExpertStore& store = open({fault(kind, 2, -1)});
    LeaseStream stream = store.acquire(source_->experts());
    int right = 0, wrong = 0;
    while (right + wrong < 3) {
      try {
        const std::optional<ExpertLease> lease = stream.next();
        ASSERT_TRUE(lease && source_->is_record(lease->id(), lease->record()));
        ++right;
      } catch (const quant::Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("expert 1"));
        ++wrong;
      }
    }
    EXPECT_EQ(wrong, 1);
  }
}

TEST_F(LargeRecords, TheMiddleMayComeLast) {
  ExpertStore& store = open({fault(Fault::Kind::kDelay, 1, -1)});
  LeaseStream stream = store.acquire(source_->experts());
  for (int i = 0; i < 2; ++i) {
    const std::optional<ExpertLease> lease = stream.next();
    ASSERT_TRUE(lease);
    EXPECT_NE(lease->id(), source_->id(0, 1));
  }
  EXPECT_FALSE(stream.ready());
  reader_->let_go();
  const std::optional<ExpertLease> last = stream.next();
  ASSERT_TRUE(last);
  EXPECT_TRUE(source_->is_record(last->id(), last->record()));
}

/// Delivers what its reader has and is broken then.
class BreakingReader : public BlockReader {
 public:
  explicit BreakingReader(std::unique_ptr<BlockReader> inner) : inner_(std::move(inner)) {}
  void submit(std::span<const ReadRequest> requests) override { inner_->submit(requests); }
  void wait(std::vector<ReadCompletion>& completions) override {
    inner_->wait(completions);
    if (!completions.empty()) throw quant::Error(quant::ErrorKind::kIo, {.what = "the reader broke"});
  }
  void wake() override { inner_->wake(); }
  uint64_t alignment_bytes() const override { return inner_->alignment_bytes(); }
  const char* name() const override { return inner_->name(); }

 private:
  const std::unique_ptr<BlockReader> inner_;
};

TEST_F(LargeRecords, WhatABrokenReaderLeftIsNotGoneOnWith) {
  // Of expert 1 the first read is there to be checked and the others have failed; expert 0 is whole. One finish thread
  // takes them in this order.
  Fault others = fault(Fault::Kind::kIoError, 1, -1);
  others.end = 2 * kRecordBytes;
  std::vector<ExpertId> ended;
  store_ = std::make_unique<ExpertStore>(
      source_, StoreOptions{.budget_bytes = 4 * kRecordBytes, .finish_threads = 1}, 2,
      std::make_unique<BreakingReader>(std::make_unique<FaultyReader>(
          std::make_unique<testing::MemoryReader>(source_->contents()), std::vector<Fault>{others})));
  store_->observe([&ended](StoreEvent event, ExpertId id) {
    if (event == StoreEvent::kReadEnded) ended.push_back(id);
  });
  {
    LeaseStream stream = store_->acquire(std::vector{source_->id(0, 1), source_->id(0, 0)});
    EXPECT_THROW((void)stream.next(), quant::Error);
    const std::optional<ExpertLease> whole = stream.next();
    ASSERT_TRUE(whole);
    EXPECT_EQ(whole->id(), source_->id(0, 0));
    EXPECT_TRUE(source_->is_record(whole->id(), whole->record()));
  }
  store_.reset();
  EXPECT_EQ(ended, std::vector{source_->id(0, 0)}) << "the reader may still write into the other's slot";
}

/// Experts that are made of nothing that lies in a file.
class EmptySource : public MemorySource {
 public:
  EmptySource() : MemorySource({.layers = 1, .experts_per_layer = 3, .in_place = false}) {}
  std::vector<Extent> extents(ExpertId) const override { return {{.file = 0}, {.file = 1}}; }
  void finish(ExpertId, std::span<const std::byte> raw, std::span<std::byte> record) const override {
    EXPECT_TRUE(raw.empty());
    std::fill(record.begin(), record.end(), std::byte{7});
  }
};

TEST(StoreEmptyExtents, AreFinishedWithoutARead) {
  const auto source = std::make_shared<EmptySource>();
  ExpertStore store(source, {.budget_bytes = 2 * 8192}, 1, std::make_unique<testing::MemoryReader>(source->contents()));
  LeaseStream stream = store.acquire(source->experts());
  int delivered = 0;
  for (; const std::optional<ExpertLease> lease = stream.next(); ++delivered) {
    EXPECT_EQ(lease->record().front(), std::byte{7});
  }
  EXPECT_EQ(delivered, 3);
  EXPECT_EQ(store.counters().bytes_read, 0u);
}

TEST(StoreStorm, InterruptedAndRefusedReadsAreRepeated) {
  const testing::TempDir dir;
  const auto source = std::make_shared<MemorySource>(MemoryShape{.layers = 1, .experts_per_layer = 8}, dir.path());
  std::atomic<unsigned> calls = 0;
  const auto storm = [&calls](int fd, void* target, size_t size, off_t offset) -> ssize_t {
    const unsigned call = calls++;
    if (call % 8 == 7) return ::pread(fd, target, size, offset);
    errno = call % 2 == 0 ? EINTR : EAGAIN;
    return -1;
  };
  ExpertStore store(source, {.budget_bytes = 4 * 8192}, 1,
                    std::make_unique<PreadReader>(source->files(), PreadLimits{.threads = 1, .scheduler = {}}, storm));
  LeaseStream stream = store.acquire(source->experts());
  int delivered = 0;
  while (const std::optional<ExpertLease> lease = stream.next()) {
    EXPECT_TRUE(source->is_record(lease->id(), lease->record()));
    ++delivered;
  }
  EXPECT_EQ(delivered, 8);
  EXPECT_EQ(store.counters().rereads, 0u);
}

INSTANTIATE_TEST_SUITE_P(Readers, StoreFaultsTest,
                         ::testing::Values(Case{ReaderKind::kUring, true}, Case{ReaderKind::kUring, false},
                                           Case{ReaderKind::kPread, true}, Case{ReaderKind::kPread, false}),
                         [](const auto& tested) {
                           return std::string(tested.param.reader == ReaderKind::kUring ? "Uring" : "Pread") +
                                  (tested.param.in_place ? "Pack" : "Checkpoint");
                         });

}  // namespace
}  // namespace moraine::offload
