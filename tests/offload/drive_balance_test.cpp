#include "offload/drive_balance.h"

#include <gtest/gtest.h>

#include <array>

namespace moraine::offload {
namespace {

constexpr uint64_t kPiece = 1u << 20;
constexpr std::array kBoth = {0, 1};

/// Two drives with room for 2 pieces each, in a time that the test moves.
class DriveBalanceTest : public ::testing::Test {
 protected:
  /// `drive` has read `pieces` one after the other, each in `each_ms`.
  void measure(int drive, int pieces, int each_ms) {
    for (int i = 0; i < pieces; ++i) {
      balance_.begin(drive, kPiece, now_);
      now_ += std::chrono::milliseconds(each_ms);
      balance_.end(drive, kPiece, true, now_);
    }
  }
  std::optional<int> choose(uint64_t queued_pieces = 1) {
    return balance_.choose(kBoth, kPiece, queued_pieces * kPiece, now_);
  }

  DriveBalance::Time now_ = {};
  DriveBalance balance_ = DriveBalance(2, 2, now_);
};

TEST_F(DriveBalanceTest, TheFasterOneIsChosen) {
  measure(0, 100, 3);
  measure(1, 100, 2);
  EXPECT_NEAR(balance_.bytes_per_s(1) / balance_.bytes_per_s(0), 1.5, 0.05);
  EXPECT_EQ(choose(), 1);
}

TEST_F(DriveBalanceTest, AFullDriveIsWaitedForWhereThatIsQuicker) {
  measure(0, 50, 10);
  measure(1, 50, 1);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(choose(), 1);
    balance_.begin(1, kPiece, now_);
  }
  EXPECT_EQ(choose(), std::nullopt) << "3 ms here, 10 ms there";
  EXPECT_EQ(choose(20), 0) << "with so much to read, the slow one is done before the end too";
}

TEST_F(DriveBalanceTest, FailuresAreNoSpeed) {
  measure(0, 50, 2);
  measure(1, 50, 3);
  for (int i = 0; i < 50; ++i) {
    balance_.begin(1, kPiece, now_);
    balance_.end(1, kPiece, false, now_);
  }
  EXPECT_EQ(choose(), 0);
}

TEST_F(DriveBalanceTest, AnIdleSecondGivesASlowDriveAnotherChance) {
  measure(0, 200, 50);
  measure(1, 10, 1);
  EXPECT_EQ(choose(), 1);
  now_ += std::chrono::milliseconds(990);
  balance_.begin(1, kPiece, now_);
  balance_.end(1, kPiece, true, now_ + std::chrono::milliseconds(1));
  now_ += std::chrono::milliseconds(20);
  EXPECT_EQ(choose(), 0) << "although it was fifty times slower";
  measure(0, 5, 1);
  EXPECT_GT(balance_.bytes_per_s(0), 50e6) << "and what it was counts little now";
}

TEST_F(DriveBalanceTest, KnowsWhenAllAreFull) {
  EXPECT_TRUE(balance_.any_room());
  for (const int drive : kBoth) {
    balance_.begin(drive, kPiece, now_);
    balance_.begin(drive, kPiece, now_);
  }
  EXPECT_FALSE(balance_.any_room());
  EXPECT_EQ(choose(), std::nullopt);
}

}  // namespace
}  // namespace moraine::offload
