#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <algorithm>
#include <limits>
#include <memory>
#include <thread>

#include "tools/byte_size.h"
#include "tools/commands.h"
#include "tools/engine_setup.h"
#include "tools/exit_codes.h"
#include "tools/gguf_synthesizer.h"
#include "tools/progress_bar.h"
#include "tools/synthesizer.h"

namespace moraine::tools {
namespace {

struct SynthCommand {
  SynthOptions options;
  std::optional<quant::DType> experts;
  std::optional<quant::DType> resident;
  bool gguf = false;
  int threads = 0;
};

/// What is about to be written, in a line.
std::string plan_line(const SynthOptions& options, const runtime::ModelConfig& config, uint64_t total_bytes,
                      bool resumes) {
  return fmt::format("{} {}: {}, {} dense and {} MoE layers, experts {}, resident {}, vocabulary {}",
                     resumes ? "going on with" : "writing", options.destination.string(), byte_size_text(total_bytes),
                     config.first_k_dense_replace, config.num_hidden_layers - config.first_k_dense_replace,
                     quant::dtype_name(options.experts), quant::dtype_name(options.resident), config.vocab_size);
}

/// Writes it with a progress bar.
template <typename AnySynthesizer>
void write(AnySynthesizer& synthesizer, const SynthOptions& options, Console& console) {
  {
    ProgressBar bar(console, "writing", ProgressUnit::kBytes);
    synthesizer.run([&](uint64_t done_bytes, uint64_t total_bytes, const std::string& note) {
      bar.update(done_bytes, total_bytes, note);
    });
  }
  console.line(fmt::format("done; `moraine bench {}` measures with it", options.destination.string()));
}

int synth(const SynthCommand& command, Console& console) {
  SynthOptions options = command.options;
  options.tokenizer_source = model_directory({});
  options.experts = command.experts.value_or(options.experts);
  options.resident = command.resident.value_or(options.resident);
  options.threads =
      command.threads > 0 ? command.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (command.gguf) {
    GgufSynthesizer synthesizer(options);
    console.line(plan_line(options, synthesizer.config(), synthesizer.total_bytes(), false));
    write(synthesizer, options, console);
    return kExitOk;
  }
  Synthesizer synthesizer(options);
  if (synthesizer.already_done()) {
    console.line(fmt::format("{} already holds this model, finished", options.destination.string()));
    return kExitOk;
  }
  console.line(plan_line(options, synthesizer.config(), synthesizer.total_bytes(), synthesizer.resumes()));
  write(synthesizer, options, console);
  return kExitOk;
}

void add_count(CLI::App& command, const char* flag, std::optional<int64_t>& value, int64_t least, int64_t most,
               const char* help) {
  command.add_option(flag, value, help)->type_name("N")->check(CLI::Range(least, most).description(""));
}

}  // namespace

void add_synth_command(CLI::App& app, Command& chosen) {
  CLI::App* command =
      app.add_subcommand("synth", "Write a pack of a model's shapes with random weights, for measuring");
  const auto options = std::make_shared<SynthCommand>();
  SynthOptions& wanted = options->options;
  command
      ->add_option_function<std::string>(
          "OUT", [&wanted](const std::string& text) { wanted.destination = text; },
          "Directory to write; must be new or empty, or hold an interrupted run of the same\ncommand, which then goes "
          "on")
      ->type_name("")
      ->required();
  command
      ->add_option(
          "--preset", wanted.preset,
          "r1-671b (DeepSeek-R1), v2-lite (DeepSeek-V2-Lite), qwen2-7b or\nllama-8b (R1's distills), tiny (the "
          "embedded tiny-r1)")
      ->type_name("NAME")
      ->required();
  add_count(*command, "--dense-layers", wanted.dense_layers, 0, 4095, "Leading dense layers (default: the model's)");
  add_count(*command, "--moe-layers", wanted.moe_layers, 1, 4096, "MoE layers behind them (default: the model's)");
  add_count(*command, "--vocab", wanted.vocab_size, 1, 1 << 24,
            "Rows of embedding and head (default: 4096 for r1-671b, which has\n129280 itself: with few layers they "
            "would outweigh all else)");
  add_experts_flag(*command, options->experts,
                   "Routed experts: F8_E4M3, BF16, Q8_0, Q6_K, Q5_K,\nQ4_K, IQ4_XS, Q3_K or Q2_K (default: Q4_K)");
  command
      ->add_option_function<std::string>(
          "--resident", [options](const std::string& text) { options->resident = parse_resident_type(text); },
          "Matrices of attention, dense FFN, shared experts and head: Q8_0,\nBF16, F8_E4M3, Q6_K, Q5_K, Q4_K or IQ4_XS "
          "(default: Q8_0)")
      ->type_name("TYPE");
  command->add_option("--seed", wanted.seed, "Number that fixes the weights (default: 0)")
      ->type_name("S")
      ->check(CLI::Range(uint64_t{0}, std::numeric_limits<uint64_t>::max()).description(""));
  command->add_flag("--gguf", options->gguf,
                    "Write one GGUF file, which other programs load too, in place of a pack;\nOUT is a new file then");
  add_threads_flag(*command, options->threads);
  set_help_footer(*command,
                  "  moraine synth /nvme/r1-shape --preset r1-671b --dense-layers 1 --moe-layers 2\n"
                  "  moraine synth r1-shape.gguf --gguf --preset r1-671b --dense-layers 1 --moe-layers 2\n\n"
                  "Full layers of the 671B model at any count: 1 dense and 2 MoE layers take 13 GiB. The text such a\n"
                  "model writes has no meaning; its speed has.\n");
  command->callback([options, &chosen] { chosen = [options](Console& console) { return synth(*options, console); }; });
}

}  // namespace moraine::tools
