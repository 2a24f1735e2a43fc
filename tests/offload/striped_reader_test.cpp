// Several drives behind one reader, in simulated time: what is spread how, and what a failing drive does to it.
#include "offload/striped_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "offload/expert_store.h"
#include "offload/open_reader.h"
#include "quant/aligned_buffer.h"
#include "support/memory_source.h"
#include "support/simulated_drives.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using ::testing::HasSubstr;
using testing::SimulatedDrives;

constexpr uint64_t kFileBytes = 32u << 20;

/// One file of 32 MiB with a copy on every drive.
class StripedReaderTest : public ::testing::Test {
 protected:
  StripedReaderTest() {
    std::mt19937_64 random(1);
    for (size_t i = 0; i < kFileBytes; i += sizeof(uint64_t)) {
      const uint64_t word = random();
      std::memcpy(content_.data() + i, &word, sizeof word);
    }
  }

  void open(std::vector<SimulatedDrives::Drive> drives, int pieces_in_flight = 32) {
    MirroredFiles files;
    files.copies.resize(1);
    std::vector<int> drive_of;
    for (int drive = 0; drive < static_cast<int>(drives.size()); ++drive) {
      files.drives.push_back("drive" + std::to_string(drive));
      files.paths.push_back(files.drives.back() / "file");
      files.copies[0].push_back({drive, drive});
      drive_of.push_back(drive);
    }
    auto inner = std::make_unique<SimulatedDrives>(std::vector<std::string>(drives.size(), content_), drive_of, drives);
    drives_ = inner.get();
    reader_ = std::make_unique<StripedReader>(
        std::move(inner), files, StripeLimits{.pieces_in_flight = pieces_in_flight},
        [this](const std::string& line) { lines_.push_back(line); }, [this] { return drives_->now(); });
  }

  /// Reads the range with one request and returns its end. Checks the bytes if it did not fail.
  ReadCompletion read(uint64_t offset, uint64_t size_bytes, bool again = false) {
    const std::span<std::byte> target = target_.span().first(size_bytes);
    std::fill(target.begin(), target.end(), std::byte{0});
    reader_->submit(std::vector<ReadRequest>{{.tag = 77, .offset = offset, .destination = target, .again = again}});
    std::vector<ReadCompletion> completions;
    while (completions.empty()) reader_->wait(completions);
    EXPECT_EQ(completions.size(), 1u);
    EXPECT_EQ(completions[0].tag, 77u);
    if (!completions[0].failure) {
      EXPECT_EQ(std::memcmp(target.data(), content_.data() + offset, size_bytes), 0);
    }
    return completions[0];
  }

  double share(size_t drive) const {
    uint64_t sum = 0;
    for (const auto& each : drives_->drives) sum += each.bytes;
    return static_cast<double>(drives_->drives[drive].bytes) / static_cast<double>(sum);
  }

  std::string content_ = std::string(kFileBytes, '\0');
  quant::AlignedBuffer target_ = quant::AlignedBuffer(kFileBytes);
  SimulatedDrives* drives_ = nullptr;
  std::unique_ptr<StripedReader> reader_;
  std::vector<std::string> lines_;
};

TEST_F(StripedReaderTest, EqualDrivesShareEqually) {
  open({{}, {}});
  read(0, kFileBytes);
  EXPECT_NEAR(share(0), 0.5, 0.05);
  EXPECT_LT(drives_->now_s(), 1.1 * kFileBytes / 2e9);
  EXPECT_TRUE(lines_.empty());
}

TEST_F(StripedReaderTest, AFasterDriveReadsProportionallyMore) {
  open({{.bytes_per_s = 1e9}, {.bytes_per_s = 3e9}});
  read(0, kFileBytes);  // nothing is measured yet: each gets half
  for (auto& drive : drives_->drives) drive.bytes = 0;
  const double before_s = drives_->now_s();
  for (int i = 0; i < 8; ++i) read(0, kFileBytes);
  EXPECT_NEAR(share(1), 0.75, 0.01);
  // Together they are as fast as both, but for the end of a read: there one waits for the other's last piece.
  constexpr double kLastPieceS = (512 << 10) / 1e9;
  EXPECT_LT(drives_->now_s() - before_s, 8 * (kFileBytes / 4e9 + kLastPieceS));
}

TEST_F(StripedReaderTest, ThreeDrivesAndFewPiecesInFlightToo) {
  open({{.bytes_per_s = 2e9}, {.bytes_per_s = 0.5e9}, {.bytes_per_s = 1e9}}, 4);
  for (int i = 0; i < 8; ++i) read(0, kFileBytes);
  EXPECT_NEAR(share(0), 4.0 / 7, 0.05);
  EXPECT_NEAR(share(1), 1.0 / 7, 0.05);
  for (const auto& drive : drives_->drives) EXPECT_LE(drive.most_in_flight, 4u);
}

TEST_F(StripedReaderTest, ASpeedThatChangesIsNoticed) {
  open({{.bytes_per_s = 1e9}, {.bytes_per_s = 1e9}});
  read(0, kFileBytes);
  drives_->drives[0].bytes_per_s = 1e7;  // a hundredth
  for (int i = 0; i < 4; ++i) read(0, kFileBytes);
  for (auto& drive : drives_->drives) drive.bytes = 0;
  const double before_s = drives_->now_s();
  for (int i = 0; i < 4; ++i) read(0, kFileBytes);
  EXPECT_LT(share(0), 0.02);
  EXPECT_LT(drives_->now_s() - before_s, 1.5 * 4 * kFileBytes / 1e9) << "nobody waits for the slow one";
  // After a second without work it gets a piece again, and with it its share.
  drives_->drives[0].bytes_per_s = 1e9;
  drives_->pause(2.0);
  for (auto& drive : drives_->drives) drive.bytes = 0;
  for (int i = 0; i < 8; ++i) read(0, kFileBytes);
  EXPECT_NEAR(share(0), 0.5, 0.08);
}

TEST_F(StripedReaderTest, ReadsAnyRange) {
  open({{.bytes_per_s = 1e9}, {.bytes_per_s = 2e9}});
  for (const auto& [offset, size] : {std::pair<uint64_t, uint64_t>{1, 3},
                                     {4095, 2},
                                     {123, 2u << 20},
                                     {0, 512u << 10},
                                     {kFileBytes - 700'001, 700'001},
                                     {77, 0}}) {
    const ReadCompletion completion = read(offset, size);
    EXPECT_FALSE(completion.failure);
    EXPECT_EQ(completion.bytes_read, size);
  }
}

TEST_F(StripedReaderTest, WhatOneDriveCannotReadTheOthersDo) {
  open({{}, {.failures = 1}});
  const ReadCompletion completion = read(0, kFileBytes);
  EXPECT_FALSE(completion.failure);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr("warning"));
  EXPECT_THAT(lines_[0], HasSubstr("drive 1 fails"));
  EXPECT_THAT(lines_[0], HasSubstr("drive1"));
  read(0, kFileBytes);
  EXPECT_GT(share(1), 0.4) << "one failure is no reason to leave a drive";
}

TEST_F(StripedReaderTest, ADriveThatKeepsFailingIsLeftAlone) {
  for (const size_t bad : {0u, 1u}) {
    lines_.clear();
    open({{.failures = bad == 0 ? -1 : 0}, {.failures = bad == 1 ? -1 : 0}});
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(read(0, kFileBytes).failure);
    ASSERT_EQ(lines_.size(), 2u) << "the first failure and the last, not one line for each";
    EXPECT_THAT(lines_[1], HasSubstr("left alone"));
    const uint64_t asked = drives_->drives[bad].bytes;
    drives_->pause(5.0);
    EXPECT_FALSE(read(0, kFileBytes).failure);
    EXPECT_EQ(drives_->drives[bad].bytes, asked);
  }
}

TEST_F(StripedReaderTest, WhatNoDriveCanReadIsAFailure) {
  open({{.failures = -1}, {.failures = -1}});
  for (int i = 0; i < 3; ++i) {
    const ReadCompletion completion = read(0, kFileBytes);
    ASSERT_TRUE(completion.failure);
    EXPECT_EQ(completion.failure->kind, quant::ErrorKind::kIo);
    EXPECT_THAT(completion.failure->detail.what, HasSubstr("fails"));
  }
  for (auto& drive : drives_->drives) drive.failures = 0;
  EXPECT_FALSE(read(0, kFileBytes).failure) << "the reader lives on";
}

TEST_F(StripedReaderTest, BytesThatCameWrongComeFromTheModelsOwnDrive) {
  open({{.bytes_per_s = 1e8}, {.bytes_per_s = 1e10, .lies = true}});
  EXPECT_FALSE(read(0, 8u << 20, true).failure);
  EXPECT_EQ(drives_->drives[1].bytes, 0u);
}

TEST_F(StripedReaderTest, AWakeUpIsNeverLost) {
  open({{}, {}});
  std::vector<ReadCompletion> completions;
  reader_->wake();
  reader_->wait(completions);
  EXPECT_TRUE(completions.empty());
}

TEST_F(StripedReaderTest, AWakeUpAnsweredWithCompletionsIsOver) {
  open({{}, {}});
  const auto submit = [this] {
    reader_->submit(std::vector<ReadRequest>{{.destination = target_.span().first(4096)}});
  };
  drives_->on_completion = [this] { reader_->wake(); };
  submit();
  std::vector<ReadCompletion> completions;
  reader_->wait(completions);
  ASSERT_EQ(completions.size(), 1u);
  drives_->on_completion = {};
  submit();
  reader_->wait(completions);
  EXPECT_EQ(completions.size(), 2u) << "woken once more for nothing";
}

TEST_F(StripedReaderTest, UrgentRequestsGoFirst) {
  open({{}, {}}, 2);
  const std::span<std::byte> target = target_.span();
  const auto request = [&](uint64_t tag, bool urgent) {
    return ReadRequest{
        .tag = tag, .offset = tag << 20, .destination = target.subspan(tag << 20, 1u << 20), .urgent = urgent};
  };
  reader_->submit(std::vector{request(0, false), request(1, false), request(2, false), request(3, false),
                              request(4, false), request(5, true)});
  std::vector<ReadCompletion> completions;
  while (completions.size() < 6) reader_->wait(completions);
  EXPECT_EQ(completions[0].tag, 5u);
}

TEST(StripedReaderPartly, AMirrorOfSomeFilesHelpsWithThem) {
  const std::string content(4u << 20, 'x');
  auto inner = std::make_unique<SimulatedDrives>(std::vector(3, content), std::vector{0, 0, 1},
                                                 std::vector<SimulatedDrives::Drive>(2));
  SimulatedDrives* drives = inner.get();
  StripedReader reader(std::move(inner),
                       {.drives = {"a", "b"}, .paths = {"a/0", "a/1", "b/1"}, .copies = {{{0, 0}}, {{0, 1}, {1, 2}}}},
                       {}, {}, [drives] { return drives->now(); });
  quant::AlignedBuffer target(8u << 20);
  reader.submit(std::vector<ReadRequest>{{.file = 0, .destination = target.span().first(4u << 20)},
                                         {.file = 1, .destination = target.span().subspan(4u << 20)}});
  std::vector<ReadCompletion> completions;
  while (completions.size() < 2) reader.wait(completions);
  EXPECT_NEAR(static_cast<double>(drives->drives[1].bytes), 4 << 20, 1 << 20) << "it does what only it can spare";
  EXPECT_LT(drives->now_s(), 1.2 * (8 << 20) / 2e9);
}

/// The store on real files and their copies.
class StripedStoreTest : public ::testing::TestWithParam<ReaderKind> {
 protected:
  static constexpr uint64_t kRecordBytes = 1u << 20;

  StripedStoreTest() {
    for (const auto& file : source_->files()) std::filesystem::copy(file, mirror_.path());
  }

  int deliver() {
    StoreOptions options{.budget_bytes = 3 * kRecordBytes, .reader = GetParam(), .mirrors = {mirror_.path()}};
    options.inform = [this](const std::string& line) { lines_.push_back(line); };
    store_ = std::make_unique<ExpertStore>(source_, options, 1);
    if (before_reading_) before_reading_();
    LeaseStream stream = store_->acquire(source_->experts());
    int delivered = 0;
    while (const std::optional<ExpertLease> lease = stream.next()) {
      EXPECT_TRUE(source_->is_record(lease->id(), lease->record()));
      ++delivered;
    }
    return delivered;
  }

  testing::TempDir dir_, mirror_;
  std::shared_ptr<testing::MemorySource> source_ = std::make_shared<testing::MemorySource>(
      testing::MemoryShape{.layers = 2, .experts_per_layer = 6, .record_bytes = kRecordBytes}, dir_.path());
  std::function<void()> before_reading_;
  std::vector<std::string> lines_;
  std::unique_ptr<ExpertStore> store_;
};

TEST_P(StripedStoreTest, GivesTheSameRecords) {
  EXPECT_EQ(deliver(), 12);
  EXPECT_EQ(store_->counters().rereads, 0u);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr(mirror_.path().string() + " too (2 of 2 files)"));
}

TEST_P(StripedStoreTest, AMirrorCutShortLaterIsReplacedByTheModel) {
  before_reading_ = [this] {
    for (const auto& file : source_->files()) std::filesystem::resize_file(mirror_ / file.filename().string(), 0);
  };
  EXPECT_EQ(deliver(), 12);
  store_.reset();  // its thread writes no more lines
  ASSERT_GE(lines_.size(), 2u);
  EXPECT_THAT(lines_[1], HasSubstr("the file ends too early"));
}

TEST_P(StripedStoreTest, AMirrorOverwrittenLaterIsFoundAndReplacedByTheModel) {
  before_reading_ = [this] {
    for (const auto& file : source_->files()) {
      std::ofstream(mirror_ / file.filename().string(), std::ios::binary | std::ios::in | std::ios::out)
          << std::string(6 * kRecordBytes, '!');
    }
  };
  EXPECT_EQ(deliver(), 12);
  EXPECT_GT(store_->counters().rereads, 0u);
}

INSTANTIATE_TEST_SUITE_P(Both, StripedStoreTest, ::testing::Values(ReaderKind::kAuto, ReaderKind::kPread),
                         [](const auto& kind) { return kind.param == ReaderKind::kAuto ? "Auto" : "Pread"; });

}  // namespace
}  // namespace moraine::offload
