#include "tools/cli_options.h"

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <map>
#include <span>

#include "quant/error.h"
#include "tools/byte_size.h"
#include "tools/exit_codes.h"

namespace moraine::tools {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxContext = int64_t{1} << 32;
constexpr std::array kExpertTypes = {
    quant::DType::kF8E4M3, quant::DType::kBF16,   quant::DType::kQ8_0, quant::DType::kQ6_K,  quant::DType::kQ5_K,
    quant::DType::kQ4_K,   quant::DType::kIQ4_XS, quant::DType::kQ3_K, quant::DType::kQ2_K,  quant::DType::kQ4_0,
    quant::DType::kQ4_1,   quant::DType::kQ5_0,   quant::DType::kQ5_1, quant::DType::kIQ4_NL};

constexpr std::array kResidentTypes = {quant::DType::kQ8_0,  quant::DType::kBF16, quant::DType::kF8E4M3,
                                       quant::DType::kQ6_K,  quant::DType::kQ5_K, quant::DType::kQ4_K,
                                       quant::DType::kIQ4_XS};

/// The type of that name, in any case, if it is one of `allowed`.
std::optional<quant::DType> find_type(const std::string& text, std::span<const quant::DType> allowed) {
  std::string upper = text;
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::toupper(letter)); });
  const auto type = quant::dtype_from_name(upper);
  if (type && std::find(allowed.begin(), allowed.end(), *type) != allowed.end()) return type;
  return std::nullopt;
}

uint64_t parse_seed(const std::string& text) {
  uint64_t seed = 0;
  const auto [rest, fault] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (fault == std::errc() && rest == text.data() + text.size()) return seed;
  throw quant::Error(
      quant::ErrorKind::kUsage,
      {.what = "not a seed", .item = quant::printable(text), .expected = "a number from 0 to 18446744073709551615"});
}

const char* const kModelHelp =
    "Directory with config.json, tokenizer.json and *.safetensors, a pack\nwritten by `moraine convert`, or a GGUF "
    "file (any part of a split one)";

}  // namespace

runtime::GenerateOptions SamplingFlags::merged_with(const runtime::SamplingOptions& defaults) const {
  runtime::GenerateOptions options{.max_tokens = max_tokens, .sampling = defaults};
  if (temperature) options.sampling.temperature = *temperature;
  if (top_p) options.sampling.top_p = *top_p;
  if (top_k) options.sampling.top_k = *top_k;
  if (min_p) options.sampling.min_p = *min_p;
  if (seed) options.sampling.seed = *seed;
  options.sampling.validate();
  return options;
}

quant::DType parse_expert_type(const std::string& text) {
  if (const auto type = find_type(text, kExpertTypes)) return *type;
  throw quant::Error(quant::ErrorKind::kUsage,
                     {.what = "not a type for experts",
                      .item = quant::printable(text),
                      .expected = "F8_E4M3, BF16, Q8_0, Q6_K, Q5_K, Q4_K, IQ4_XS, Q3_K, Q2_K, "
                                  "Q4_0, Q4_1, Q5_0, Q5_1 or IQ4_NL"});
}

quant::DType parse_resident_type(const std::string& text) {
  if (const auto type = find_type(text, kResidentTypes)) return *type;
  throw quant::Error(quant::ErrorKind::kUsage, {.what = "not a type for resident weights",
                                                .item = quant::printable(text),
                                                .expected = "Q8_0, BF16, F8_E4M3, Q6_K, Q5_K, Q4_K or IQ4_XS"});
}

void add_model_argument(CLI::App& command, std::filesystem::path& model, ModelArgument argument) {
  CLI::Option* option = command.add_option_function<std::string>(
      "MODEL", [&model](const std::string& text) { model = text; },
      argument == ModelArgument::kOptional ? std::string(kModelHelp) + "\n(default: the embedded tiny-r1)"
                                           : kModelHelp);
  option->type_name("");
  if (argument == ModelArgument::kRequired) option->required();
}

void add_experts_flag(CLI::App& command, std::optional<quant::DType>& experts, const std::string& help) {
  command
      .add_option_function<std::string>(
          "--experts", [&experts](const std::string& text) { experts = parse_expert_type(text); }, help)
      ->type_name("TYPE");
}

void add_resident_flag(CLI::App& command, std::optional<quant::DType>& resident) {
  command
      .add_option_function<std::string>(
          "--resident", [&resident](const std::string& text) { resident = parse_resident_type(text); },
          "Quantize the matrices that stay in RAM (attention, dense FFN,\nshared experts, head) on load: Q8_0, BF16 "
          "or\nQ6_K, Q5_K, Q4_K, IQ4_XS; "
          "F8_E4M3 keeps them\nas published (default: as stored)")
      ->type_name("TYPE");
}

void add_threads_flag(CLI::App& command, int& threads) {
  command
      .add_option("--threads", threads,
                  "Threads to compute with, 1 to 1024; the output does not\ndepend on it (default: all that the "
                  "process may use)")
      ->type_name("N")
      ->check(CLI::Range(1, kMaxThreads).description(""));
}

void add_json_flag(CLI::App& command, bool& json, const std::string& help) {
  command.add_flag("--json", json, help);
}

void add_memory_flags(CLI::App& command, EngineOptions& options) {
  command
      .add_option_function<std::string>(
          "--ram-budget", [&options](const std::string& text) { options.ram_budget_bytes = parse_byte_size(text); },
          "RAM for routed experts (in a dense model: for its layers' FFNs), e.g.\n6GiB, 512MiB, 1.5GB, or plain bytes; "
          "the "
          "output does not depend on\nit (default: all of them if they fit the free RAM, else what fits)")
      ->type_name("SIZE");
  command
      .add_option("--context", options.context_tokens,
                  "Most tokens of a conversation, for which RAM is kept free; the\noutput does not depend on it "
                  "(default: the model's, or fewer where\nRAM is short)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, kMaxContext).description(""));
}

CLI::Option* add_stripe_flag(CLI::App& command, std::vector<std::filesystem::path>& mirrors) {
  return command
      .add_option_function<std::vector<std::string>>(
          "--stripe", [&mirrors](const std::vector<std::string>& texts) { mirrors.assign(texts.begin(), texts.end()); },
          "Read experts from this directory too: a copy of the model's files, or of\nsome, on another drive (cp the "
          "model's files there); each drive is given as\nmuch as it is fast; repeat it for more drives")
      ->type_name("DIR")
      ->allow_extra_args(false);
}

void add_engine_flags(CLI::App& command, EngineOptions& options, ModelArgument argument) {
  add_model_argument(command, options.model, argument);
  add_memory_flags(command, options);
  add_threads_flag(command, options.threads);
  add_experts_flag(command, options.experts,
                   "Quantize a directory's routed experts on load: F8_E4M3, BF16, Q8_0,\nQ6_K, Q5_K, Q4_K, IQ4_XS, "
                   "Q3_K or Q2_K (default: as stored)");
  add_resident_flag(command, options.resident);
  const std::map<std::string, offload::ReaderKind> readers = {{"auto", offload::ReaderKind::kAuto},
                                                              {"io_uring", offload::ReaderKind::kUring},
                                                              {"pread", offload::ReaderKind::kPread}};
  command
      .add_option_function<std::string>(
          "--reader", [&options, readers](const std::string& text) { options.reader = readers.at(text); },
          "How experts are read from the disk: auto, io_uring or pread\n(default: auto = io_uring where the system "
          "allows it)")
      ->type_name("NAME")
      ->check(CLI::IsMember({"auto", "io_uring", "pread"}).description(""));
  add_stripe_flag(command, options.mirrors);
  command.add_flag_callback(
      "--no-prefetch", [&options] { options.prefetch = false; },
      "Read an expert only when it is needed, not when it is likely to be");
  command.add_flag(
      "--precise", options.precise,
      "Keep activations in f32 instead of rounding them to int8 blocks\nwhere weights are quantized (slower)");
  command.add_flag("--reference", options.reference, "Compute with the scalar code that defines the results (slow)");
}

void add_trace_flag(CLI::App& command, EngineOptions& options) {
  command
      .add_option_function<std::string>(
          "--trace", [&options](const std::string& text) { options.trace_file = text; },
          "Record every layer, wait and expert into this file, for `moraine trace`\nand Chrome's trace viewers")
      ->type_name("F");
}

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  command.add_option("--max-tokens", flags.max_tokens, "Most tokens of an answer, thinking included (default: 32768)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max()).description(""));
  command
      .add_option("--temp", flags.temperature,
                  "Temperature, 0 to 100; 0 = always the likeliest token\n(default: the model's own, else 0.6)")
      ->type_name("T");
  command
      .add_option(
          "--top-p", flags.top_p,
          "Draw from the smallest set of tokens with this probability,\n0 to 1 (default: the model's own, else 0.95)")
      ->type_name("P");
  command.add_option("--top-k", flags.top_k, "Draw from the K likeliest tokens; 0 = from all (default: 0)")
      ->type_name("K");
  command
      .add_option("--min-p", flags.min_p,
                  "Leave out tokens less likely than P times the likeliest one,\n0 to 1 (default: 0)")
      ->type_name("P");
  command
      .add_option_function<std::string>(
          "--seed", [&flags](const std::string& text) { flags.seed = parse_seed(text); },
          "Number that fixes the random choices: same seed, same settings,\nsame answer (default: 0)")
      ->type_name("S");
}

void set_help_footer(CLI::App& command, const std::string& examples) {
  command.footer("\nEXAMPLES\n" + examples + "\n" + kExitCodesHelp);
}

}  // namespace moraine::tools
