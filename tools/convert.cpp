#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>
#include <optional>
#include <thread>

#include "quant/error.h"
#include "tools/byte_size.h"
#include "tools/commands.h"
#include "tools/conversion_estimate.h"
#include "tools/converter.h"
#include "tools/exit_codes.h"
#include "tools/gguf_exporter.h"
#include "tools/progress_bar.h"
#include "tools/source_hashes.h"

namespace moraine::tools {
namespace {

struct ConvertCommand {
  std::filesystem::path source;
  std::filesystem::path destination;
  std::optional<quant::DType> experts;
  std::optional<quant::DType> resident;
  bool gguf = false;
  bool dry_run = false;
  int threads = 0;
};

int thread_count(const ConvertCommand& options) {
  return options.threads > 0 ? options.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Where the result of checking stated hashes is kept until the conversion is finished.
std::filesystem::path hash_record(const ConvertCommand& options) {
  if (!options.gguf) return options.destination / "moraine_hashes.txt";
  std::filesystem::path record = options.destination;
  record += ".hashes";
  return record;
}

/// Compares the source's files with the SHA-256 that somebody states of them.
void check_hashes(SourceHashes& hashes, const ConvertCommand& options, Console& console) {
  if (hashes.unchecked_files() == 0) return;
  console.line(fmt::format("comparing {} files ({}) with their stated SHA-256", hashes.unchecked_files(),
                           byte_size_text(hashes.unchecked_bytes())));
  ProgressBar bar(console, "checking", ProgressUnit::kBytes);
  hashes.check(thread_count(options), [&](uint64_t done_bytes, uint64_t total_bytes, const std::string& note) {
    bar.update(done_bytes, total_bytes, note);
  });
}

/// What `convert` would do, on stdout.
void print_plan(const ConvertCommand& options, const quant::Checkpoint& checkpoint,
                const runtime::ExpertSource& experts, uint64_t total_bytes, const SourceHashes& hashes,
                Console& console) {
  const ConversionEstimate estimate =
      estimate_conversion(checkpoint, experts, {.total_bytes = total_bytes, .threads = thread_count(options)});
  console.out(fmt::format("source     {}\n", terminal_safe(options.source.string())) + estimate_text(estimate) +
              fmt::format("hashes     {} of {} files have a stated SHA-256, {} are compared first ({})\n",
                          hashes.stated_files(), estimate.source_files, hashes.unchecked_files(),
                          byte_size_text(hashes.unchecked_bytes())) +
              fmt::format("writes     {}, {} in all\n", terminal_safe(options.destination.string()),
                          byte_size_text(total_bytes)));
  console.line("nothing was written: this was a dry run");
}

int convert_to_gguf(const ConvertCommand& options, Console& console) {
  GgufExporter exporter({.source = options.source,
                         .destination = options.destination,
                         .experts = options.experts,
                         .resident = options.resident,
                         .threads = thread_count(options),
                         .free_bytes = {}});
  SourceHashes hashes(stated_hashes(exporter.checkpoint().files()), hash_record(options));
  if (options.dry_run) {
    print_plan(options, exporter.checkpoint(), exporter.experts(), exporter.total_bytes(), hashes, console);
    return kExitOk;
  }
  check_hashes(hashes, options, console);
  console.line(fmt::format("writing {}: {} with experts {}", options.destination.string(),
                           byte_size_text(exporter.total_bytes()), exporter.experts().type_name));
  {
    ProgressBar bar(console, "converting", ProgressUnit::kBytes);
    exporter.run([&](uint64_t done_bytes, uint64_t total_bytes, const std::string& note) {
      bar.update(done_bytes, total_bytes, note);
    });
  }
  hashes.forget();
  console.line("done");
  return kExitOk;
}

int convert(const ConvertCommand& options, Console& console) {
  if (options.gguf) return convert_to_gguf(options, console);
  if (options.resident) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = "a pack keeps resident weights as they are stored; --resident needs --gguf",
                        .action = "give --resident when the model is run"});
  }
  ConvertOptions wanted;
  wanted.source = options.source;
  wanted.destination = options.destination;
  wanted.experts = options.experts;
  wanted.threads = thread_count(options);
  wanted.dry_run = options.dry_run;
  Converter converter(wanted);
  SourceHashes hashes(stated_hashes(converter.checkpoint().files()), hash_record(options));
  if (converter.already_done()) {
    console.line(fmt::format("{} already holds this conversion, finished; `moraine verify` checks it",
                             options.destination.string()));
    return kExitOk;
  }
  if (options.dry_run) {
    print_plan(options, converter.checkpoint(), converter.experts(), converter.total_bytes(), hashes, console);
    converter.check_space();
    return kExitOk;
  }
  converter.begin();
  check_hashes(hashes, options, console);
  console.line(fmt::format("{} {}: {} with experts {}", converter.resumes() ? "going on with" : "writing",
                           options.destination.string(), byte_size_text(converter.total_bytes()),
                           converter.experts().type_name));
  {
    ProgressBar bar(console, "converting", ProgressUnit::kBytes);
    converter.run([&](uint64_t done_bytes, uint64_t total_bytes, const std::string& note) {
      bar.update(done_bytes, total_bytes, note);
    });
  }
  hashes.forget();
  console.line(fmt::format("done; `moraine run {}` starts a chat", options.destination.string()));
  return kExitOk;
}

}  // namespace

void add_convert_command(CLI::App& app, Command& chosen) {
  CLI::App* command =
      app.add_subcommand("convert", "Write a model as a pack, its routed experts quantized or as they are");
  const auto options = std::make_shared<ConvertCommand>();
  command
      ->add_option_function<std::string>(
          "SRC", [options](const std::string& text) { options->source = text; },
          "Model: a directory with config.json, tokenizer.json, *.safetensors, or a GGUF file")
      ->type_name("")
      ->required();
  command
      ->add_option_function<std::string>(
          "DST", [options](const std::string& text) { options->destination = text; },
          "Directory to write (with --gguf: file); must be new or empty, or hold an interrupted conversion of\nthe "
          "same model, which then "
          "goes on")
      ->type_name("")
      ->required();
  add_experts_flag(*command, options->experts,
                   "How routed experts are stored: Q8_0, Q6_K, Q5_K, Q4_K, IQ4_XS, Q3_K, Q2_K, BF16 or\n"
                   "F8_E4M3 (if the model is FP8); default: as they are, without loss. Rows that are no\n"
                   "multiple of a format's block fall back "
                   "to the nearest 32-wide format; `moraine inspect` says which do");
  command->add_flag("--gguf", options->gguf,
                    "Write one GGUF file that other programs read, in place of a pack: FP8, which GGUF\n"
                    "has not, becomes Q8_0; MTP layers are left out");
  command
      ->add_option_function<std::string>(
          "--resident", [options](const std::string& text) { options->resident = parse_resident_type(text); },
          "With --gguf: matrices of attention, dense FFN, shared experts and head, Q8_0 or BF16\n"
          "(default: as stored)")
      ->type_name("TYPE");
  command->add_flag("--dry-run", options->dry_run,
                    "Check the model as for a conversion, say what would be written and how long it\nmay take, and "
                    "write nothing");
  add_threads_flag(*command, options->threads);
  set_help_footer(
      *command,
      "  moraine convert ~/models/DeepSeek-R1 /nvme/r1-q4k --experts Q4_K\n"
      "  moraine convert R1-Q4_K_M-00001-of-00009.gguf /nvme/r1\n"
      "  moraine convert ~/models/DeepSeek-R1 r1.gguf --gguf --experts Q4_K --resident Q8_0\n\n"
      "Files with a stated SHA-256 (NAME.sha256, SHA256SUMS, what the Hugging Face client leaves) are compared\n"
      "first. An interrupted conversion goes on when the same command is given again.\n");
  command->callback(
      [options, &chosen] { chosen = [options](Console& console) { return convert(*options, console); }; });
}

}  // namespace moraine::tools
