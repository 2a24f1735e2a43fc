#include "tools/console.h"

#include <gtest/gtest.h>

#include "support/captured_console.h"
#include "support/expect_error.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;

TEST(Console, AnswersAndMessagesGoDifferentWays) {
  CapturedConsole captured;
  captured.console().out("answer\n");
  captured.console().line("a message");
  EXPECT_EQ(captured.out(), "answer\n");
  EXPECT_EQ(captured.err(), "moraine: a message\n");
}

TEST(Console, WithoutATerminalThereAreNoEscapeSequences) {
  CapturedConsole captured;
  EXPECT_EQ(captured.console().dim_on(), "");
  captured.console().redraw("bar");
  EXPECT_EQ(captured.err(), "");
}

TEST(Console, ARedrawnLineIsErasedBeforeAnythingElseIsPrinted) {
  CapturedConsole captured(true, true);
  captured.console().redraw("bar");
  captured.console().out("text");
  captured.console().err("more");
  EXPECT_EQ(captured.err(), "\rbar\x1b[K\r\x1b[Kmore");
}

TEST(Console, ARedrawnLineIsCutToTheWidthBetweenCharacters) {
  CapturedConsole captured(true, true);
  std::string wide;
  for (int count = 0; count < 200; ++count) wide += "é";
  captured.console().redraw(wide);
  EXPECT_EQ(captured.err(), "\r" + wide.substr(0, 2 * 79) + "\x1b[K");
}

TEST(Console, AnOutputThatCannotBeWrittenIsAnError) {
  std::FILE* full = std::fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  Console console(full, stderr, false, false);
  testing::expect_error(quant::ErrorKind::kNotEnough, {"standard output"}, [&] { console.out("text"); });
  std::fclose(full);
}

TEST(TerminalSafe, LeavesTextAndLineBreaks) {
  EXPECT_EQ(terminal_safe("a\tb\nü → 語"), "a\tb\nü → 語");
}

TEST(TerminalSafe, DisarmsControlCharacters) {
  EXPECT_EQ(terminal_safe("\x1b[31m"), "\xEF\xBF\xBD[31m");
  EXPECT_EQ(terminal_safe("\r\x7f"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(terminal_safe("\xC2\x9B"
                          "1m"),
            "\xEF\xBF\xBD"
            "1m");  // U+009B, an escape sequence in one character
  EXPECT_EQ(terminal_safe("\xC2\xA0"), "\xC2\xA0");
}

}  // namespace
}  // namespace moraine::tools
