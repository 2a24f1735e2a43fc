#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>

#include "tools/commands.h"
#include "tools/console.h"
#include "tools/predictor_training.h"

namespace moraine::tools {
namespace {

constexpr int64_t kMaxCount = int64_t{1} << 40;

void add_prediction_flags(CLI::App& command, PredictionOptions& options) {
  add_engine_flags(command, options.engine, ModelArgument::kRequired);
  command.remove_option(command.get_option("--context"));  // a window is all the context there is
  command.add_option("--max-tokens", options.max_tokens, "Only the first N tokens of the text (default: 8192)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{64}, kMaxCount).description(""));
  command.add_option("--window", options.window, "Tokens of a sequence of its own (default: 256)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20).description(""));
}

}  // namespace

void add_eval_recall(CLI::App& eval, Command& chosen) {
  CLI::App* command =
      eval.add_subcommand("recall", "Count how well a layer's experts can be told before its router speaks");
  const auto options = std::make_shared<PredictionOptions>();
  add_prediction_flags(*command, *options);
  command
      ->add_option_function<std::string>(
          "FILE", [options](const std::string& text) { options->text_file = text; }, "Text of at most 256 MiB")
      ->type_name("")
      ->required();
  command
      ->add_option_function<std::string>(
          "--predictor", [options](const std::string& text) { options->predictor_file = text; },
          "Count this predictor, too (written by `moraine train-predictor`)")
      ->type_name("F");
  add_json_flag(*command, options->json, "Print one JSON object: recall by source and layer");
  set_help_footer(*command, "  moraine eval recall ~/models/pack text.txt\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return eval_recall(*options, console); }; });
}

void add_train_predictor_command(CLI::App& app, Command& chosen) {
  CLI::App* command =
      app.add_subcommand("train-predictor", "Learn from a text which experts come next, if that beats the router");
  const auto options = std::make_shared<PredictionOptions>();
  add_prediction_flags(*command, *options);
  command
      ->add_option_function<std::string>(
          "--text", [options](const std::string& text) { options->text_file = text; },
          "Text of at most 256 MiB, of the kind that will be asked about")
      ->type_name("F")
      ->required();
  command
      ->add_option_function<std::string>(
          "--out", [options](const std::string& text) { options->predictor_file = text; },
          "File to write (default: in the user's cache, where it is found when\nthe model runs)")
      ->type_name("F");
  add_json_flag(*command, options->json, "Print one JSON object: recall by source and layer, gain, saved");
  set_help_footer(
      *command,
      "  moraine train-predictor ~/models/pack --text chats.txt\n\n"
      "Kept only if it finds 3 % more of the experts than the router asked early, on text it has not seen.\n"
      "It changes when bytes arrive, never which experts run.\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return train_predictor(*options, console); }; });
}

}  // namespace moraine::tools
