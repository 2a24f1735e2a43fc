#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>

#include "tools/commands.h"
#include "tools/eval_logits.h"
#include "tools/eval_tasks.h"

namespace moraine::tools {
namespace {

constexpr int64_t kMaxCount = int64_t{1} << 40;

void add_logits(CLI::App& eval, Command& chosen) {
  CLI::App* command = eval.add_subcommand("logits", "Write the logits after every token of a sequence");
  const auto options = std::make_shared<EvalLogitsOptions>();
  add_engine_flags(*command, options->engine, ModelArgument::kRequired);
  auto* source = command->add_option_group("ids", "Exactly one of these:");
  source->add_option("--ids", options->ids_text, "Token ids, separated by commas")->type_name("0,3,…");
  source
      ->add_option_function<std::string>(
          "--ids-file", [options](const std::string& text) { options->ids_file = text; },
          "A file of token ids, separated by commas or white space")
      ->type_name("FILE");
  source->require_option(1);
  command
      ->add_option_function<std::string>(
          "--out", [options](const std::string& text) { options->out_file = text; },
          "NumPy file to write: float32 [tokens, vocabulary]")
      ->type_name("F.npy")
      ->required();
  command
      ->add_option_function<std::string>(
          "--routes", [options](const std::string& text) { options->routes_file = text; },
          "Also write the experts chosen for every layer and token, with their\nweights, as JSON")
      ->type_name("F.json");
  add_json_flag(*command, options->json, "Print one JSON object: model, experts, out, shape, store");
  set_help_footer(*command, "  moraine eval logits ~/models/pack --ids 0,3,17,5 --out logits.npy\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return eval_logits(*options, console); }; });
}

void add_tasks(CLI::App& eval, Command& chosen) {
  CLI::App* command = eval.add_subcommand("tasks", "Count how many problems of a file are answered right");
  const auto options = std::make_shared<EvalTasksOptions>();
  add_engine_flags(*command, options->engine, ModelArgument::kRequired);
  command
      ->add_option_function<std::string>(
          "FILE", [options](const std::string& text) { options->file = text; },
          "Problems: one JSON object per line with \"prompt\", \"answer\" and perhaps \"task\"")
      ->type_name("")
      ->required();
  command->add_option("--limit", options->limit, "Only the first N problems; 0 = all (default: 0)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, kMaxCount).description(""));
  command->add_option("--max-tokens", options->max_tokens, "Most tokens of an answer, thinking included (default: 160)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kMaxCount).description(""));
  add_json_flag(*command, options->json,
                "Print one JSON object: model, experts, right, of, accuracy, by_task, answers");
  set_help_footer(*command, "  moraine eval tasks ~/models/pack tasks.jsonl --limit 100\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return eval_tasks(*options, console); }; });
}

}  // namespace

void add_eval_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("eval", "Measure a model: its logits, or its answers to a file of problems");
  command->require_subcommand(1);
  set_help_footer(*command,
                  "  moraine eval logits ~/models/pack --ids 0,3,17,5 --out logits.npy\n"
                  "  moraine eval tasks ~/models/pack tasks.jsonl\n");
  add_logits(*command, chosen);
  add_tasks(*command, chosen);
}

}  // namespace moraine::tools
