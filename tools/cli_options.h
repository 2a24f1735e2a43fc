#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/generator.h"
#include "tools/engine_options.h"

namespace moraine::tools {

class Console;

/// What the command line asked for: set by the chosen subcommand while it is parsed, called afterwards. Returns the
/// exit code.
using Command = std::function<int(Console&)>;

/// Whether MODEL may be left out (the embedded one is taken then).
enum class ModelArgument { kRequired, kOptional };

/// The sampling flags that were given; the model's own defaults stand for the others.
struct SamplingFlags {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int32_t> top_k;
  std::optional<double> min_p;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 32768;

  /// Throws quant::Error(kUsage) naming every value out of range.
  runtime::GenerateOptions merged_with(const runtime::SamplingOptions& defaults) const;
};

/// Each flag that several subcommands share is bound in exactly one of these, so that it means the same everywhere.
/// Values that make no sense are refused while parsing (CLI::ParseError or quant::Error(kUsage)). `options` must
/// outlive `command`.
void add_model_argument(CLI::App& command, std::filesystem::path& model, ModelArgument argument);
void add_experts_flag(CLI::App& command, std::optional<quant::DType>& experts, const std::string& help);
/// --resident, with the help text that fits every command.
void add_resident_flag(CLI::App& command, std::optional<quant::DType>& resident);
void add_threads_flag(CLI::App& command, int& threads);
void add_json_flag(CLI::App& command, bool& json, const std::string& help);
/// --ram-budget and --context.
void add_memory_flags(CLI::App& command, EngineOptions& options);
/// --stripe.
CLI::Option* add_stripe_flag(CLI::App& command, std::vector<std::filesystem::path>& mirrors);
/// MODEL and everything about how it is opened.
void add_engine_flags(CLI::App& command, EngineOptions& options, ModelArgument argument);
/// --trace.
void add_trace_flag(CLI::App& command, EngineOptions& options);
void add_sampling_flags(CLI::App& command, SamplingFlags& flags);

/// A subcommand's help page ends with its examples and the exit codes.
void set_help_footer(CLI::App& command, const std::string& examples);

/// The weight format of a --experts value: F8_E4M3, BF16 or a block format from Q8_0 to Q2_K (in any case). Throws
/// quant::Error(kUsage).
quant::DType parse_expert_type(const std::string& text);
/// The weight format of a --resident value: Q8_0, BF16, F8_E4M3 (in any case). Throws quant::Error(kUsage).
quant::DType parse_resident_type(const std::string& text);

}  // namespace moraine::tools
