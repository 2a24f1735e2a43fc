#include <fmt/format.h>

#include <CLI/Formatter.hpp>
#include <memory>

#include "tools/byte_size.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/exit_codes.h"
#include "tools/progress_bar.h"
#include "tools/stats_json.h"
#include "tools/verifier.h"

namespace moraine::tools {
namespace {

struct VerifyCommand {
  std::filesystem::path model;
  bool json = false;
};

int verify(const VerifyCommand& options, Console& console) {
  VerifyReport report;
  {
    ProgressBar bar(console, "verifying", ProgressUnit::kBytes);
    report = verify_model(options.model, [&](uint64_t done_bytes, uint64_t total_bytes, const std::string& note) {
      bar.update(done_bytes, total_bytes, note);
    });
  }
  for (const std::string& fault : report.faults) console.line(fault);
  if (report.fault_count > report.faults.size()) {
    console.line(fmt::format("… and {} more", report.fault_count - report.faults.size()));
  }
  if (options.json) {
    console.out(json_text({{"model", options.model.string()},
                           {"ok", report.fault_count == 0},
                           {"fault_count", report.fault_count},
                           {"faults", report.faults},
                           {"records", report.records},
                           {"tensors", report.tensors},
                           {"files", report.files},
                           {"bytes_read", report.bytes_read}}));
  } else {
    const std::string seen = fmt::format("{} expert records, {} tensors, {} files, {} read", report.records,
                                         report.tensors, report.files, byte_size_text(report.bytes_read));
    console.out(report.fault_count == 0 ? fmt::format("ok: {}\n", seen)
                                        : fmt::format("{} faults: {}\n", report.fault_count, seen));
  }
  return report.fault_count == 0 ? kExitOk : exit_code(report.kind);
}

}  // namespace

void add_verify_command(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("verify", "Read a whole model and check every byte that can be checked");
  const auto options = std::make_shared<VerifyCommand>();
  add_model_argument(*command, options->model, ModelArgument::kRequired);
  add_json_flag(*command, options->json,
                "Print one JSON object: model, ok, fault_count, faults, records, tensors, files, bytes_read");
  set_help_footer(
      *command,
      "  moraine verify ~/models/pack\n\n"
      "A pack: the checksum of every expert, tensor and file. A plain directory or a GGUF file has no\n"
      "checksums: its structure is checked and every number is read (no NaN, no infinity, scales above 0).\n");
  command->callback([options, &chosen] { chosen = [options](Console& console) { return verify(*options, console); }; });
}

}  // namespace moraine::tools
