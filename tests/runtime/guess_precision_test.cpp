#include "runtime/guess_precision.h"

#include <gtest/gtest.h>

namespace moraine::runtime {
namespace {

using offload::ExpertId;

/// `count` tokens whose layer 1 wants experts 0 and 1, after a guess of 0, 5 and 6 at the place.
void judge(GuessPrecision& precision, int place, int count) {
  for (int token = 0; token < count; ++token) {
    precision.guessed(place, std::vector<ExpertId>{{1, 0}, {1, 5}, {1, 6}});
    precision.wanted(std::vector<ExpertId>{{1, 0}, {1, 1}});
  }
}

TEST(GuessPrecision, AtFirstAllRanksAreWorthARead) {
  EXPECT_EQ(GuessPrecision(3).worth_reading(7), 3);
}

TEST(GuessPrecision, WrongRanksAreReadNoMore) {
  GuessPrecision precision(3);
  judge(precision, 4, 5);
  EXPECT_EQ(precision.worth_reading(4), 3) << "five tokens say little";
  judge(precision, 4, 50);
  EXPECT_EQ(precision.worth_reading(4), 1);
  EXPECT_EQ(precision.worth_reading(3), 3) << "every place has its own";
}

TEST(GuessPrecision, OtherLayersJudgeNothing) {
  GuessPrecision precision(3);
  for (int token = 0; token < 50; ++token) {
    precision.guessed(0, std::vector<ExpertId>{{2, 0}});
    precision.wanted(std::vector<ExpertId>{{1, 7}});
  }
  EXPECT_EQ(precision.worth_reading(0), 3);
}

TEST(GuessPrecision, ABadPlaceIsTriedNowAndAgainAndReturns) {
  GuessPrecision precision(1);
  const auto tell = [&](int32_t wanted) {
    precision.guessed(0, std::vector<ExpertId>{{1, 0}});
    precision.wanted(std::vector<ExpertId>{{1, wanted}});
  };
  for (int token = 0; token < 50; ++token) tell(9);
  EXPECT_EQ(precision.worth_reading(0), 0);
  int tried = 0;
  for (int token = 0; token < 160; ++token) {
    if (!precision.wants_guess(0)) continue;
    ++tried;
    tell(0);
  }
  EXPECT_GE(tried, 10);
  EXPECT_EQ(precision.worth_reading(0), 1) << "ten right guesses";
}

}  // namespace
}  // namespace moraine::runtime
