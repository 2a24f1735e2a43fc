#pragma once

#include <string>
#include <vector>

#include "runtime/engine.h"
#include "tools/chat_view.h"
#include "tools/console.h"
#include "tools/signals.h"

namespace moraine::tools {

/// One conversation with a model: its messages, the engine's session, how answers are shown, and the commands that
/// begin with a slash. Knows nothing of how lines are typed.
class ChatSession {
 public:
  /// `signals` is asked while an answer is computed; all references outlive this.
  ChatSession(runtime::Engine& engine, const runtime::GenerateOptions& options, ThinkingView thinking,
              std::string model_name, Console& console, const SignalWatch& signals);

  /// From now on every answer is accompanied by what decoding does at the moment (LiveStats), and followed by what the
  /// expert store did for it.
  void tell_stats() { tells_stats_ = true; }
  /// Answers `text`, streaming, with a line of statistics. Stopped by a signal, what was answered so far stays in the
  /// conversation. Throws quant::Error; the conversation is then as before.
  runtime::FinishReason answer(const std::string& text);

  /// Obeys a line that begins with '/'. False if it asks to leave. What goes wrong is said on stderr.
  bool obey(const std::string& line);

  const std::vector<runtime::Message>& messages() const { return messages_; }

 private:
  void set_thinking(const std::string& name);
  void save(const std::string& file);
  void load(const std::string& file);
  void show_counters();

  runtime::Engine& engine_;
  runtime::GenerateOptions options_;
  ThinkingView thinking_;
  std::string model_name_;
  Console& console_;
  const SignalWatch& signals_;
  runtime::Session session_;
  std::vector<runtime::Message> messages_;
  bool tells_stats_ = false;
};

}  // namespace moraine::tools
