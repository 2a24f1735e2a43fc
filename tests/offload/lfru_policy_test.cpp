#include "offload/lfru_policy.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace moraine::offload {
namespace {

bool anything(int) {
  return true;
}

constexpr ExpertId kPoet{3, 1}, kClerk{3, 2}, kSoldier{3, 3}, kStranger{4, 9};

/// Three slots: the poet was wanted four times, long ago; the clerk twice, lately; the soldier once, just now.
class LfruPolicyTest : public ::testing::Test {
 protected:
  LfruPolicyTest() {
    for (int i = 0; i < 4; ++i) policy_.wanted(kPoet, false);
    policy_.inserted(0, kPoet);
    for (int i = 0; i < 2; ++i) policy_.wanted(kClerk, false);
    policy_.inserted(1, kClerk);
    policy_.wanted(kSoldier, false);
    policy_.inserted(2, kSoldier);
  }

  LfruPolicy policy_{3, 4.0};  // worth halves every 12 wants
};

TEST_F(LfruPolicyTest, OftenWantedOutlivesLatelyWanted) {
  EXPECT_EQ(policy_.victim(anything), 2);
  EXPECT_EQ(policy_.victim([](int slot) { return slot != 2; }), 1) << "the soldier is in use: the clerk goes";
  EXPECT_EQ(policy_.victim([](int) { return false; }), -1);
  EXPECT_EQ(policy_.hottest(), (std::vector<ExpertId>{kPoet, kClerk, kSoldier}));
}

TEST_F(LfruPolicyTest, FameFades) {
  // Nobody asks for the poet any more; in three half-lives his four wants are worth half a one.
  for (int i = 0; i < 18; ++i) {
    policy_.wanted(kClerk, false);
    policy_.wanted(kSoldier, false);
  }
  EXPECT_EQ(policy_.victim(anything), 0);
}

TEST_F(LfruPolicyTest, WhoReturnsIsKnown) {
  policy_.removed(0);
  policy_.wanted(kStranger, false);
  policy_.inserted(0, kStranger);
  policy_.removed(2);
  policy_.wanted(kPoet, false);
  policy_.inserted(2, kPoet);
  EXPECT_EQ(policy_.victim(anything), 0) << "the poet is back with all he was worth; the stranger is new";
}

TEST_F(LfruPolicyTest, AScanPassesThroughOneSlot) {
  // A long prompt wants everybody. Of each newcomer nothing is known, so the next takes his place.
  for (int expert = 10; expert < 200; ++expert) {
    policy_.wanted({5, expert}, true);
    const int slot = policy_.victim(anything);
    EXPECT_EQ(slot, 2) << expert;
    policy_.removed(slot);
    policy_.inserted(slot, {5, expert});
  }
  EXPECT_EQ(policy_.hottest(), (std::vector<ExpertId>{kPoet, kClerk, kSoldier}));
}

TEST_F(LfruPolicyTest, AHintCountsUntilItsExpertIsWantedOrPassedOver) {
  policy_.hinted(2);
  policy_.hinted(2);
  EXPECT_EQ(policy_.victim(anything), 1) << "the soldier may be wanted any moment";
  policy_.wanted(kSoldier, true);
  EXPECT_EQ(policy_.victim(anything), 2) << "he was, in a scan: he is worth what he was before";
}

TEST(LfruPolicy, ChunksOfAPromptFindTheSamePartInRam) {
  // Six experts, three slots, and every chunk wants all six in the same order: LRU would never hit.
  LfruPolicy policy(3);
  std::vector<int> holds(3, -1);  // expert in each slot
  int hits = 0;
  for (int chunk = 0; chunk < 5; ++chunk) {
    for (int expert = 0; expert < 6; ++expert) {
      policy.wanted({1, expert}, true);
      if (std::find(holds.begin(), holds.end(), expert) != holds.end()) {
        ++hits;
        continue;
      }
      const auto empty = std::find(holds.begin(), holds.end(), -1);
      const int slot = empty != holds.end() ? static_cast<int>(empty - holds.begin()) : policy.victim(anything);
      if (empty == holds.end()) policy.removed(slot);
      policy.inserted(slot, {1, expert});
      holds[static_cast<size_t>(slot)] = expert;
    }
  }
  EXPECT_EQ(hits, 4 * 2) << "in every chunk but the first, the two slots that the scan does not pass through";
}

}  // namespace
}  // namespace moraine::offload
