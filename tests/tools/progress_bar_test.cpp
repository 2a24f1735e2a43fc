#include "tools/progress_bar.h"

#include <gtest/gtest.h>

#include "support/captured_console.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;

TEST(ProgressBar, SaysHowMuchHowFastAndHowLong) {
  CapturedConsole captured;
  double now_s = 100.0;
  ProgressBar bar(captured.console(), "loading", ProgressUnit::kBytes, [&] { return now_s; });
  EXPECT_EQ(bar.text(1u << 30, 2u << 30, 2.0, 0), "loading   50 %  1.0 GiB of 2.0 GiB  512.0 MiB/s  0:02 left");
  EXPECT_EQ(bar.text(1u << 30, 2u << 30, 2.0, 79),
            "loading  [########       ]   50 %  1.0 GiB of 2.0 GiB  512.0 MiB/s  0:02 left");
}

TEST(ProgressBar, AJobOfLessThanASecondShowsNothing) {
  CapturedConsole captured(true, true);
  double now_s = 0.0;
  {
    ProgressBar bar(captured.console(), "tasks", ProgressUnit::kItems, [&] { return now_s; });
    for (now_s = 0.0; now_s < 0.95; now_s += 0.01) bar.update(static_cast<uint64_t>(now_s * 100), 95);
  }
  EXPECT_EQ(captured.err(), "");
}

TEST(ProgressBar, OnATerminalItIsRedrawnTenTimesASecondAndErasedAtTheEnd) {
  CapturedConsole captured(true, true);
  double now_s = 0.0;
  {
    ProgressBar bar(captured.console(), "tasks", ProgressUnit::kItems, [&] { return now_s; });
    for (int step = 1; step <= 2000; ++step) {
      now_s = step / 1000.0;
      bar.update(static_cast<uint64_t>(step), 2000);
    }
  }
  const std::string shown = captured.err();
  EXPECT_NEAR(static_cast<double>(std::count(shown.begin(), shown.end(), '\r')), 11.0, 1.0);
  EXPECT_TRUE(shown.ends_with("\r\x1b[K"));
}

TEST(ProgressBar, WithoutATerminalItIsALineEveryTenSeconds) {
  CapturedConsole captured;
  double now_s = 0.0;
  ProgressBar bar(captured.console(), "tasks", ProgressUnit::kItems, [&] { return now_s; });
  for (int step = 1; step <= 25; ++step) {
    now_s = step;
    bar.update(static_cast<uint64_t>(step), 100, "right 3");
  }
  EXPECT_EQ(captured.err(),
            "moraine: tasks   10 %  10 of 100  0.9/s  1:40 left  right 3\n"
            "moraine: tasks   20 %  20 of 100  0.9/s  1:25 left  right 3\n");
}

TEST(ProgressBar, WhatAnEarlierRunDidIsNoPartOfTheRate) {
  CapturedConsole captured;
  double now_s = 0.0;
  ProgressBar bar(captured.console(), "converting", ProgressUnit::kItems, [&] { return now_s; });
  bar.update(50, 100);
  EXPECT_EQ(bar.text(60, 100, 10.0, 0), "converting   60 %  60 of 100  1.0/s  0:40 left");
}

TEST(DurationText, CountsHoursMinutesSeconds) {
  EXPECT_EQ(duration_text(6.2), "0:07");
  EXPECT_EQ(duration_text(754), "12:34");
  EXPECT_EQ(duration_text(10925), "3:02:05");
  EXPECT_EQ(duration_text(1e300), "99:59:59");
}

}  // namespace
}  // namespace moraine::tools
