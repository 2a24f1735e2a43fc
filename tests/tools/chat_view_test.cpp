#include "tools/chat_view.h"

#include <gtest/gtest.h>

#include "support/captured_console.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;

/// "<think>\nfirst second\n</think>\n\nthe answer \n" as the generator gives it.
void stream_answer(ChatView& view) {
  for (const char* text : {"\n", "first", " second", "\n", ""})
    view.on_token({.id = 5, .text = text, .thinking = true});
  for (const char* text : {"\n\n", "the", " answer", " \n", ""})
    view.on_token({.id = 6, .text = text, .thinking = false});
  view.finish();
}

TEST(ChatView, ShownThinkingGoesToStderrAndTheAnswerAloneToStdout) {
  CapturedConsole captured;
  ChatView view(captured.console(), ThinkingView::kShown);
  stream_answer(view);
  EXPECT_EQ(captured.out(), "the answer\n");
  EXPECT_EQ(captured.err(), "first second\n\n");
}

TEST(ChatView, ThinkingIsDimmedOnATerminal) {
  unsetenv("NO_COLOR");
  CapturedConsole captured(true, true);
  ChatView view(captured.console(), ThinkingView::kShown);
  stream_answer(view);
  EXPECT_EQ(captured.err(), "\x1b[2mfirst\x1b[0m\x1b[2m second\x1b[0m\n\n");
}

TEST(ChatView, FoldedThinkingIsOneLine) {
  CapturedConsole captured;
  ChatView view(captured.console(), ThinkingView::kFolded);
  stream_answer(view);
  EXPECT_EQ(captured.out(), "the answer\n");
  EXPECT_EQ(captured.err(), "… thought for 5 tokens\n");
}

TEST(ChatView, HiddenThinkingLeavesNothing) {
  CapturedConsole captured;
  ChatView view(captured.console(), ThinkingView::kHidden);
  stream_answer(view);
  EXPECT_EQ(captured.out(), "the answer\n");
  EXPECT_EQ(captured.err(), "");
}

TEST(ChatView, WhiteSpaceInsideAnAnswerStays) {
  CapturedConsole captured;
  ChatView view(captured.console(), ThinkingView::kHidden);
  for (const char* text : {"one\n", "\n", "  two", "\n"}) view.on_token({.id = 6, .text = text, .thinking = false});
  EXPECT_EQ(captured.out(), "one\n\n  two");
  view.finish();
  EXPECT_EQ(captured.out(), "one\n\n  two\n");
}

TEST(ChatView, NoAnswerIsNoLine) {
  CapturedConsole captured;
  ChatView view(captured.console(), ThinkingView::kHidden);
  view.on_token({.id = 5, .text = "thinking", .thinking = true});
  view.finish();
  EXPECT_EQ(captured.out(), "");
}

TEST(ChatView, AModelCannotCommandTheTerminal) {
  CapturedConsole captured(true, true);
  ChatView view(captured.console(), ThinkingView::kShown);
  view.on_token({.id = 6, .text = "a\x1b[2Jb", .thinking = false});
  EXPECT_EQ(captured.out(), "a\xEF\xBF\xBD[2Jb");
}

TEST(ThinkingView, NamesRoundTripAndToggleInACircle) {
  for (const ThinkingView view : {ThinkingView::kShown, ThinkingView::kFolded, ThinkingView::kHidden}) {
    EXPECT_EQ(thinking_view_from_name(thinking_view_name(view)), view);
    EXPECT_EQ(next_thinking_view(next_thinking_view(next_thinking_view(view))), view);
    EXPECT_NE(next_thinking_view(view), view);
  }
  EXPECT_EQ(thinking_view_from_name("loud"), std::nullopt);
}

TEST(StatsLine, TellsSpeedContextHitsAndBytes) {
  runtime::GenerateStats stats;
  stats.prompt_tokens = 100;
  stats.prefill_s = 0.5;
  stats.output_tokens = 11;
  stats.decode_s = 2.0;
  stats.store.hits = 3;
  stats.store.misses = 1;
  stats.store.bytes_read = 3u << 20;
  EXPECT_EQ(stats_line(stats, 111, 8192),
            "prefill 200.0 tokens/s · decode 5.0 tokens/s · context 111 of 8192 · expert hits 75.0 % · 3.0 MiB read");
}

}  // namespace
}  // namespace moraine::tools
