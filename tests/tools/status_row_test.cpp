#include "tools/status_row.h"

#include <gtest/gtest.h>

#include <string>

#include "support/captured_console.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;

TEST(StatusRow, TakesTheLastRowAndGivesItBack) {
  setenv("NO_COLOR", "1", 1);
  CapturedConsole captured(true, true);  // 24 rows of 80 columns
  {
    StatusRow row(captured.console());
    row.show("one");
    row.show("two");
  }
  unsetenv("NO_COLOR");
  EXPECT_EQ(captured.err(),
            "\n\0337\033[1;23r\0338\033[1A"  // margins, one line up again
            "\0337\033[24;1Hone\033[K\0338"
            "\0337\033[24;1Htwo\033[K\0338"
            "\0337\033[r\033[24;1H\033[K\0338");
  EXPECT_EQ(captured.out(), "");
}

TEST(StatusRow, CutsALongTextToTheWidth) {
  CapturedConsole captured(true, true);
  StatusRow(captured.console()).show(std::string(200, 'x'));
  EXPECT_NE(captured.err().find(std::string(79, 'x')), std::string::npos);
  EXPECT_EQ(captured.err().find(std::string(80, 'x')), std::string::npos);
}

TEST(StatusRow, IsNothingWithoutATerminalOrUse) {
  CapturedConsole piped, unused(true, true);
  StatusRow(piped.console()).show("one");
  { const StatusRow row(unused.console()); }
  EXPECT_EQ(piped.err() + unused.err(), "");
}

}  // namespace
}  // namespace moraine::tools
