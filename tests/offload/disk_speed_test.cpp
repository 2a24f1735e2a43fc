#include "offload/disk_speed.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "offload/open_reader.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace moraine::offload {
namespace {

using testing::TempDir;

constexpr uint64_t kPiece = 8192;

/// Answers at once and notes what was asked.
class NotingReader final : public BlockReader {
 public:
  void submit(std::span<const ReadRequest> requests) override {
    for (const ReadRequest& request : requests) {
      EXPECT_TRUE(asked.insert({request.file, request.offset}).second) << "read twice";
      sizes.insert(request.destination.size());
      ReadCompletion& completion = waiting_.emplace_back();
      completion.tag = request.tag;
      completion.bytes_read = request.destination.size();
      if (asked.size() == fail_at) completion.failure = {quant::ErrorKind::kIo, {.what = "broken drive"}};
    }
    most_in_flight = std::max(most_in_flight, waiting_.size());
  }
  void wait(std::vector<ReadCompletion>& completions) override {
    ASSERT_FALSE(waiting_.empty());
    std::this_thread::sleep_for(std::exchange(first_delay, {}));
    completions.push_back(waiting_.back());
    waiting_.pop_back();
  }
  void wake() override {}
  uint64_t alignment_bytes() const override { return 4096; }
  const char* name() const override { return "noting"; }

  std::set<std::pair<int, uint64_t>> asked;
  std::multiset<uint64_t> sizes;
  size_t most_in_flight = 0;
  size_t fail_at = 0;
  std::chrono::milliseconds first_delay{0};

 private:
  std::vector<ReadCompletion> waiting_;
};

class DiskSpeed : public ::testing::Test {
 protected:
  const TempDir directory_;
  // 5 and 2 whole pieces, the rest of the second is left out.
  const std::vector<std::filesystem::path> files_ = {directory_.write("a", std::string(5 * kPiece, 'a')),
                                                     directory_.write("b", std::string(2 * kPiece + 100, 'b'))};

  /// Temporary directories may lie where O_DIRECT is refused; then nothing is measured, and nothing else can be tested.
  bool direct() const { return FileSet(files_).direct(0); }
};

TEST_F(DiskSpeed, ReadsEveryWholePieceOnceIfThereIsTime) {
  if (!direct()) GTEST_SKIP() << "no O_DIRECT here";
  NotingReader reader;
  const auto gb_per_s =
      measure_disk_gb_per_s(files_, {.piece_bytes = kPiece, .pieces_in_flight = 3, .max_s = 60.0}, reader);
  ASSERT_TRUE(gb_per_s);
  EXPECT_GT(*gb_per_s, 0.0);
  const std::set<std::pair<int, uint64_t>> all = {{0, 0},          {0, kPiece}, {0, 2 * kPiece}, {0, 3 * kPiece},
                                                  {0, 4 * kPiece}, {1, 0},      {1, kPiece}};
  EXPECT_EQ(reader.asked, all);
  EXPECT_EQ(reader.sizes.count(kPiece), 7u);
  EXPECT_EQ(reader.most_in_flight, 3u);
}

TEST_F(DiskSpeed, ReadsLargePiecesInTheStoresRequests) {
  constexpr uint64_t kLarge = kRequestBytes + kPiece;
  const std::vector<std::filesystem::path> files = {directory_.write("large", std::string(3 * kLarge, 'a'))};
  if (!FileSet(files).direct(0)) GTEST_SKIP() << "no O_DIRECT here";
  NotingReader reader;
  ASSERT_TRUE(measure_disk_gb_per_s(files, {.piece_bytes = kLarge, .pieces_in_flight = 2, .max_s = 60.0}, reader));
  EXPECT_EQ(reader.asked.size(), 6u);
  EXPECT_EQ(reader.sizes.count(kRequestBytes), 3u);
  EXPECT_EQ(reader.sizes.count(kPiece), 3u);
  EXPECT_EQ(reader.most_in_flight, 4u);
}

TEST_F(DiskSpeed, BeginsNothingAfterTheTime) {
  if (!direct()) GTEST_SKIP() << "no O_DIRECT here";
  NotingReader reader;
  (void)measure_disk_gb_per_s(files_, {.piece_bytes = kPiece, .pieces_in_flight = 3, .max_s = 0.0}, reader);
  EXPECT_EQ(reader.asked.size(), 3u);
}

TEST_F(DiskSpeed, TheLeadDoesNotCount) {
  if (!direct()) GTEST_SKIP() << "no O_DIRECT here";
  // The first piece takes 0.3 s, the others nothing: the mean of all would be far less.
  NotingReader reader;
  reader.first_delay = std::chrono::milliseconds(300);
  const auto gb_per_s = measure_disk_gb_per_s(
      files_, {.piece_bytes = kPiece, .pieces_in_flight = 1, .lead_s = 0.2, .max_s = 60.0}, reader);
  ASSERT_TRUE(gb_per_s);
  EXPECT_EQ(reader.asked.size(), 7u);
  EXPECT_GT(*gb_per_s, 3.0 * 7 * kPiece / 0.3 / 1e9);
}

TEST_F(DiskSpeed, AFailedReadIsAnError) {
  if (!direct()) GTEST_SKIP() << "no O_DIRECT here";
  NotingReader reader;
  reader.fail_at = 2;
  testing::expect_error(quant::ErrorKind::kIo, {"broken drive"}, [&] {
    (void)measure_disk_gb_per_s(files_, {.piece_bytes = kPiece, .pieces_in_flight = 3, .max_s = 60.0}, reader);
  });
}

TEST_F(DiskSpeed, MeasuresThroughTheRealReader) {
  if (!direct()) GTEST_SKIP() << "no O_DIRECT here";
  const auto gb_per_s = measure_disk_gb_per_s(files_, {.piece_bytes = 4096, .max_s = 0.1});
  ASSERT_TRUE(gb_per_s);
  EXPECT_GT(*gb_per_s, 0.0);
}

TEST_F(DiskSpeed, NothingToReadIsNothingMeasured) {
  EXPECT_FALSE(measure_disk_gb_per_s({}));
  EXPECT_FALSE(measure_disk_gb_per_s(files_, {.piece_bytes = 1u << 20}));
}

}  // namespace
}  // namespace moraine::offload
