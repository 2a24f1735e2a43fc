#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>
#include <optional>
#include <string>

#include "quant/error.h"
#include "tools/chat_session.h"
#include "tools/commands.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/line_editor.h"
#include "tools/speed_forecast.h"
#include "tools/trace_recorder.h"
#include "tools/user_files.h"

namespace moraine::tools {
namespace {

struct RunOptions {
  EngineOptions engine;
  SamplingFlags sampling;
  std::optional<std::string> prompt;
  std::string thinking = "shown";
  bool stats = false;
};

/// A turn as typed: a line, and those after it for as long as each ends with a backslash.
TypedLine next_turn(LineEditor& editor) {
  TypedLine turn = editor.next("> ");
  while (turn.kind == TypedLine::Kind::kText && !turn.text.empty() && turn.text.back() == '\\') {
    turn.text.back() = '\n';
    TypedLine more = editor.next("… ");
    if (more.kind == TypedLine::Kind::kEnd) break;
    turn.kind = more.kind;
    turn.text += more.text;
  }
  return turn;
}

/// Turns until the person leaves. A failed answer ends an interactive chat no more than it has to.
int chat(ChatSession& session, Console& console, SignalWatch& signals) {
  const std::unique_ptr<LineEditor> editor = make_line_editor(console, signals, history_file());
  while (true) {
    const TypedLine turn = next_turn(*editor);
    if (turn.kind == TypedLine::Kind::kEnd) {
      if (editor->interactive()) console.err("\n");
      return kExitOk;
    }
    if (turn.kind == TypedLine::Kind::kInterrupted) {
      if (editor->interactive()) console.err("^C\n");
      if (!editor->interactive() || signals.terminated() || turn.text.empty()) return signals.exit_code();
      signals.forget_interrupt();  // Ctrl-C behind some text throws the text away
      continue;
    }
    if (turn.text.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    if (turn.text.front() == '/') {
      if (!session.obey(turn.text)) return kExitOk;
      continue;
    }
    try {
      session.answer(turn.text);
    } catch (const quant::Error& error) {
      // A prompt too long for the context is the person's to mend; a model that can't be read is not.
      if (error.kind() != quant::ErrorKind::kUsage) throw;
      console.line(error.what());
    }
    if (signals.terminated() || (signals.interrupted() && !editor->interactive())) return signals.exit_code();
    signals.forget_interrupt();
  }
}

int run(const RunOptions& options, Console& console) {
  const std::filesystem::path directory = model_directory(options.engine.model);
  const std::unique_ptr<TraceRecorder> trace = open_trace(options.engine.trace_file);
  tell_expected_speed(options.engine, console);
  const std::unique_ptr<runtime::Engine> engine = open_engine(options.engine, console, adapter_of(trace));
  SignalWatch signals;
  ChatSession session(*engine, options.sampling.merged_with(engine->text().default_sampling),
                      *thinking_view_from_name(options.thinking), model_name(directory), console, signals);
  if (options.stats) session.tell_stats();
  if (options.prompt) {
    const runtime::FinishReason finish = session.answer(*options.prompt);
    return finish == runtime::FinishReason::kCancelled ? signals.exit_code() : kExitOk;
  }
  if (console.err_is_terminal()) {
    console.err(fmt::format("Chat with {}. /help lists the commands, Ctrl-D leaves.\n", model_name(directory)));
  }
  return chat(session, console, signals);
}

}  // namespace

void add_run_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("run", "Chat in the terminal, or answer one prompt");
  const auto options = std::make_shared<RunOptions>();
  command->add_option("-p,--prompt", options->prompt, "Answer this and leave, instead of chatting")->type_name("TEXT");
  command
      ->add_option(
          "--thinking", options->thinking,
          "The model's thinking on stderr: shown, folded (one line) or hidden\n(default: shown; /think changes it)")
      ->type_name("VIEW")
      ->check(CLI::IsMember({"shown", "folded", "hidden"}).description(""));
  command->add_flag("--stats", options->stats,
                    "Speed, hits, drive, waiting while answering (last row of the\nterminal, else a line every 10 s), "
                    "and all counters after it");
  add_trace_flag(*command, options->engine);
  add_engine_flags(*command, options->engine, ModelArgument::kOptional);
  add_sampling_flags(*command, options->sampling);
  set_help_footer(*command,
                  "  moraine run\n"
                  "  moraine run ~/models/DeepSeek-R1-pack --ram-budget 200GiB\n"
                  "  moraine run -p \"What is a KV cache?\" > answer.txt\n"
                  "  printf 'Who are you?\\nTell me a joke.\\n' | moraine run --thinking hidden\n");
  command->callback([options, &chosen] { chosen = [options](Console& console) { return run(*options, console); }; });
}

}  // namespace moraine::tools
