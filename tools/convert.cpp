#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>
#include <optional>
#include <thread>

#include "tools/byte_size.h"
#include "tools/commands.h"
#include "tools/converter.h"
#include "tools/exit_codes.h"
#include "tools/progress_bar.h"

namespace moraine::tools {
namespace {

struct ConvertCommand {
  std::filesystem::path source;
  std::filesystem::path destination;
  std::optional<quant::DType> experts;
  int threads = 0;
};

int convert(const ConvertCommand& options, Console& console) {
  const int all_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  ConvertOptions wanted;
  wanted.source = options.source;
  wanted.destination = options.destination;
  wanted.experts = *options.experts;
  wanted.threads = options.threads > 0 ? options.threads : all_threads;
  Converter converter(wanted);
  if (converter.already_done()) {
    console.line(fmt::format("{} already holds this conversion, finished; `moraine verify` checks it",
                             options.destination.string()));
    return kExitOk;
  }
  converter.begin();
  console.line(fmt::format("{} {}: {} with experts {}", converter.resumes() ? "going on with" : "writing",
                           options.destination.string(), byte_size_text(converter.total_bytes()),
                           converter.experts().type_name));
  {
    ProgressBar bar(console, "converting", ProgressUnit::kBytes);
    converter.run([&](uint64_t done_bytes, uint64_t total_bytes, const std::string& note) {
      bar.update(done_bytes, total_bytes, note);
    });
  }
  console.line(fmt::format("done; `moraine run {}` starts a chat", options.destination.string()));
  return kExitOk;
}

}  // namespace

void add_convert_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("convert", "Write a model as a pack, its routed experts quantized");
  const auto options = std::make_shared<ConvertCommand>();
  command
      ->add_option_function<std::string>(
          "SRC", [options](const std::string& text) { options->source = text; },
          "Model directory: config.json, tokenizer.json, *.safetensors")
      ->type_name("")
      ->required();
  command
      ->add_option_function<std::string>(
          "DST", [options](const std::string& text) { options->destination = text; },
          "Directory to write; must be new or empty, or hold an interrupted conversion of\nthe same model, which then "
          "goes on")
      ->type_name("")
      ->required();
  add_experts_flag(*command, options->experts,
                   "How routed experts are stored: Q8_0, Q4_K, Q4_0, BF16 or F8_E4M3 (as published, bit\n"
                   "for bit, if the model is FP8). Rows that are no multiple of a format's block fall back\n"
                   "to the nearest 32-wide format; `moraine inspect` says which do");
  command->get_option("--experts")->required();
  add_threads_flag(*command, options->threads);
  set_help_footer(*command,
                  "  moraine convert ~/models/DeepSeek-R1 /nvme/r1-q4k --experts Q4_K\n\n"
                  "An interrupted conversion goes on when the same command is given again.\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return convert(*options, console); }; });
}

}  // namespace moraine::tools
