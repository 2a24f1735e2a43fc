#include <fmt/format.h>
#include <unistd.h>

#include <CLI/Formatter.hpp>
#include <memory>
#include <optional>
#include <string>

#include "quant/error.h"
#include "quant/json.h"
#include "tools/chat_view.h"
#include "tools/commands.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/progress_bar.h"
#include "tools/stats_json.h"
#include "tools/trace_recorder.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxPromptBytes = 64u << 20;

struct GenerateCommand {
  EngineOptions engine;
  SamplingFlags sampling;
  std::optional<std::string> prompt;
  std::optional<std::string> file;  ///< "-" is stdin
  bool raw = false;
  bool json = false;
};

std::string read_standard_input() {
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t count = read(STDIN_FILENO, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw quant::system_error(errno, "could not read standard input", {});
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kMaxPromptBytes) {
      throw quant::Error(quant::ErrorKind::kUsage, {.what = "the prompt on standard input is larger than 64 MiB"});
    }
  }
}

std::string prompt_text(const GenerateCommand& options) {
  if (options.prompt) return *options.prompt;
  return *options.file == "-" ? read_standard_input() : quant::read_text(*options.file, kMaxPromptBytes);
}

/// Every token's text as it comes, the markers of thinking included, the end token not.
void stream_raw(const runtime::Engine& engine, const runtime::TokenEvent& event, Console& console) {
  const runtime::ModelText& text = engine.text();
  if (event.id == text.think_token || event.id == text.end_think_token) {
    // Bytes held back before the marker come with it, as its text.
    console.out(event.text);
    console.out(engine.tokenizer().token_bytes(event.id));
  } else {
    console.out(event.text);
  }
}

void print_json(const GenerateCommand& options, const runtime::GenerateResult& result, Console& console) {
  const quant::Json json = {{"model", model_name(model_directory(options.engine.model))},
                            {"prompt_tokens", result.stats.prompt_tokens},
                            {"output_tokens", result.stats.output_tokens},
                            {"ids", result.ids},
                            {"thinking", result.thinking},
                            {"answer", result.answer},
                            {"finish_reason", runtime::finish_reason_name(result.finish)},
                            {"stats", stats_json(result.stats)}};
  console.out(json_text(json));
}

int generate(const GenerateCommand& options, Console& console) {
  const std::string text = prompt_text(options);
  const std::unique_ptr<TraceRecorder> trace = open_trace(options.engine.trace_file);
  const std::unique_ptr<runtime::Engine> engine = open_engine(options.engine, console, adapter_of(trace));
  const runtime::GenerateOptions wanted = options.sampling.merged_with(engine->text().default_sampling);
  const runtime::Message message{.role = "user", .content = text};
  const std::vector<int32_t> prompt = options.raw ? engine->raw_prompt(text) : engine->chat_prompt({&message, 1});

  ChatView view(console, ThinkingView::kHidden);
  ProgressBar bar(console, "reading the prompt", ProgressUnit::kItems);
  runtime::GenerateCallbacks callbacks;
  callbacks.on_prefill = [&](int64_t done, int64_t total) {
    bar.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total), "tokens");
  };
  if (options.raw && !options.json) {
    callbacks.on_token = [&](const runtime::TokenEvent& event) { stream_raw(*engine, event, console); };
  } else if (!options.json) {
    callbacks.on_token = [&](const runtime::TokenEvent& event) { view.on_token(event); };
  }
  runtime::Session session = engine->new_session();
  const runtime::GenerateResult result = runtime::generate(*engine, session, prompt, wanted, callbacks);
  if (options.json) {
    print_json(options, result, console);
  } else if (options.raw) {
    console.out("\n");
  } else {
    view.finish();
  }
  const std::string ending = result.finish == runtime::FinishReason::kStop
                                 ? ""
                                 : fmt::format("[ended: {}] ", runtime::finish_reason_name(result.finish));
  console.err(
      fmt::format("{}{}{}{}\n", console.dim_on(), ending,
                  stats_line(result.stats, static_cast<int64_t>(session.tokens().size()), engine->context_tokens()),
                  console.dim_off()));
  warn_if_cut(trace, console);
  return kExitOk;
}

}  // namespace

void add_generate_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("generate", "Answer one prompt on stdout");
  const auto options = std::make_shared<GenerateCommand>();
  auto* source = command->add_option_group("prompt", "Exactly one of these:");
  source->add_option("-p,--prompt", options->prompt, "The prompt")->type_name("TEXT");
  source->add_option("--file", options->file, "Take the prompt from this file of at most 64 MiB; - is standard input")
      ->type_name("FILE");
  source->require_option(1);
  command->add_flag(
      "--raw", options->raw,
      "No chat template: the model goes on with the text as it is, and all\nof its output is printed, thinking too");
  add_json_flag(*command, options->json,
                "Print one JSON object: model, prompt_tokens, output_tokens, ids, thinking,\n"
                "answer, finish_reason, stats");
  add_engine_flags(*command, options->engine, ModelArgument::kRequired);
  add_trace_flag(*command, options->engine);
  add_sampling_flags(*command, options->sampling);
  set_help_footer(*command,
                  "  moraine generate ~/models/pack -p \"Why is the sky blue?\" --temp 0\n"
                  "  moraine generate ~/models/pack --file question.txt --json | jq -r .answer\n"
                  "  echo \"Once upon a time\" | moraine generate ~/models/pack --file - --raw --max-tokens 100\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return generate(*options, console); }; });
}

}  // namespace moraine::tools
