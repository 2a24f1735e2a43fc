#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/generator.h"
#include "tools/console.h"

namespace moraine::tools {

/// What becomes of the model's thinking on the screen.
enum class ThinkingView {
  kShown,   ///< dimmed, as it comes
  kFolded,  ///< one line: "… thought for N tokens"
  kHidden,
};
std::string_view thinking_view_name(ThinkingView view);
std::optional<ThinkingView> thinking_view_from_name(std::string_view name);
/// shown → folded → hidden → shown.
ThinkingView next_thinking_view(ThinkingView view);

/// Shows one answer as it streams: the answer on stdout, the thinking on stderr. Leading and trailing blank lines of
/// both are left out; stdout ends with exactly one line feed.
class ChatView {
 public:
  ChatView(Console& console, ThinkingView thinking);

  void on_token(const runtime::TokenEvent& event);
  /// After the last token.
  void finish();

 private:
  void show_thinking(std::string_view text);
  void show_answer(std::string_view text);
  void end_thinking();

  Console& console_;
  ThinkingView thinking_;
  int64_t thinking_tokens_ = 0;
  bool thinking_open_ = false;  // thinking has come and was not yet ended on the screen
  std::string thinking_blank_;  // white space of the thinking that is shown only if more text follows
  bool thinking_begun_ = false;
  std::string answer_blank_;  // the same of the answer
  bool answer_begun_ = false;
};

/// What the expert store did for an answer, counter by counter, with the stall per output token.
std::string store_stats_text(const runtime::GenerateStats& stats);
/// One line for after an answer: "prefill 512.3 tokens/s · decode 45.2 tokens/s · context 312 of 8192 · …".
std::string stats_line(const runtime::GenerateStats& stats, int64_t context_used, int64_t context_of);

}  // namespace moraine::tools
