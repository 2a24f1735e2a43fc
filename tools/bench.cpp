#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <memory>

#include "tools/benchmark.h"
#include "tools/commands.h"

namespace moraine::tools {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 30;
constexpr int kMaxRepetitions = 1000;

void add_plan_flags(CLI::App& command, BenchPlan& plan) {
  command
      .add_option("-p,--prompt-tokens", plan.prompt_tokens,
                  "Prompts of so many tokens, separated by commas; 0 = none\n(default: 128,1024)")
      ->type_name("LIST")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{0}, kMaxTokens).description(""));
  command.add_option("-n,--decode-tokens", plan.decode_tokens, "Tokens to decode; 0 = none (default: 64)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, kMaxTokens).description(""));
  command
      .add_option("--depth", plan.depths,
                  "Tokens in the cache before decoding begins, separated by commas\n(default: 0)")
      ->type_name("LIST")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(int64_t{0}, kMaxTokens).description(""));
  command.add_option("--reps", plan.repetitions, "Repetitions of every test, 1 to 1000 (default: 3)")
      ->type_name("N")
      ->check(CLI::Range(1, kMaxRepetitions).description(""));
}

}  // namespace

void add_bench_command(CLI::App& app, Command& chosen) {
  CLI::App* command =
      app.add_subcommand("bench", "Measure speed, and this machine's own limits beside it in the same run");
  const auto options = std::make_shared<BenchOptions>();
  options->limit_sizes.read_bytes = 0;
  options->engine.warm_start = false;  // what an earlier run wanted is no part of a measurement
  add_engine_flags(*command, options->engine, ModelArgument::kRequired);
  add_plan_flags(*command, options->plan);
  add_json_flag(*command, options->json, "Print one JSON object: machine, model, limits, rows");
  set_help_footer(*command,
                  "  moraine bench ~/models/pack\n"
                  "  moraine bench ~/models/pack -p 128,1024,8192 -n 64 --depth 0,8192 --json\n");
  command->callback([options, &chosen] {
    std::erase(options->plan.prompt_tokens, 0);
    chosen = [options](Console& console) { return bench(*options, console); };
  });
}

}  // namespace moraine::tools
