#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>

#include "tools/commands.h"
#include "tools/eval_kl.h"
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
  add_trace_flag(*command, options->engine);
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

void add_kl(CLI::App& eval, Command& chosen) {
  CLI::App* command = eval.add_subcommand("kl", "Compare a model's next-token probabilities with a reference's");
  const auto options = std::make_shared<EvalKlOptions>();
  add_engine_flags(*command, options->engine, ModelArgument::kRequired);
  // Here the word means the other model; its arithmetic is the exact one anyway.
  command->remove_option(command->get_option("--reference"));
  command->remove_option(command->get_option("--context"));  // a window is all the context there is
  command
      ->add_option_function<std::string>(
          "FILE", [options](const std::string& text) { options->file = text; }, "Text of at most 256 MiB")
      ->type_name("")
      ->required();
  command
      ->add_option_function<std::string>(
          "--reference", [options](const std::string& text) { options->reference.model = text; },
          "The model that counts as right, in f32 arithmetic")
      ->type_name("MODEL2")
      ->required();
  command
      ->add_option_function<std::string>(
          "--reference-experts",
          [options](const std::string& text) { options->reference.experts = parse_expert_type(text); },
          "The reference's --experts (default: as stored)")
      ->type_name("TYPE");
  command->add_option("--max-tokens", options->max_tokens, "Only the first N tokens of the text (default: 8192)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kMaxCount).description(""));
  command->add_option("--context", options->context, "Tokens of a window, a sequence of its own (default: 256)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kMaxCount).description(""));
  add_json_flag(*command, options->json,
                "Print one JSON object: model, experts, reference, reference_experts,\n"
                "positions, mean_kl, worst_kl, worst_position, top1_agreement");
  set_help_footer(*command,
                  "  moraine eval kl ~/models/pack --reference ~/models/DeepSeek-R1 text.txt\n"
                  "  moraine eval kl ~/models/DeepSeek-R1 --experts Q4_K --reference ~/models/DeepSeek-R1 text.txt\n\n"
                  "Both models are in memory at the same time; --ram-budget counts for each of them.\n");
  command->callback([options, &chosen] {
    options->reference.ram_budget_bytes = options->engine.ram_budget_bytes;
    options->engine.context_tokens = options->reference.context_tokens = options->context;
    options->reference.threads = options->engine.threads;
    options->reference.reader = options->engine.reader;
    options->reference.prefetch = options->engine.prefetch;
    options->reference.precise = true;
    chosen = [options](Console& console) { return eval_kl(*options, console); };
  });
}

}  // namespace

void add_eval_command(CLI::App& app, Command& chosen) {
  CLI::App* command =
      app.add_subcommand("eval", "Measure a model: its logits, its answers to problems, its distance\nfrom another");
  command->require_subcommand(1);
  set_help_footer(*command,
                  "  moraine eval logits ~/models/pack --ids 0,3,17,5 --out logits.npy\n"
                  "  moraine eval tasks ~/models/pack tasks.jsonl\n"
                  "  moraine eval kl ~/models/pack --reference ~/models/DeepSeek-R1 text.txt\n"
                  "  moraine eval recall ~/models/pack text.txt\n");
  add_logits(*command, chosen);
  add_tasks(*command, chosen);
  add_kl(*command, chosen);
  add_eval_recall(*command, chosen);
}

}  // namespace moraine::tools
