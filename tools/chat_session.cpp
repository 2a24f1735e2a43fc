#include "tools/chat_session.h"

#include <fmt/format.h>

#include <optional>

#include "quant/error.h"
#include "tools/byte_size.h"
#include "tools/chat_file.h"
#include "tools/live_stats.h"
#include "tools/progress_bar.h"

namespace moraine::tools {
namespace {

const char* const kChatHelp =
    "  /help            this list\n"
    "  /clear           forget the conversation\n"
    "  /think [VIEW]    how thinking is shown: shown, folded or hidden; without VIEW the next of them\n"
    "  /stats           counters of the expert store since the start\n"
    "  /save FILE       write the conversation to FILE (JSON)\n"
    "  /load FILE       go on with a saved conversation\n"
    "  /exit            leave (also Ctrl-D, or Ctrl-C at the empty prompt)\n"
    "  Ctrl-C stops an answer. A line that ends with \\ goes on in the next one; a space before / makes it plain "
    "text.\n";

}  // namespace

ChatSession::ChatSession(runtime::Engine& engine, const runtime::GenerateOptions& options, ThinkingView thinking,
                         std::string model_name, Console& console, const SignalWatch& signals)
    : engine_(engine),
      options_(options),
      thinking_(thinking),
      model_name_(std::move(model_name)),
      console_(console),
      signals_(signals),
      session_(engine.new_session()) {}

runtime::FinishReason ChatSession::answer(const std::string& text) {
  std::vector<runtime::Message> asked = messages_;
  asked.push_back({.role = "user", .content = text});
  const std::vector<int32_t> prompt = engine_.chat_prompt(asked);

  ChatView view(console_, thinking_);
  ProgressBar bar(console_, "reading the prompt", ProgressUnit::kItems);
  std::optional<LiveStats> live;
  if (tells_stats_) live.emplace(console_, [&] { return engine_.store().counters(); });
  const runtime::GenerateCallbacks callbacks{.on_token =
                                                 [&](const runtime::TokenEvent& event) {
                                                   if (live) live->on_token();
                                                   view.on_token(event);
                                                 },
                                             .on_prefill =
                                                 [&](int64_t done, int64_t total) {
                                                   bar.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total),
                                                              "tokens");
                                                 },
                                             .stop = [&] { return signals_.any(); }};
  const runtime::GenerateResult result = runtime::generate(engine_, session_, prompt, options_, callbacks);
  live.reset();
  view.finish();

  asked.push_back({.role = "assistant", .content = result.answer});
  messages_ = std::move(asked);
  if (result.finish != runtime::FinishReason::kStop) {
    console_.err(fmt::format("{}[ended: {}]{}\n", console_.dim_on(), runtime::finish_reason_name(result.finish),
                             console_.dim_off()));
  }
  console_.err(
      fmt::format("{}{}{}\n", console_.dim_on(),
                  stats_line(result.stats, static_cast<int64_t>(session_.tokens().size()), engine_.context_tokens()),
                  console_.dim_off()));
  if (tells_stats_) {
    console_.err(fmt::format("{}{}{}", console_.dim_on(), store_stats_text(result.stats), console_.dim_off()));
  }
  return result.finish;
}

bool ChatSession::obey(const std::string& line) {
  const size_t space = line.find_first_of(" \t");
  const std::string command = line.substr(0, space);
  std::string argument = space == std::string::npos ? "" : line.substr(space);
  argument.erase(0, argument.find_first_not_of(" \t"));
  argument.erase(argument.find_last_not_of(" \t\r") + 1);
  try {
    if (command == "/exit" || command == "/quit") return false;
    if (command == "/help") {
      console_.err(kChatHelp);
    } else if (command == "/clear") {
      messages_.clear();
      console_.line("conversation forgotten");
    } else if (command == "/think") {
      set_thinking(argument);
    } else if (command == "/stats") {
      show_counters();
    } else if (command == "/save") {
      save(argument);
    } else if (command == "/load") {
      load(argument);
    } else {
      console_.line(fmt::format("unknown command {}; /help lists them", quant::printable(command)));
    }
  } catch (const quant::Error& error) {
    console_.line(error.what());
  }
  return true;
}

void ChatSession::set_thinking(const std::string& name) {
  const auto wanted = name.empty() ? next_thinking_view(thinking_) : thinking_view_from_name(name);
  if (!wanted) {
    console_.line("thinking can be shown, folded or hidden");
    return;
  }
  thinking_ = *wanted;
  console_.line(fmt::format("thinking is {}", thinking_view_name(thinking_)));
}

void ChatSession::save(const std::string& file) {
  if (file.empty()) throw quant::Error(quant::ErrorKind::kUsage, {.what = "/save needs the name of a file"});
  write_chat_file(file, {.model = model_name_, .messages = messages_});
  console_.line(fmt::format("{} messages saved to {}", messages_.size(), quant::printable(file)));
}

void ChatSession::load(const std::string& file) {
  if (file.empty()) throw quant::Error(quant::ErrorKind::kUsage, {.what = "/load needs the name of a file"});
  messages_ = read_chat_file(file).messages;
  console_.line(fmt::format("{} messages loaded from {}", messages_.size(), quant::printable(file)));
}

void ChatSession::show_counters() {
  const offload::ExpertStore& store = engine_.store();
  std::string text = fmt::format(
      "reader {}, {} slots of {} for experts, context {} of {} tokens\n", store.reader_name(), store.slot_count(),
      byte_size_text(store.source().max_record_bytes()), session_.tokens().size(), engine_.context_tokens());
  store.counters().visit([&](const char* name, uint64_t value) { text += fmt::format("  {:<18} {}\n", name, value); });
  console_.err(text);
}

}  // namespace moraine::tools
