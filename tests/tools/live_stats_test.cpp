#include "tools/live_stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/captured_console.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;
using ::testing::HasSubstr;
using ::testing::Not;

/// A store that finds half of what is wanted and waits half of the time.
struct Decoding {
  double now_s = 100.0;
  offload::StoreCounters counters = {.hits = 7, .misses = 900};

  void token(LiveStats& live, double seconds) {
    now_s += seconds;
    counters.hits += 4;
    counters.misses += 3;
    counters.late_prefetches += 1;
    counters.bytes_read += static_cast<uint64_t>(seconds * 1.5e9);
    counters.stall_us += static_cast<uint64_t>(seconds * 0.5e6);
    counters.hinted += 10;
    counters.hinted_wanted += 7;
    live.on_token();
  }
  LiveStats live(CapturedConsole& captured) {
    return LiveStats(
        captured.console(), [this] { return counters; }, [this] { return now_s; });
  }
};

TEST(LiveStats, ALineEveryTenSecondsWithoutATerminal) {
  CapturedConsole captured;
  Decoding decoding;
  LiveStats live = decoding.live(captured);
  for (int i = 0; i < 40; ++i) decoding.token(live, 0.25);  // 9.75 s after the first
  EXPECT_EQ(captured.err(), "");
  decoding.token(live, 0.25);
  const std::string line = "4.0 tokens/s · hits 50 % · drive 1.50 GB/s · waiting 50 % · guesses 70 % right\n";
  EXPECT_EQ(captured.err(), "moraine: 41 tokens: " + line);
  for (int i = 0; i < 40; ++i) decoding.token(live, 0.25);
  EXPECT_EQ(captured.err(), "moraine: 41 tokens: " + line + "moraine: 81 tokens: " + line);
  EXPECT_EQ(captured.out(), "");
}

TEST(LiveStats, TheLastFiveSecondsCount) {
  CapturedConsole captured(true, true);
  Decoding decoding;
  LiveStats live = decoding.live(captured);
  for (int i = 0; i < 20; ++i) decoding.token(live, 1.0);
  EXPECT_THAT(captured.err(), HasSubstr("1.0 tokens/s"));
  EXPECT_THAT(captured.err(), Not(HasSubstr("2.0 tokens/s")));
  for (int i = 0; i < 12; ++i) decoding.token(live, 0.5);
  EXPECT_THAT(captured.err(), HasSubstr("2.0 tokens/s")) << "what was before is forgotten";
}

TEST(LiveStats, OnATerminalTheRowIsRedrawnFourTimesASecondAtMost) {
  CapturedConsole captured(true, true);
  Decoding decoding;
  LiveStats live = decoding.live(captured);
  for (int i = 0; i < 101; ++i) decoding.token(live, 0.01);
  const std::string err = captured.err();
  size_t drawn = 0;
  for (size_t at = err.find("\x1b[24;1H"); at != std::string::npos; at = err.find("\x1b[24;1H", at + 1)) ++drawn;
  EXPECT_GE(drawn, 4u);
  EXPECT_LE(drawn, 5u) << "the first and one each quarter of a second";
}

TEST(LiveStats, WhatThereWasNoneOfIsLeftOut) {
  EXPECT_EQ(LiveStats::text(30, 2.0, {}), "15.0 tokens/s") << "a model without experts";
  offload::StoreCounters counters;
  counters.hits = 8;
  EXPECT_EQ(LiveStats::text(1, 1.0, counters), "1.0 tokens/s · hits 100 % · drive 0.00 GB/s · waiting 0 %");
}

}  // namespace
}  // namespace moraine::tools
