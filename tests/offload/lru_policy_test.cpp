#include "offload/lru_policy.h"

#include <gtest/gtest.h>

namespace moraine::offload {
namespace {

bool anything(int) {
  return true;
}

TEST(LruPolicy, GivesUpWhatWasWantedLongestAgo) {
  LruPolicy policy(3);
  EXPECT_EQ(policy.victim(anything), -1) << "nothing is there yet";

  // Three experts arrive one after the other: the first is the oldest.
  policy.inserted(0, {1, 10});
  policy.inserted(1, {1, 11});
  policy.inserted(2, {1, 12});
  EXPECT_EQ(policy.victim(anything), 0);

  // The first is wanted again: now the second is. What is not there can be wanted as well.
  policy.wanted({1, 10}, false);
  policy.wanted({1, 99}, false);
  EXPECT_EQ(policy.victim(anything), 1);
  EXPECT_EQ(policy.hottest(), (std::vector<ExpertId>{{1, 10}, {1, 12}, {1, 11}}));

  // The second is in use and must stay: the third goes.
  EXPECT_EQ(policy.victim([](int slot) { return slot != 1; }), 2);
  EXPECT_EQ(policy.victim([](int) { return false; }), -1);

  // It goes, and another comes into its slot as the newest.
  policy.removed(2);
  policy.inserted(2, {2, 5});
  EXPECT_EQ(policy.victim(anything), 1);
  policy.hinted(1);
  EXPECT_EQ(policy.victim(anything), 0);
}

}  // namespace
}  // namespace moraine::offload
