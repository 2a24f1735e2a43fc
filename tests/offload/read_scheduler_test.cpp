#include "offload/read_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kPage = FileSet::kAlignmentBytes;

/// One file of `kFileBytes` whose byte i is i·7 mod 251, and a scheduler whose system reads the test plays.
class ReadSchedulerTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kFileBytes = 10 * kPage + 100;

  ReadSchedulerTest() : path_(dir_.write("file", content())), files_(std::vector{path_}) {}

  static std::string content() {
    std::string bytes(kFileBytes, '\0');
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 % 251);
    return bytes;
  }

  /// Plays a system read that brings at most `most_bytes`.
  int64_t play(const ReadPiece& piece, uint64_t most_bytes = ~uint64_t{0}) const {
    const std::string bytes = content();
    const uint64_t begin = piece.offset + piece.done_bytes;
    if (begin >= bytes.size()) return 0;
    const uint64_t count = std::min({piece.length_bytes - piece.done_bytes, most_bytes, bytes.size() - begin});
    std::transform(bytes.begin() + static_cast<int64_t>(begin), bytes.begin() + static_cast<int64_t>(begin + count),
                   piece.buffer + piece.done_bytes, [](char byte) { return static_cast<std::byte>(byte); });
    return static_cast<int64_t>(count);
  }

  /// Reads until nothing is left; returns the completions.
  std::vector<ReadCompletion> run(ReadScheduler& scheduler, uint64_t most_bytes = ~uint64_t{0}) {
    while (std::optional<ReadPiece> piece = scheduler.next()) {
      PieceOutcome outcome = absorb_read(*piece, play(*piece, most_bytes), files_);
      scheduler.settle(*piece, std::move(outcome));
      ++system_reads_;
    }
    std::vector<ReadCompletion> completions;
    scheduler.take_completions(completions);
    return completions;
  }

  bool holds(std::span<const std::byte> bytes, uint64_t offset) const {
    const std::string expected = content().substr(offset, bytes.size());
    return std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end(),
                      [](std::byte a, char b) { return a == static_cast<std::byte>(b); });
  }

  testing::TempDir dir_;
  std::filesystem::path path_;
  FileSet files_;
  quant::AlignedBuffer target_{16 * kPage};
  int system_reads_ = 0;
};

TEST_F(ReadSchedulerTest, CutsAnAlignedRequestIntoStraightPieces) {
  ReadScheduler scheduler(files_, {.piece_bytes = 2 * kPage, .bounce_buffers = 1});
  scheduler.add({.tag = 7, .offset = kPage, .destination = target_.span().first(5 * kPage)});
  const std::vector<ReadCompletion> completions = run(scheduler);
  ASSERT_EQ(completions.size(), 1u);
  EXPECT_EQ(completions[0].tag, 7u);
  EXPECT_EQ(completions[0].bytes_read, 5 * kPage) << "nothing is read twice";
  EXPECT_EQ(system_reads_, 3);
  EXPECT_TRUE(holds(target_.span().first(5 * kPage), kPage));
}

TEST_F(ReadSchedulerTest, UnalignedRangesOfEverySortArriveWhole) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, kPage - 1, kPage, 3 * kPage + 17}) {
    for (const uint64_t size : {uint64_t{1}, uint64_t{31}, kPage, kPage + 1, 4 * kPage - 1, 6 * kPage}) {
      for (const uint64_t shift : {uint64_t{0}, uint64_t{3}}) {
        ReadScheduler scheduler(files_, {.piece_bytes = 2 * kPage, .bounce_buffers = 2});
        std::fill(target_.span().begin(), target_.span().end(), std::byte{0xee});
        scheduler.add({.offset = offset, .destination = target_.span().subspan(shift, size)});
        const std::vector<ReadCompletion> completions = run(scheduler);
        ASSERT_EQ(completions.size(), 1u);
        EXPECT_FALSE(completions[0].failure);
        EXPECT_TRUE(holds(target_.span().subspan(shift, size), offset)) << offset << " " << size << " " << shift;
        EXPECT_EQ(target_.span()[shift + size], std::byte{0xee}) << "wrote behind the destination";
      }
    }
  }
}

TEST_F(ReadSchedulerTest, ShortReadsGoOnFromAnAlignedOffset) {
  ReadScheduler scheduler(files_, {.piece_bytes = 4 * kPage, .bounce_buffers = 1});
  scheduler.add({.offset = 0, .destination = target_.span().first(4 * kPage)});
  std::optional<ReadPiece> piece = scheduler.next();
  ASSERT_TRUE(piece);
  PieceOutcome outcome = absorb_read(*piece, play(*piece, kPage + 500), files_);
  EXPECT_EQ(outcome.state, PieceOutcome::State::kAgain);
  EXPECT_EQ(piece->done_bytes, piece->direct ? kPage : kPage + 500);
  scheduler.settle(*piece, outcome);
  const std::vector<ReadCompletion> completions = run(scheduler);
  ASSERT_EQ(completions.size(), 1u);
  EXPECT_TRUE(holds(target_.span().first(4 * kPage), 0));
}

TEST_F(ReadSchedulerTest, ReadsOfLessThanABlockGoOnPlainly) {
  ReadScheduler scheduler(files_, {});
  scheduler.add({.offset = 0, .destination = target_.span().first(4 * kPage)});
  const bool was_direct = files_.direct(0);
  const std::vector<ReadCompletion> completions = run(scheduler, 2048);
  ASSERT_EQ(completions.size(), 1u);
  EXPECT_FALSE(completions[0].failure);
  EXPECT_TRUE(holds(target_.span().first(4 * kPage), 0));
  EXPECT_EQ(files_.direct(0), was_direct) << "other pieces are read as before";
}

TEST_F(ReadSchedulerTest, ReadsThatNeverBringAnythingEndInAnError) {
  for (const int64_t result : {int64_t{-EAGAIN}, int64_t{-EINTR}, int64_t{0}}) {
    ReadScheduler scheduler(files_, {});
    scheduler.add({.tag = 1, .offset = 0, .destination = target_.span().first(kPage)});
    int reads = 0;
    while (std::optional<ReadPiece> piece = scheduler.next()) {
      ASSERT_LT(++reads, 100) << "no end";
      PieceOutcome outcome = absorb_read(*piece, result, files_);
      scheduler.settle(*piece, std::move(outcome));
    }
    EXPECT_GT(reads, 2);
    std::vector<ReadCompletion> completions;
    scheduler.take_completions(completions);
    ASSERT_EQ(completions.size(), 1u);
    ASSERT_TRUE(completions[0].failure);
    EXPECT_EQ(completions[0].failure->kind, quant::ErrorKind::kIo);
    EXPECT_EQ(completions[0].failure->detail.file, path_);
  }
}

TEST_F(ReadSchedulerTest, OneFailedPieceEndsItsRequestOnce) {
  ReadScheduler scheduler(files_, {.piece_bytes = kPage, .bounce_buffers = 1});
  scheduler.add({.tag = 1, .offset = 0, .destination = target_.span().first(8 * kPage)});
  std::optional<ReadPiece> piece = scheduler.next();
  PieceOutcome outcome = absorb_read(*piece, -EIO, files_);
  EXPECT_EQ(outcome.state, PieceOutcome::State::kFailed);
  scheduler.settle(*piece, std::move(outcome));
  const std::vector<ReadCompletion> completions = run(scheduler);
  EXPECT_EQ(system_reads_, 0) << "the other pieces are not read";
  ASSERT_EQ(completions.size(), 1u);
  EXPECT_THAT(completions[0].failure->detail.what, HasSubstr("Input/output error"));
}

TEST_F(ReadSchedulerTest, InvalidForDirectReadsIsReadPlainly) {
  ReadScheduler scheduler(files_, {});
  scheduler.add({.offset = 0, .destination = target_.span().first(kPage)});
  std::optional<ReadPiece> piece = scheduler.next();
  if (!piece->direct) GTEST_SKIP() << "the temporary directory's file system takes no O_DIRECT";
  PieceOutcome outcome = absorb_read(*piece, -EINVAL, files_);
  EXPECT_EQ(outcome.state, PieceOutcome::State::kAgain);
  EXPECT_FALSE(files_.direct(0));
  scheduler.settle(*piece, std::move(outcome));
  EXPECT_FALSE(run(scheduler)[0].failure);
  EXPECT_TRUE(holds(target_.span().first(kPage), 0));
}

TEST_F(ReadSchedulerTest, TheEndOfTheFileIsAFailure) {
  ReadScheduler scheduler(files_, {});
  scheduler.add({.tag = 1, .offset = 10 * kPage, .destination = target_.span().first(100)});
  scheduler.add({.tag = 2, .offset = 10 * kPage, .destination = target_.span().first(101)});
  scheduler.add({.tag = 3, .offset = ~uint64_t{0} - 5, .destination = target_.span().first(10)});
  std::vector<ReadCompletion> completions = run(scheduler);
  ASSERT_EQ(completions.size(), 3u);
  std::sort(completions.begin(), completions.end(), [](const auto& a, const auto& b) { return a.tag < b.tag; });
  EXPECT_FALSE(completions[0].failure) << "the last bytes of the file are there";
  ASSERT_TRUE(completions[1].failure);
  EXPECT_EQ(completions[1].failure->kind, quant::ErrorKind::kBadFile);
  EXPECT_EQ(completions[1].failure->detail.got, std::to_string(kFileBytes));
  ASSERT_TRUE(completions[2].failure);
}

TEST_F(ReadSchedulerTest, UrgentRequestsGoFirst) {
  ReadScheduler scheduler(files_, {});
  scheduler.add({.tag = 1, .offset = 0, .destination = target_.span().first(kPage), .urgent = false});
  scheduler.add({.tag = 2, .offset = kPage, .destination = target_.span().subspan(kPage, kPage)});
  EXPECT_EQ(scheduler.next()->offset, kPage);
  EXPECT_EQ(scheduler.next()->offset, 0u);
}

TEST_F(ReadSchedulerTest, WaitsForABounceBuffer) {
  ReadScheduler scheduler(files_, {.piece_bytes = kPage, .bounce_buffers = 1});
  scheduler.add({.tag = 1, .offset = 10, .destination = target_.span().first(10)});
  scheduler.add({.tag = 2, .offset = 20, .destination = target_.span().subspan(10, 10)});
  std::optional<ReadPiece> piece = scheduler.next();
  ASSERT_TRUE(piece);
  if (!piece->direct) GTEST_SKIP() << "plain reads need no bounce buffer";
  EXPECT_FALSE(scheduler.next());
  PieceOutcome outcome = absorb_read(*piece, play(*piece), files_);
  scheduler.settle(*piece, std::move(outcome));
  EXPECT_EQ(run(scheduler).size(), 2u);
  EXPECT_TRUE(holds(target_.span().first(20), 10)) << "10 bytes from 10, then 10 bytes from 20";
}

TEST_F(ReadSchedulerTest, AnEmptyRequestCompletesAtOnce) {
  ReadScheduler scheduler(files_, {});
  scheduler.add({.tag = 9, .offset = 5, .destination = {}});
  EXPECT_FALSE(scheduler.next());
  EXPECT_TRUE(scheduler.has_completions());
}

TEST_F(ReadSchedulerTest, HandsOutSoMuchAtATimeAndUrgentOnesOvertakeTheRest) {
  quant::AlignedBuffer hinted(4 * kPage), wanted(2 * kPage);
  ReadScheduler scheduler(files_, {.piece_bytes = kPage, .in_flight_bytes = 2 * kPage});
  scheduler.add({.tag = 1, .offset = 0, .destination = hinted.span(), .urgent = false});
  std::optional<ReadPiece> first = scheduler.next(), second = scheduler.next();
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(scheduler.next()) << "two pages are in flight";
  scheduler.add({.tag = 2, .offset = 4 * kPage, .destination = wanted.span()});
  PieceOutcome outcome = absorb_read(*first, play(*first), files_);
  scheduler.settle(*first, std::move(outcome));
  const std::optional<ReadPiece> third = scheduler.next();
  ASSERT_TRUE(third);
  EXPECT_EQ(third->offset, 4 * kPage) << "not the rest of the hint";
  EXPECT_FALSE(scheduler.next());
  for (ReadPiece piece : {*second, *third}) {
    PieceOutcome done = absorb_read(piece, play(piece), files_);
    scheduler.settle(piece, std::move(done));
  }
  EXPECT_EQ(run(scheduler).size(), 2u);
}

TEST_F(ReadSchedulerTest, LessIsHandedOutOfWhatIsNotUrgent) {
  quant::AlignedBuffer hinted(4 * kPage), wanted(4 * kPage);
  ReadScheduler scheduler(files_, {.piece_bytes = kPage, .in_flight_bytes = 3 * kPage, .later_in_flight_bytes = kPage});
  scheduler.add({.tag = 1, .offset = 0, .destination = hinted.span(), .urgent = false});
  EXPECT_TRUE(scheduler.next());
  EXPECT_FALSE(scheduler.next());
  scheduler.add({.tag = 2, .offset = 4 * kPage, .destination = wanted.span()});
  EXPECT_TRUE(scheduler.next());
  EXPECT_TRUE(scheduler.next());
  EXPECT_FALSE(scheduler.next()) << "three pages are in flight";
}

TEST_F(ReadSchedulerTest, APieceLargerThanAllThatMayBeInFlightIsReadAlone) {
  quant::AlignedBuffer buffer(2 * kPage);
  ReadScheduler scheduler(files_, {.piece_bytes = 2 * kPage, .in_flight_bytes = kPage});
  scheduler.add({.tag = 1, .offset = 0, .destination = buffer.span()});
  EXPECT_EQ(run(scheduler).size(), 1u);
}

}  // namespace
}  // namespace moraine::offload
