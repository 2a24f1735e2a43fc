#include "tools/chat_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "tools/byte_size.h"

namespace moraine::tools {
namespace {

constexpr std::array<std::pair<ThinkingView, std::string_view>, 3> kViewNames = {
    {{ThinkingView::kShown, "shown"}, {ThinkingView::kFolded, "folded"}, {ThinkingView::kHidden, "hidden"}}};
constexpr std::string_view kWhiteSpace = " \t\r\n";

/// Streams text without the white space around the whole: that at the start is dropped, that at the end of a piece is
/// kept in `held` until more text follows. Returns what can be shown now.
std::string trimmed_piece(std::string_view text, std::string& held, bool& begun) {
  if (!begun) {
    const size_t first = text.find_first_not_of(kWhiteSpace);
    if (first == std::string_view::npos) return {};
    text.remove_prefix(first);
    begun = true;
  }
  const size_t last = text.find_last_not_of(kWhiteSpace);
  if (last == std::string_view::npos) {
    held += text;
    return {};
  }
  std::string shown = std::exchange(held, std::string(text.substr(last + 1)));
  shown += text.substr(0, last + 1);
  return shown;
}

}  // namespace

std::string_view thinking_view_name(ThinkingView view) {
  return kViewNames[static_cast<size_t>(view)].second;
}

std::optional<ThinkingView> thinking_view_from_name(std::string_view name) {
  for (const auto& [view, known] : kViewNames) {
    if (name == known) return view;
  }
  return std::nullopt;
}

ThinkingView next_thinking_view(ThinkingView view) {
  return kViewNames[(static_cast<size_t>(view) + 1) % kViewNames.size()].first;
}

ChatView::ChatView(Console& console, ThinkingView thinking) : console_(console), thinking_(thinking) {}

void ChatView::on_token(const runtime::TokenEvent& event) {
  if (event.thinking) {
    show_thinking(event.text);
  } else if (!event.text.empty()) {
    end_thinking();
    show_answer(event.text);
  }
}

void ChatView::show_thinking(std::string_view text) {
  ++thinking_tokens_;
  thinking_open_ = true;
  if (thinking_ == ThinkingView::kFolded) {
    console_.redraw(fmt::format("… thinking: {} tokens", thinking_tokens_));
  } else if (thinking_ == ThinkingView::kShown) {
    const std::string shown = trimmed_piece(text, thinking_blank_, thinking_begun_);
    if (shown.empty()) return;
    // Dimmed piece by piece, so that whatever ends the program leaves the terminal as it was.
    console_.err(fmt::format("{}{}{}", console_.dim_on(), console_.err_is_terminal() ? terminal_safe(shown) : shown,
                             console_.dim_off()));
  }
}

void ChatView::end_thinking() {
  if (!std::exchange(thinking_open_, false)) return;
  if (thinking_ == ThinkingView::kFolded) {
    console_.err(fmt::format("{}… thought for {} tokens{}\n", console_.dim_on(), thinking_tokens_, console_.dim_off()));
  } else if (thinking_ == ThinkingView::kShown && thinking_begun_) {
    console_.err("\n\n");
  }
}

void ChatView::show_answer(std::string_view text) {
  const std::string shown = trimmed_piece(text, answer_blank_, answer_begun_);
  if (!shown.empty()) console_.out(console_.out_is_terminal() ? terminal_safe(shown) : shown);
}

void ChatView::finish() {
  end_thinking();
  if (answer_begun_) console_.out("\n");
}

std::string stats_line(const runtime::GenerateStats& stats, int64_t context_used, int64_t context_of) {
  return fmt::format(
      "prefill {:.1f} tokens/s · decode {:.1f} tokens/s · context {} of {} · expert hits {:.1f} % · {} read",
      stats.prefill_tokens_per_s(), stats.decode_tokens_per_s(), context_used, context_of,
      stats.expert_hit_rate() * 100.0, byte_size_text(stats.store.bytes_read));
}

std::string store_stats_text(const runtime::GenerateStats& stats) {
  std::string text;
  stats.store.visit([&](const char* name, uint64_t value) { text += fmt::format("  {:<18} {}\n", name, value); });
  const auto tokens = static_cast<double>(std::max<int64_t>(1, stats.output_tokens));
  return text + fmt::format("  {:<18} {:.1f}\n", "stall_ms_per_token",
                            static_cast<double>(stats.store.stall_us) / 1e3 / tokens);
}

}  // namespace moraine::tools
