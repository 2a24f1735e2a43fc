#pragma once

#include <CLI/App.hpp>

#include "tools/cli_options.h"

namespace moraine::tools {

/// One subcommand each, in the file of its name: adds it to `app` with its flags and help; when the command line asks
/// for it, `chosen` is set.
void add_run_command(CLI::App& app, Command& chosen);
void add_generate_command(CLI::App& app, Command& chosen);
void add_eval_command(CLI::App& app, Command& chosen);
void add_inspect_command(CLI::App& app, Command& chosen);
void add_verify_command(CLI::App& app, Command& chosen);
void add_convert_command(CLI::App& app, Command& chosen);
void add_synth_command(CLI::App& app, Command& chosen);
void add_bench_command(CLI::App& app, Command& chosen);
void add_plan_command(CLI::App& app, Command& chosen);
void add_eval_recall(CLI::App& eval, Command& chosen);
void add_train_predictor_command(CLI::App& app, Command& chosen);
void add_trace_command(CLI::App& app, Command& chosen);
void add_simulate_command(CLI::App& app, Command& chosen);

}  // namespace moraine::tools
